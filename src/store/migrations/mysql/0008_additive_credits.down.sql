ALTER TABLE api_keys DROP COLUMN credits_id;
DROP TABLE credits;
