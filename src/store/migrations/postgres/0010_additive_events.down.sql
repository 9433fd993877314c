DROP INDEX mutation_log_by_subject;
ALTER TABLE mutation_log DROP COLUMN event;
ALTER TABLE mutation_log DROP COLUMN subject;
