ALTER TABLE actors DROP COLUMN rate_policies;
