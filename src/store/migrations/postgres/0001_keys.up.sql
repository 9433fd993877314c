-- Every id is text, every time is microseconds since 1970 UTC, every enum a small number, JSON is text:
-- the one shape that all supported databases store and give back alike. Texts sort by their bytes, wherever this runs.
CREATE TABLE api_keys (
    network_id             VARCHAR(36) COLLATE "C" NOT NULL,
    key_id                 VARCHAR(64) COLLATE "C" NOT NULL,
    kind                   SMALLINT     NOT NULL, -- 1 issued, 2 imported
    name                   VARCHAR(255) COLLATE "C" NOT NULL,
    actor_id               VARCHAR(255) COLLATE "C" NOT NULL,
    scopes                 TEXT         NOT NULL, -- JSON list
    metadata               TEXT, -- JSON object
    visibility             SMALLINT     NOT NULL, -- 1 secret, 2 public
    allowed_cidrs          TEXT         NOT NULL, -- JSON list
    rate_quota             BIGINT,
    rate_window            BIGINT, -- microseconds
    rate_unit              VARCHAR(32) COLLATE "C",
    created_at             BIGINT       NOT NULL,
    updated_at             BIGINT       NOT NULL,
    expires_at             BIGINT,
    superseded_at          BIGINT,
    revocation_reason      VARCHAR(64) COLLATE "C", -- set once it is revoked
    revocation_description TEXT,
    last_used_at           BIGINT,
    mutation               BIGINT       NOT NULL, -- number of its last entry in mutation_log, 0 when it has none
    request_id             VARCHAR(36) COLLATE "C", -- the caller's own, AIP-155
    request_fingerprint    VARCHAR(64) COLLATE "C", -- of the body that came with it
    PRIMARY KEY (network_id, key_id)
);

CREATE INDEX api_keys_by_age ON api_keys (network_id, kind, created_at, key_id);
CREATE INDEX api_keys_by_actor ON api_keys (network_id, kind, actor_id, created_at, key_id);
CREATE UNIQUE INDEX api_keys_by_request ON api_keys (network_id, request_id);

-- The one row whose lock orders all changes: commits happen in the order of their numbers.
CREATE TABLE mutation_counter (
    id SMALLINT NOT NULL PRIMARY KEY,
    n  BIGINT   NOT NULL
);
INSERT INTO mutation_counter (id, n) VALUES (1, 0);

-- What changed, in order. The tag is random: a history that was rewritten by a restore shows another.
CREATE TABLE mutation_log (
    n          BIGINT      NOT NULL PRIMARY KEY,
    tag        VARCHAR(32) COLLATE "C" NOT NULL,
    network_id VARCHAR(36) COLLATE "C" NOT NULL,
    key_id     VARCHAR(64) COLLATE "C" NOT NULL,
    at         BIGINT      NOT NULL
);
INSERT INTO mutation_log (n, tag, network_id, key_id, at) VALUES (0, md5(random()::text || clock_timestamp()::text), '', '', 0);
