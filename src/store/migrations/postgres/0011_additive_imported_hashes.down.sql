ALTER TABLE mutation_counter DROP COLUMN hashes;
DROP INDEX api_keys_by_sha512;
DROP INDEX api_keys_by_sha256;
ALTER TABLE api_keys DROP COLUMN sha512_id;
ALTER TABLE api_keys DROP COLUMN sha256_id;
