ALTER TABLE mutation_counter DROP COLUMN hashes;
ALTER TABLE api_keys DROP INDEX api_keys_by_sha512, DROP INDEX api_keys_by_sha256, DROP COLUMN sha512_id, DROP COLUMN sha256_id;
