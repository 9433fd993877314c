-- Additive: the release before this one runs beside it, and enforces the policy named default.
-- JSON list of a key's rate policies; NULL: at most default, whose numbers are in rate_quota, rate_window and rate_unit.
ALTER TABLE api_keys ADD COLUMN rate_policies TEXT;
