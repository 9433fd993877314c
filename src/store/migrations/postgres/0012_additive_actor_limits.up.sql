-- Additive: the release before this one runs beside it. It knows no limits of actors, and enforces none.
ALTER TABLE actors ADD COLUMN rate_policies TEXT; -- JSON list: name, quota, window, scope, enforce
