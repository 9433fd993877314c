-- Additive: the release before this one runs beside it.
-- Checks of one process and one UTC hour. Each process writes rows of its own, with absolute numbers, so that a
-- write that is repeated changes nothing. The key is empty for Checks without a known key, and `other` for those
-- beyond the bound on rows; route is the name of the matched rule; outcome is `allow` or the reason of the refusal.
CREATE TABLE usage_hours (
    network_id VARCHAR(36) NOT NULL,
    hour_at    BIGINT      NOT NULL, -- start of the hour
    key_id     VARCHAR(64) NOT NULL,
    route      VARCHAR(32) NOT NULL,
    outcome    VARCHAR(32) NOT NULL,
    process_id VARCHAR(36) NOT NULL,
    n          BIGINT      NOT NULL,
    PRIMARY KEY (network_id, hour_at, key_id, route, outcome, process_id)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;
CREATE INDEX usage_hours_by_key ON usage_hours (network_id, key_id, hour_at);
CREATE INDEX usage_hours_by_hour ON usage_hours (hour_at);

-- Sums of hours that aren't kept any more, by UTC day.
CREATE TABLE usage_days (
    network_id VARCHAR(36) NOT NULL,
    day_at     BIGINT      NOT NULL, -- start of the day
    key_id     VARCHAR(64) NOT NULL,
    route      VARCHAR(32) NOT NULL,
    outcome    VARCHAR(32) NOT NULL,
    n          BIGINT      NOT NULL,
    PRIMARY KEY (network_id, day_at, key_id, route, outcome)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;
CREATE INDEX usage_days_by_key ON usage_days (network_id, key_id, day_at);
CREATE INDEX usage_days_by_day ON usage_days (day_at);

-- First and last allowed Check of each key, to the minute, and the client of the last one.
CREATE TABLE usage_keys (
    network_id    VARCHAR(36) NOT NULL,
    key_id        VARCHAR(64) NOT NULL,
    first_used_at BIGINT      NOT NULL,
    last_used_at  BIGINT      NOT NULL,
    last_address  VARCHAR(45),
    PRIMARY KEY (network_id, key_id)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;
