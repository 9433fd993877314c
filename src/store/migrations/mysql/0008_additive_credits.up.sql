-- Additive: the release before this one runs beside it. It knows no credits, and spends none.
-- Balances of credits. One belongs to the key that was first given it, and to the keys that replace that one.
CREATE TABLE credits (
    network_id    VARCHAR(36) NOT NULL,
    credits_id    VARCHAR(64) NOT NULL, -- id of the key that was first given them
    remaining     BIGINT NOT NULL CHECK (remaining >= 0),
    refill        VARCHAR(128), -- JSON object: amount, every, at
    refill_due_at BIGINT, -- next time at which one is due
    holders       BIGINT NOT NULL, -- number of keys that spend them
    PRIMARY KEY (network_id, credits_id)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

ALTER TABLE api_keys ADD COLUMN credits_id VARCHAR(64); -- balance that the key spends
