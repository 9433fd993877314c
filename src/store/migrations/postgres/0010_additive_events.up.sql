-- Additive: the release before this one runs beside it, and leaves these empty.
-- For those who follow the log: the id of the changed key or actor, of new keys as well, and a JSON
-- object with the operation, its caller and what differs. Once the key or actor is erased, the
-- object says only that.
ALTER TABLE mutation_log ADD COLUMN subject VARCHAR(255) COLLATE "C";
ALTER TABLE mutation_log ADD COLUMN event TEXT;
CREATE INDEX mutation_log_by_subject ON mutation_log (network_id, subject);
