-- Additive: the release before this one runs beside it. It writes no terms: each process of this release makes up for
-- that, and lists read keys whose terms aren't written yet besides.
-- Scopes and values of metadata of each key, by which it is found. They go with the key, whoever deletes it or changes
-- its id.
CREATE TABLE key_terms (
    network_id VARCHAR(36) NOT NULL,
    key_id     VARCHAR(64) NOT NULL,
    kind       SMALLINT     NOT NULL,
    term       VARCHAR(130) NOT NULL,
    created_at BIGINT       NOT NULL, -- of the key
    PRIMARY KEY (network_id, key_id, term),
    FOREIGN KEY (network_id, key_id) REFERENCES api_keys (network_id, key_id) ON DELETE CASCADE ON UPDATE CASCADE
) WITHOUT ROWID;
CREATE INDEX key_terms_by_term ON key_terms (network_id, kind, term, created_at, key_id);

-- The key's mutation when its terms were written. NULL: they aren't yet.
ALTER TABLE api_keys ADD COLUMN terms_at BIGINT;

CREATE INDEX api_keys_by_terms_due ON api_keys (network_id, kind, key_id) WHERE (terms_at IS NULL OR terms_at <> mutation);
CREATE INDEX api_keys_by_name ON api_keys (network_id, kind, name COLLATE NOCASE, created_at, key_id);
CREATE INDEX api_keys_by_expiry ON api_keys (network_id, kind, expires_at, key_id);
CREATE INDEX api_keys_by_last_use ON api_keys (network_id, kind, last_used_at, key_id);
