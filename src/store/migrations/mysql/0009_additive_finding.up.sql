-- Additive: the release before this one runs beside it. It writes no terms: each process of this release makes up for
-- that, and lists read keys whose terms aren't written yet besides.
-- Scopes and values of metadata of each key, by which it is found. They go with the key, whoever deletes it or changes
-- its id.
CREATE TABLE key_terms (
    network_id VARCHAR(36)  NOT NULL,
    key_id     VARCHAR(64)  NOT NULL,
    kind       SMALLINT     NOT NULL,
    term       VARCHAR(130) NOT NULL,
    created_at BIGINT       NOT NULL, -- of the key
    PRIMARY KEY (network_id, key_id, term),
    FOREIGN KEY (network_id, key_id) REFERENCES api_keys (network_id, key_id) ON DELETE CASCADE ON UPDATE CASCADE
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;
CREATE INDEX key_terms_by_term ON key_terms (network_id, kind, term, created_at, key_id);

ALTER TABLE api_keys
    -- The key's mutation when its terms were written. NULL: they aren't yet.
    ADD COLUMN terms_at BIGINT,
    -- 1 if the terms aren't written. Invisible, so that a table can be copied as a whole.
    ADD COLUMN terms_due SMALLINT AS (CASE WHEN terms_at = mutation THEN NULL ELSE 1 END) VIRTUAL /*M!100303 INVISIBLE */ /*!80023 INVISIBLE */,
    -- The name without the case of its letters.
    ADD COLUMN folded_name VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci AS (name) VIRTUAL /*M!100303 INVISIBLE */ /*!80023 INVISIBLE */;

ALTER TABLE api_keys
    ADD INDEX api_keys_by_terms_due (terms_due, network_id, kind, key_id),
    ADD INDEX api_keys_by_name (network_id, kind, folded_name, created_at, key_id),
    ADD INDEX api_keys_by_expiry (network_id, kind, expires_at, key_id),
    ADD INDEX api_keys_by_last_use (network_id, kind, last_used_at, key_id);
