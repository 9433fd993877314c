DROP INDEX api_keys_by_last_use;
DROP INDEX api_keys_by_expiry;
DROP INDEX api_keys_by_name;
DROP INDEX api_keys_by_terms_due;
ALTER TABLE api_keys DROP COLUMN terms_at;
DROP TABLE key_terms;
