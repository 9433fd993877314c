-- Additive: the release before this one runs beside it, and leaves these empty.
-- For those who follow the log: the id of the changed key or actor, of new keys as well, and a JSON
-- object with the operation, its caller and what differs. Once the key or actor is erased, the
-- object says only that.
ALTER TABLE mutation_log
    ADD COLUMN subject VARCHAR(255),
    ADD COLUMN event TEXT,
    ADD INDEX mutation_log_by_subject (network_id, subject);
