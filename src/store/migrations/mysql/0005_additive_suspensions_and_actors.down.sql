ALTER TABLE api_keys
    DROP COLUMN grace_limit_at,
    DROP COLUMN unused_grace,
    DROP COLUMN replaces,
    DROP COLUMN revoked_by,
    DROP COLUMN updated_by,
    DROP COLUMN created_by,
    DROP COLUMN suspension;
ALTER TABLE mutation_log DROP COLUMN actor_id;
DROP TABLE actors;
