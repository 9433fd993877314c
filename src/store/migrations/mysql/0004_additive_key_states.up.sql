-- Additive: the release before this one runs beside it.
ALTER TABLE api_keys
    -- Id of the HMAC secret that an issued key's checksum was made with, and its prefix; empty: not known yet.
    ADD COLUMN secret_id  VARCHAR(16) NOT NULL DEFAULT '',
    ADD COLUMN key_prefix VARCHAR(16) NOT NULL DEFAULT '',
    -- State by time when it was last recorded: 1 active, 2 superseded, 3 expired. Only filters use it, and they look at the times as well.
    ADD COLUMN swept SMALLINT NOT NULL DEFAULT 1,
    -- State: 1 active, 2 revoked, 3 expired. Invisible, so that a table can be copied as a whole.
    ADD COLUMN state SMALLINT AS (CASE WHEN revocation_reason IS NULL THEN swept ELSE 2 END) VIRTUAL /*M!100303 INVISIBLE */ /*!80023 INVISIBLE */,
    -- Time of the next change of the state by itself.
    ADD COLUMN due_at BIGINT AS (CASE WHEN revocation_reason IS NOT NULL OR swept = 2 THEN NULL WHEN swept = 3 OR expires_at IS NULL OR superseded_at < expires_at THEN superseded_at ELSE expires_at END) VIRTUAL /*M!100303 INVISIBLE */ /*!80023 INVISIBLE */;

ALTER TABLE api_keys
    ADD INDEX api_keys_by_state (network_id, kind, state, created_at, key_id),
    ADD INDEX api_keys_by_actor_state (network_id, kind, actor_id, state, created_at, key_id),
    ADD INDEX api_keys_by_due (due_at, network_id, kind),
    ADD INDEX api_keys_by_secret (kind, secret_id, state, network_id, created_at, key_id),
    ADD INDEX api_keys_by_prefix (kind, key_prefix, state, network_id, created_at, key_id);
