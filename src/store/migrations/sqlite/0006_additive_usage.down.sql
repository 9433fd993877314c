DROP TABLE usage_keys;
DROP TABLE usage_days;
DROP TABLE usage_hours;
