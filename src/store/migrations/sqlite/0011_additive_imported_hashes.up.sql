-- Additive: the release before this one runs beside it. It doesn't know keys of which only a hash was imported, until they are used here.
-- Ids under which hashes of an imported key are found: hashes over network and digest, 64 hexadecimal digits. Of a key that
-- waits for its first use, one of them is the key's id.
ALTER TABLE api_keys ADD COLUMN sha256_id VARCHAR(64);
ALTER TABLE api_keys ADD COLUMN sha512_id VARCHAR(64);
CREATE INDEX api_keys_by_sha256 ON api_keys (network_id, sha256_id) WHERE sha256_id IS NOT NULL;
CREATE INDEX api_keys_by_sha512 ON api_keys (network_id, sha512_id) WHERE sha512_id IS NOT NULL;
-- Algorithms of which hashes were ever imported: 1 SHA-256, 2 SHA-512, 3 both. Where it is 0, no lookup looks for hashes.
ALTER TABLE mutation_counter ADD COLUMN hashes SMALLINT NOT NULL DEFAULT 0;
