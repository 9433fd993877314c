ALTER TABLE api_keys DROP COLUMN grace_limit_at;
ALTER TABLE api_keys DROP COLUMN unused_grace;
ALTER TABLE api_keys DROP COLUMN replaces;
ALTER TABLE api_keys DROP COLUMN revoked_by;
ALTER TABLE api_keys DROP COLUMN updated_by;
ALTER TABLE api_keys DROP COLUMN created_by;
ALTER TABLE api_keys DROP COLUMN suspension;
ALTER TABLE mutation_log DROP COLUMN actor_id;
DROP TABLE actors;
