DROP INDEX api_keys_by_prefix;
DROP INDEX api_keys_by_secret;
DROP INDEX api_keys_by_due;
DROP INDEX api_keys_by_actor_state;
DROP INDEX api_keys_by_state;
ALTER TABLE api_keys DROP COLUMN swept;
ALTER TABLE api_keys DROP COLUMN key_prefix;
ALTER TABLE api_keys DROP COLUMN secret_id;
