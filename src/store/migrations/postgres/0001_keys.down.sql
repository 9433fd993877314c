DROP TABLE mutation_log;
DROP TABLE mutation_counter;
DROP TABLE api_keys;
