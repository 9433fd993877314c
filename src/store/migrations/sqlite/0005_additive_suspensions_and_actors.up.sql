-- Additive: the release before this one runs beside it. It knows no suspension, and lets suspended keys pass.
-- Actors that have a name, metadata or a suspension. Others need no row.
CREATE TABLE actors (
    network_id   VARCHAR(36) NOT NULL,
    actor_id     VARCHAR(255) NOT NULL,
    display_name VARCHAR(255),
    metadata     TEXT, -- JSON object
    suspension   TEXT, -- JSON object: reason, until, at, by
    created_at   BIGINT NOT NULL,
    updated_at   BIGINT NOT NULL,
    updated_by   VARCHAR(255), -- verified caller
    mutation     BIGINT NOT NULL, -- number of its last entry in mutation_log
    PRIMARY KEY (network_id, actor_id)
);

-- Changed actor, with an empty key_id: programs that don't know it take the entry for one without a subject.
ALTER TABLE mutation_log ADD COLUMN actor_id VARCHAR(255);

ALTER TABLE api_keys ADD COLUMN suspension TEXT; -- JSON object: reason, until, at, by
-- Verified callers.
ALTER TABLE api_keys ADD COLUMN created_by VARCHAR(255);
ALTER TABLE api_keys ADD COLUMN updated_by VARCHAR(255);
ALTER TABLE api_keys ADD COLUMN revoked_by VARCHAR(255);
ALTER TABLE api_keys ADD COLUMN replaces VARCHAR(64); -- id of the key's predecessor
-- A rotated key ends after so many microseconds without a use, at the latest at that time: superseded_at is put off by uses.
ALTER TABLE api_keys ADD COLUMN unused_grace BIGINT;
ALTER TABLE api_keys ADD COLUMN grace_limit_at BIGINT;
