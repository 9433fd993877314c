ALTER TABLE api_keys DROP COLUMN request_seal;
ALTER TABLE api_keys DROP COLUMN replaced_by;
DROP INDEX api_keys_by_grace;
DROP TABLE key_counts;
