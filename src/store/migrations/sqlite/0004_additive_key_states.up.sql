-- Additive: the release before this one runs beside it.
-- Id of the HMAC secret that an issued key's checksum was made with, and its prefix; empty: not known yet.
ALTER TABLE api_keys ADD COLUMN secret_id VARCHAR(16) NOT NULL DEFAULT '';
ALTER TABLE api_keys ADD COLUMN key_prefix VARCHAR(16) NOT NULL DEFAULT '';
-- State by time when it was last recorded: 1 active, 2 superseded, 3 expired. Only filters use it, and they look at the times as well.
ALTER TABLE api_keys ADD COLUMN swept SMALLINT NOT NULL DEFAULT 1;

-- The first expression is the state: 1 active, 2 revoked, 3 expired. The second is the time of its next change by itself.
-- Expressions, so that a table which is copied as a whole has no column that can't be written.
CREATE INDEX api_keys_by_state ON api_keys (network_id, kind, (CASE WHEN revocation_reason IS NULL THEN swept ELSE 2 END), created_at, key_id);
CREATE INDEX api_keys_by_actor_state ON api_keys (network_id, kind, actor_id, (CASE WHEN revocation_reason IS NULL THEN swept ELSE 2 END), created_at, key_id);
CREATE INDEX api_keys_by_due ON api_keys ((CASE WHEN revocation_reason IS NOT NULL OR swept = 2 THEN NULL WHEN swept = 3 OR expires_at IS NULL OR superseded_at < expires_at THEN superseded_at ELSE expires_at END), network_id, kind);
CREATE INDEX api_keys_by_secret ON api_keys (kind, secret_id, (CASE WHEN revocation_reason IS NULL THEN swept ELSE 2 END), network_id, created_at, key_id);
CREATE INDEX api_keys_by_prefix ON api_keys (kind, key_prefix, (CASE WHEN revocation_reason IS NULL THEN swept ELSE 2 END), network_id, created_at, key_id);
