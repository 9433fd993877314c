-- Number of keys that count towards the quota, by network: neither revoked, nor superseded up to settled_at.
-- Its row is also the lock of the network's keys: whoever changes them changes it first.
CREATE TABLE key_counts (
    network_id   VARCHAR(36) COLLATE "C" NOT NULL PRIMARY KEY,
    live         BIGINT      NOT NULL,
    settled_at   BIGINT      NOT NULL, -- grace periods that ended up to here are subtracted
    recounts     BIGINT      NOT NULL,
    recounted_at BIGINT      NOT NULL
);
INSERT INTO key_counts (network_id, live, settled_at, recounts, recounted_at)
    SELECT network_id, count(*), 0, 0, 0 FROM api_keys WHERE revocation_reason IS NULL GROUP BY network_id;
CREATE INDEX api_keys_by_grace ON api_keys (network_id, superseded_at) WHERE superseded_at IS NOT NULL;

ALTER TABLE api_keys ADD COLUMN replaced_by VARCHAR(64) COLLATE "C"; -- id of the key's successor
ALTER TABLE api_keys ADD COLUMN request_seal VARCHAR(64) COLLATE "C"; -- keyed hash over the request, its caller and the credential
