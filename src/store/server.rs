//! Identity of the server that answered, and the check that it is a primary.
//!
//! An answer proves little by itself: the server may have been demoted, may follow another one, or
//! may show uncommitted changes. So every statement that a decision depends on (a poll, a lookup, a
//! change) reads the server's identity and state as well, in the same snapshot as its rows.

use std::fmt;
use std::sync::Arc;

use sqlx::Row;
use sqlx::any::AnyRow;

use super::StoreError;
use super::dialect::Dialect;

/// Identity of a server. It differs between servers, and may change when a server restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerId(Arc<str>);

impl ServerId {
    /// Creates the identity that a server reports.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reason why the answer of a server isn't used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAuthoritative {
    /// The server accepts no writes (`read_only`, `default_transaction_read_only`), so they are
    /// made elsewhere.
    #[error("the server is read-only: it is not the primary, or not any more")]
    ReadOnly,
    /// The server is a standby.
    #[error("the server is in recovery: it is a standby, not the primary")]
    InRecovery,
    /// A session would never see what is committed after its first statement.
    #[error(
        "the session has autocommit off, though it was switched on: a proxy or the server changed it back"
    )]
    AutocommitOff,
    /// Rows may never be committed, or may be missing.
    #[error("the session reads uncommitted changes, though another isolation level was set")]
    DirtyReads,
    /// CockroachDB's `default_transaction_use_follower_reads` is on.
    #[error(
        "the session reads from followers, which lag: default_transaction_use_follower_reads must be off"
    )]
    FollowerReads,
    /// Statements inside and outside of a transaction were answered by different servers.
    #[error(
        "reads and writes go to different servers: a proxy that splits them stands before the database, and \
         db.dsn must lead to the primary alone"
    )]
    SplitReads,
    /// New connections lead to another server.
    #[error("the connection leads to another server than db.dsn does now")]
    OtherServer,
    /// The path of the SQLite file names another file, or none.
    #[error("the file at the path of db.dsn is not the one that was opened: it was replaced or removed")]
    FileReplaced,
    /// Log of the SQLite file, or the index of the log, isn't the one that was opened.
    #[error(
        "the -wal or the -shm beside the file of db.dsn was removed or replaced while it was open: all connections \
         are closed, and the file is opened again once no process has it open"
    )]
    LogReplaced,
    /// Another file was put in the place of the SQLite file, beside the log of the earlier one.
    #[error(
        "the file at the path of db.dsn was replaced, and the -wal and -shm of the one before are still beside it: they \
         would overwrite it. Delete both"
    )]
    LogLeft,
    /// The server refused a write, as it isn't the primary.
    #[error("the server refuses to write (it is not the primary any more)")]
    RefusedWrite,
    /// An old connection answers, and no new one can be opened, so the primary is unknown.
    #[error("no new connection can be opened, so it is not known whether this server is still the primary")]
    Unproven,
}

impl NotAuthoritative {
    /// Returns the name for metrics and `talos status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "read_only",
            Self::InRecovery => "in_recovery",
            Self::AutocommitOff => "autocommit_off",
            Self::DirtyReads => "dirty_reads",
            Self::FollowerReads => "follower_reads",
            Self::SplitReads => "split_reads",
            Self::OtherServer => "other_server",
            Self::FileReplaced => "file_replaced",
            Self::LogReplaced => "log_replaced",
            Self::LogLeft => "log_left",
            Self::RefusedWrite => "refused_write",
            Self::Unproven => "unproven",
        }
    }

    /// Parses the column `server_state`; `None` means a primary.
    fn from_state(state: &str) -> Result<Option<Self>, StoreError> {
        Ok(Some(match state {
            "ok" => return Ok(None),
            "read_only" => Self::ReadOnly,
            "in_recovery" => Self::InRecovery,
            "autocommit_off" => Self::AutocommitOff,
            "dirty_reads" => Self::DirtyReads,
            "follower_reads" => Self::FollowerReads,
            _ => return Err(StoreError::Corrupt("server_state")),
        }))
    }
}

impl Dialect {
    /// Returns an SQL expression for the server's identity, as text.
    pub(super) const fn server_id(self) -> &'static str {
        match self {
            // The file system knows the identity of the file.
            Self::Sqlite => "'file'",
            // Unlike the system identifier, it differs between a primary and its standby. Unlike
            // the address, it doesn't depend on the way to the server.
            Self::Postgres => {
                "extract(epoch from pg_postmaster_start_time())::text || ':' || current_setting('port')"
            }
            // All nodes have the same data, so any may answer.
            Self::Cockroach => "'cluster'",
            // Only MySQL executes the comment; MariaDB has no server_uuid.
            Self::MySql => "CONCAT_WS(':', @@hostname, @@port, @@server_id /*!50700 , @@server_uuid */)",
        }
    }

    /// Returns an SQL expression for the state of server and session: `ok`, or the reason why the
    /// server isn't a primary.
    pub(super) const fn server_state(self) -> &'static str {
        match self {
            Self::Sqlite => "'ok'",
            Self::Postgres => {
                "CASE WHEN pg_is_in_recovery() THEN 'in_recovery' \
                 WHEN current_setting('transaction_read_only') = 'on' THEN 'read_only' ELSE 'ok' END"
            }
            Self::Cockroach => {
                "CASE WHEN current_setting('default_transaction_use_follower_reads', true) = 'on' \
                 THEN 'follower_reads' \
                 WHEN current_setting('transaction_read_only') = 'on' THEN 'read_only' ELSE 'ok' END"
            }
            // Users with SUPER or READ ONLY ADMIN could write all the same, but where nobody reads.
            Self::MySql => {
                "CASE WHEN @@session.autocommit = 0 THEN 'autocommit_off' \
                 WHEN /*!50720 @@session.transaction_isolation */ /*M! @@session.tx_isolation */ \
                 = 'READ-UNCOMMITTED' THEN 'dirty_reads' \
                 WHEN @@global.read_only NOT IN ('0', 'OFF') OR @@global.innodb_read_only <> 0 THEN 'read_only' \
                 WHEN /*!50720 @@session.transaction_read_only */ /*M! @@session.tx_read_only */ \
                 NOT IN ('0', 'OFF') THEN 'read_only' ELSE 'ok' END"
            }
        }
    }

    /// Returns statements that identify and name the server, inside a transaction that could write.
    /// They are sent at once, for one round trip. Returns `None` where the file system identifies
    /// it.
    pub(super) fn identify_server(self) -> Option<String> {
        let name = match self {
            Self::Sqlite => return None,
            Self::Postgres => {
                "coalesce(host(inet_server_addr()) || ':' || inet_server_port()::text, 'a Unix socket') \
                 || ', PostgreSQL ' || current_setting('server_version')"
            }
            Self::Cockroach => "'CockroachDB'",
            Self::MySql => "CONCAT(@@hostname, ':', @@port, ', ', @@version)",
        };
        let (id, state) = (self.server_id(), self.server_state());
        Some(format!(
            "BEGIN; SELECT {id} AS server_id, {state} AS server_state, {name} AS server_name; ROLLBACK"
        ))
    }

    /// Returns true if an error means that a write was refused because the server isn't the
    /// primary.
    pub(super) fn is_refused_as_replica(self, error: &sqlx::Error) -> bool {
        let Some(error) = error.as_database_error() else {
            return false;
        };
        match self {
            Self::Sqlite => false,
            // read_only_sql_transaction; a hot standby that shuts down reports other codes.
            Self::Postgres | Self::Cockroach => error.code().as_deref() == Some("25006"),
            Self::MySql => {
                let number = error
                    .try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()
                    .map(sqlx::mysql::MySqlDatabaseError::number);
                // ER_OPTION_PREVENTS_STATEMENT, ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION,
                // ER_READ_ONLY_MODE; and ER_OPEN_AS_READONLY for a server that was started with
                // innodb_read_only.
                matches!(number, Some(1290 | 1792 | 1836 | 1036))
            }
        }
    }
}

/// Reads the identity of the server from a row, and checks that it is a primary.
///
/// # Errors
/// When it isn't, or the row can't be read.
pub(super) fn authoritative(row: &AnyRow, id: &str, state: &str) -> Result<ServerId, StoreError> {
    if let Some(reason) = NotAuthoritative::from_state(&row.try_get::<String, _>(state)?)? {
        return Err(reason.into());
    }
    Ok(ServerId::new(&row.try_get::<String, _>(id)?))
}

#[cfg(test)]
mod tests {
    use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor};

    use super::*;

    #[test]
    fn each_state_that_a_database_reports_is_parsed() {
        let dialects = [Dialect::Sqlite, Dialect::Postgres, Dialect::Cockroach, Dialect::MySql];
        let states = dialects.into_iter().flat_map(|dialect| {
            // The quoted words after THEN or ELSE, or the only one.
            let text = dialect.server_state();
            let parts = text.split("THEN ").skip(1).chain(text.split("ELSE ").skip(1));
            let parts = parts.chain(text.starts_with('\'').then_some(text));
            parts.filter_map(|part| part.split('\'').nth(1)).collect::<Vec<_>>()
        });
        for state in states {
            let reason = NotAuthoritative::from_state(state).unwrap();
            assert_eq!(reason.map_or("ok", NotAuthoritative::name), state);
        }
        assert!(NotAuthoritative::from_state("").is_err());
        assert!(NotAuthoritative::from_state("something else").is_err());
    }

    /// Changes a setting of a new session of a real server; returns the state that the session
    /// reports.
    async fn state_after(dialect: Dialect, dsn: &str, setting: &str) -> String {
        crate::store::driver::install();
        let mut connection = AnyConnection::connect(dsn).await.unwrap();
        if let Some(setup) = dialect.session_setup() {
            connection.execute(setup).await.unwrap();
        }
        sqlx::raw_sql(AssertSqlSafe(setting.to_owned())).execute(&mut connection).await.unwrap();
        let query = format!("SELECT {} AS server_state", dialect.server_state());
        let row = sqlx::raw_sql(AssertSqlSafe(query)).fetch_one(&mut connection).await.unwrap();
        row.get("server_state")
    }

    #[tokio::test]
    async fn a_session_whose_settings_were_changed_is_noticed() {
        let (mariadb, postgres) = (Dialect::MySql, Dialect::Postgres);
        for (dialect, variable, setting, state) in [
            (mariadb, "TALOS_TEST_MARIADB", "SET @unused = 1", "ok"),
            (mariadb, "TALOS_TEST_MARIADB", "SET autocommit = 0", "autocommit_off"),
            (
                mariadb,
                "TALOS_TEST_MARIADB",
                "SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED",
                "dirty_reads",
            ),
            (mariadb, "TALOS_TEST_MARIADB", "SET SESSION TRANSACTION READ ONLY", "read_only"),
            (postgres, "TALOS_TEST_POSTGRES", "SET application_name = 'test'", "ok"),
            (postgres, "TALOS_TEST_POSTGRES", "SET default_transaction_read_only = on", "read_only"),
            (postgres, "TALOS_TEST_POSTGRES", "BEGIN READ ONLY", "read_only"),
        ] {
            let Ok(dsn) = std::env::var(variable) else {
                assert!(std::env::var("TALOS_TEST_REQUIRE_ALL").is_err(), "{variable} isn't set");
                eprintln!("skipped, {variable} isn't set: {setting}");
                continue;
            };
            assert_eq!(state_after(dialect, &dsn, setting).await, state, "after {setting}");
        }
    }
}
