ALTER TABLE mutation_log
    DROP INDEX mutation_log_by_subject,
    DROP COLUMN event,
    DROP COLUMN subject;
