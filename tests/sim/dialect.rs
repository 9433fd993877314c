//! Statements for PostgreSQL, converted to what SQLite executes.
//!
//! The text is that of the real dialect, so what is left is little: expressions about the server
//! and its clock, and locks of rows, which the one writer of a simulated server needn't take. A
//! statement that isn't converted fails in SQLite, and the simulation with it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use sqlx_core::any::AnyValueKind;

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
            Self::Primary => "ok",
            Self::Standby => "in_recovery",
            Self::ReadOnly => "read_only",
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

/// Statement as SQLite executes it. What a server says of itself and its clock are arguments, after
/// those of the statement, so that it has to be prepared once only.
pub struct Statement {
    pub text: Arc<str>,
    /// First words, for people.
    pub name: Arc<str>,
    /// A server refuses it when it accepts no writes.
    pub is_write: bool,
    /// A proxy that splits reads from writes would take it for a read.
    pub is_read: bool,
}

/// Converts a statement with so many arguments of its own. Each text is converted once.
pub fn convert(text: &str, arguments: usize) -> Arc<Statement> {
    static CONVERTED: LazyLock<Mutex<HashMap<String, Arc<Statement>>>> = LazyLock::new(Mutex::default);
    /// Texts that are kept; those with numbers in them never come again.
    const MAX_TEXTS: usize = 1_000;
    if let Some(statement) = CONVERTED.lock().get(text) {
        return Arc::clone(statement);
    }
    let statement = Arc::new(convert_now(text, arguments));
    let mut converted = CONVERTED.lock();
    if converted.len() < MAX_TEXTS {
        converted.insert(text.to_owned(), Arc::clone(&statement));
    }
    statement
}

fn convert_now(text: &str, arguments: usize) -> Statement {
    let plain = text.strip_prefix("BEGIN; ").and_then(|text| text.strip_suffix("; ROLLBACK")).unwrap_or(text);
    let place = |index: usize| format!("${}", arguments + index);
    let converted = plain
        .replace(SERVER_ID, &place(1))
        .replace(SERVER_NAME, &place(1))
        .replace(SERVER_STATE, &place(2))
        .replace(CLOCK, &place(3))
        .replace("current_setting('server_encoding')", "'UTF8'")
        .replace(
            "information_schema.tables WHERE table_schema = current_schema() AND table_name",
            "sqlite_master WHERE type = 'table' AND name",
        )
        .replace(" FOR UPDATE", "")
        .replace(" FOR KEY SHARE", "")
        .replace("GREATEST(", "max(")
        .replace("LEAST(", "min(");
    Statement {
        text: converted.into(),
        name: text.split_whitespace().take(3).collect::<Vec<_>>().join(" ").into(),
        is_write: ["INSERT", "UPDATE", "DELETE"].iter().any(|word| text.starts_with(word))
            || text.contains(" FOR UPDATE")
            || text.contains(" FOR KEY SHARE"),
        is_read: !text.starts_with("BEGIN"),
    }
}

/// Returns what a server says of itself: the arguments that [`convert`] added.
pub fn server_arguments(server: usize, role: Role, wall: i64) -> [AnyValueKind; 3] {
    let text = |text: String| AnyValueKind::Text(Arc::new(text));
    [text(format!("server {server}")), text(role.state().to_owned()), AnyValueKind::BigInt(wall)]
}
