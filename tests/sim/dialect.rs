//! Statements for PostgreSQL, converted to what SQLite executes.
//!
//! The text is that of the real dialect, so what is left is little: expressions about the server
//! and its clock, and locks of rows, which the one writer of a simulated server needn't take. A
//! statement that isn't converted fails in SQLite, and the simulation with it.

/// State of a server, as its statements report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Primary,
    /// Follows another server.
    Standby,
    /// Accepts no writes.
    ReadOnly,
}

impl Role {
    const fn state(self) -> &'static str {
        match self {
            Self::Primary => "'ok'",
            Self::Standby => "'in_recovery'",
            Self::ReadOnly => "'read_only'",
        }
    }
}

const SERVER_ID: &str =
    "extract(epoch from pg_postmaster_start_time())::text || ':' || current_setting('port')";
const SERVER_STATE: &str = "CASE WHEN pg_is_in_recovery() THEN 'in_recovery' \
     WHEN current_setting('transaction_read_only') = 'on' THEN 'read_only' ELSE 'ok' END";
const SERVER_NAME: &str = "coalesce(host(inet_server_addr()) || ':' || inet_server_port()::text, 'a Unix socket') \
     || ', PostgreSQL ' || current_setting('server_version')";
const CLOCK: &str = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)";

/// Converts a statement for a server.
pub fn convert(text: &str, server: usize, role: Role, wall: i64) -> String {
    let text = text.strip_prefix("BEGIN; ").and_then(|text| text.strip_suffix("; ROLLBACK")).unwrap_or(text);
    let id = format!("'server {server}'");
    text.replace(SERVER_ID, &id)
        .replace(SERVER_STATE, role.state())
        .replace(SERVER_NAME, &id)
        .replace(CLOCK, &wall.to_string())
        .replace(
            "information_schema.tables WHERE table_schema = current_schema() AND table_name",
            "sqlite_master WHERE type = 'table' AND name",
        )
        .replace(" FOR UPDATE", "")
        .replace(" FOR KEY SHARE", "")
        .replace("GREATEST(", "max(")
        .replace("LEAST(", "min(")
}

/// Returns true for a statement that a server refuses when it accepts no writes.
pub fn is_write(text: &str) -> bool {
    ["INSERT", "UPDATE", "DELETE"].iter().any(|word| text.starts_with(word))
        || text.contains(" FOR UPDATE")
        || text.contains(" FOR KEY SHARE")
}
