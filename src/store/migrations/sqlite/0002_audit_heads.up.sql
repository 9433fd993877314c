-- Where the audit log of each process ends: lines that are cut off the end of a file are missed here.
CREATE TABLE audit_heads (
    chain      VARCHAR(36)  NOT NULL PRIMARY KEY,
    instance   VARCHAR(255) NOT NULL, -- machine and path
    line_count BIGINT       NOT NULL,
    mac        VARCHAR(64)  NOT NULL, -- of the last line
    seal       VARCHAR(64)  NOT NULL, -- keyed: who reads the MAC off the file can't make it
    updated_at BIGINT       NOT NULL
);
CREATE INDEX audit_heads_by_instance ON audit_heads (instance, updated_at);
