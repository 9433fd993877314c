//! Which server answered, and whether its answer may be relied on.
//!
//! A connection that answers proves little by itself: the server behind it may have been demoted, may follow another,
//! or may show what was never committed. So every statement that a decision rests on (a poll, a lookup, a change)
//! brings the server's identity and its state along, in the same snapshot as its rows.

use std::fmt;
use std::sync::Arc;

use sqlx::Row;
use sqlx::any::AnyRow;

use super::StoreError;
use super::dialect::Dialect;

/// Which server it is: two servers differ, a server that restarts may differ from itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerId(Arc<str>);

impl ServerId {
    /// The identity that a server reports.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a server's answer is not relied on, though it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAuthoritative {
    /// `read_only`, `default_transaction_read_only`: it takes no writes, so others happen elsewhere.
    #[error("the server is read-only: it is not the primary, or not any more")]
    ReadOnly,
    /// A standby.
    #[error("the server is in recovery: it is a standby, not the primary")]
    InRecovery,
    /// Its sessions would never see what is committed after their first statement.
    #[error(
        "the session has autocommit off, though it was switched on: a proxy or the server changed it back"
    )]
    AutocommitOff,
    /// What it shows may never be committed, or may be missing.
    #[error("the session reads uncommitted changes, though another isolation level was set")]
    DirtyReads,
    /// CockroachDB's `default_transaction_use_follower_reads`.
    #[error(
        "the session reads from followers, which lag: default_transaction_use_follower_reads must be off"
    )]
    FollowerReads,
    /// A statement outside of a transaction was answered by another server than one inside.
    #[error(
        "reads and writes go to different servers: a proxy that splits them stands before the database, and \
         db.dsn must lead to the primary alone"
    )]
    SplitReads,
    /// New connections lead elsewhere.
    #[error("the connection leads to another server than db.dsn does now")]
    OtherServer,
    /// The path of SQLite's file names another file, or none.
    #[error("the file at the path of db.dsn is not the one that was opened: it was replaced or removed")]
    FileReplaced,
    /// The server refused a write as one that is not the primary.
    #[error("the server refuses to write (it is not the primary any more)")]
    RefusedWrite,
    /// Statements pass on an old connection, and no new one can be made: where the address leads is unknown.
    #[error(
        "no new connection can be made, so it is not known whether this server is still the one that counts"
    )]
    Unproven,
}

impl NotAuthoritative {
    /// The word for metrics and `talos status`.
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
            Self::RefusedWrite => "refused_write",
            Self::Unproven => "unproven",
        }
    }

    /// From the column `server_state`; None for a server that counts.
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
    /// An expression for the server's identity, as text.
    pub(super) const fn server_id(self) -> &'static str {
        match self {
            // The file's identity is asked of the file system.
            Self::Sqlite => "'file'",
            // Unlike the system identifier, it tells a primary from the standby that was copied from it; unlike the
            // address, it is the same by whichever way the server is reached.
            Self::Postgres => {
                "extract(epoch from pg_postmaster_start_time())::text || ':' || current_setting('port')"
            }
            // Any node of it may answer: they agree.
            Self::Cockroach => "'cluster'",
            // Only MySQL reads the first comment, only MariaDB the second; it has no server_uuid.
            Self::MySql => "CONCAT_WS(':', @@hostname, @@port, @@server_id /*!50700 , @@server_uuid */)",
        }
    }

    /// An expression for the server's and the session's state: `ok`, or why its answers don't count.
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
            // Whoever may write all the same (SUPER, READ ONLY ADMIN) would write where nobody reads.
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

    /// A statement that says who answers inside a transaction that could write, and how to call the server. Three
    /// statements at once, for one round trip. None where the file system says it.
    pub(super) fn introduction(self) -> Option<String> {
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

    /// What a refused write says when the server isn't the primary, or isn't any more.
    pub(super) fn is_refused_as_replica(self, error: &sqlx::Error) -> bool {
        let Some(error) = error.as_database_error() else {
            return false;
        };
        match self {
            Self::Sqlite => false,
            // read_only_sql_transaction; what a hot standby says during its shutdown has other codes.
            Self::Postgres | Self::Cockroach => error.code().as_deref() == Some("25006"),
            Self::MySql => {
                let number = error
                    .try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()
                    .map(sqlx::mysql::MySqlDatabaseError::number);
                // ER_OPTION_PREVENTS_STATEMENT, ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION, ER_READ_ONLY_MODE; and
                // ER_OPEN_AS_READONLY for a server that was started with innodb_read_only.
                matches!(number, Some(1290 | 1792 | 1836 | 1036))
            }
        }
    }
}

/// The identity in a row that has it, of a server whose answers count.
///
/// # Errors
/// When they don't, or the row can't be read.
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
    fn each_state_that_a_database_reports_has_its_reason() {
        let dialects = [Dialect::Sqlite, Dialect::Postgres, Dialect::Cockroach, Dialect::MySql];
        let states = dialects.into_iter().flat_map(|dialect| {
            // What stands in quotes after THEN or ELSE, or alone.
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

    /// Sets something on a new session of a real server, and returns the state that the session reports then.
    async fn state_after(dialect: Dialect, dsn: &str, setting: &str) -> String {
        sqlx::any::install_default_drivers();
        let mut connection = AnyConnection::connect(dsn).await.unwrap();
        if let Some(settings) = dialect.session() {
            connection.execute(settings).await.unwrap();
        }
        sqlx::raw_sql(AssertSqlSafe(setting.to_owned())).execute(&mut connection).await.unwrap();
        let query = format!("SELECT {} AS server_state", dialect.server_state());
        let row = sqlx::raw_sql(AssertSqlSafe(query)).fetch_one(&mut connection).await.unwrap();
        row.get("server_state")
    }

    #[tokio::test]
    async fn a_session_that_somebody_changed_back_is_told() {
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
                eprintln!("skipped, {variable} isn't set: {setting}");
                continue;
            };
            assert_eq!(state_after(dialect, &dsn, setting).await, state, "after {setting}");
        }
    }
}
