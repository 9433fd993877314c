//! Differences between the databases. All statements are written once, with `$1`, `$2` … in order.

use std::fmt::Write;

use sqlx::migrate::Migrator;

use super::migrations::{COCKROACH, MYSQL, POSTGRES, SQLITE};

/// Index of the primary key, for [`Dialect::index_hint`].
pub(super) const PRIMARY_KEY: &str = "PRIMARY";

/// Kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
    /// Speaks PostgreSQL's protocol, without its advisory locks.
    Cockroach,
    /// MySQL or MariaDB.
    MySql,
}

impl Dialect {
    /// Converts a statement to this dialect.
    pub(super) fn statement(self, text: String) -> String {
        match self {
            Self::Postgres | Self::Cockroach => text,
            // In SQLite, `$1` is a name, which is searched for among all names of the statement:
            // with 2,000 of them, that takes longer than to insert the rows.
            Self::Sqlite | Self::MySql => with_question_marks(&text),
        }
    }

    /// Returns the statements that begin a write transaction. Their settings hold only within it,
    /// as a pooler may run the next one in another session.
    pub(super) const fn begin_write(self) -> &'static str {
        match self {
            // A deferred transaction can't write once another process has changed the file.
            Self::Sqlite => "BEGIN IMMEDIATE",
            // READ COMMITTED whatever the default is: each statement sees what is committed when it
            // begins. Not READ WRITE, as a server that is read-only by default must not be written.
            //
            // A process that is cut off or stopped during a change holds the row that all changes
            // lock. The timeout frees it; otherwise no key could be revoked until TCP times out.
            //
            // Changes wait for each other for as long as elsewhere, whatever `lock_timeout` a role
            // has for other work. An acknowledged commit is on disk, also where
            // `synchronous_commit` is off; any other value of it stays.
            Self::Postgres => {
                "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = 5000; \
                 SET LOCAL lock_timeout = 8000; SELECT set_config('synchronous_commit', 'local', true) \
                 WHERE current_setting('synchronous_commit') = 'off'"
            }
            // Serializable; the database retries by itself, or asks for a retry.
            Self::Cockroach => "BEGIN; SET LOCAL idle_in_transaction_session_timeout = 5000",
            Self::MySql => "BEGIN",
        }
    }

    /// Returns the statement that begins a read transaction.
    pub(super) const fn begin_read(self) -> &'static str {
        match self {
            Self::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED",
            Self::Sqlite | Self::Cockroach | Self::MySql => "BEGIN",
        }
    }

    /// Returns the statements that set up every new connection.
    pub(super) const fn session_setup(self) -> Option<&'static str> {
        match self {
            // FULL: acknowledged changes survive a power cut, not only a crash of this process.
            Self::Sqlite => {
                Some("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000;")
            }
            Self::Postgres | Self::Cockroach => None,
            // A server's defaults, including `init_connect`, must not change what a statement sees
            // or returns. Without autocommit, or with chained transactions, the first snapshot
            // never ends. READ COMMITTED is refused by a binary log of statements, and there a
            // statement outside of a transaction sees the same. All rows are returned and sorted by
            // all of their text, no text is truncated silently, no row is found by `IS NULL` that
            // isn't NULL, no statement is refused for its size, and uniqueness is checked. The last
            // comment bounds the lock of the row that all changes
            // need: only MariaDB has that setting and executes such a comment.
            Self::MySql => Some(
                "SET SESSION autocommit = 1, completion_type = 'NO_CHAIN', \
                 /*!50720 transaction_isolation */ /*M! tx_isolation */ = \
                 IF(@@session.binlog_format = 'STATEMENT', 'REPEATABLE-READ', 'READ-COMMITTED'), \
                 sql_select_limit = 18446744073709551615, max_sort_length = 1024, sql_auto_is_null = 0, \
                 sql_big_selects = 1, sql_safe_updates = 0, unique_checks = 1, \
                 sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', \
                 innodb_lock_wait_timeout = 8 /*M!100300 , idle_write_transaction_timeout = 5 */",
            ),
        }
    }

    /// Returns the start of a comparison of the column `actor_id` with a placeholder, byte for
    /// byte, that is needed beside `actor_id = `, which alone can use an index.
    pub(super) const fn actor_equals_exactly(self) -> Option<&'static str> {
        match self {
            Self::Sqlite | Self::Postgres | Self::Cockroach => None,
            // MySQL ignores trailing spaces when it compares texts.
            Self::MySql => Some("CAST(actor_id AS BINARY) = "),
        }
    }

    /// Returns the expression for the recorded state of a key: 1 active, 2 revoked, 3 expired. It
    /// is the one in the indexes.
    pub(super) const fn state(self) -> &'static str {
        match self {
            Self::MySql => "state",
            Self::Sqlite | Self::Postgres | Self::Cockroach => {
                "(CASE WHEN revocation_reason IS NULL THEN swept ELSE 2 END)"
            }
        }
    }

    /// Returns the expression for the time of the next change of that state by itself.
    pub(super) const fn due_at(self) -> &'static str {
        match self {
            Self::MySql => "due_at",
            Self::Sqlite | Self::Postgres | Self::Cockroach => {
                "(CASE WHEN revocation_reason IS NOT NULL OR swept = 2 THEN NULL \
                 WHEN swept = 3 OR expires_at IS NULL OR superseded_at < expires_at THEN superseded_at \
                 ELSE expires_at END)"
            }
        }
    }

    /// Returns what follows the table's name in a statement that reads what is due: without
    /// statistics, a planner takes the condition for a weak one.
    pub(super) const fn due_index(self) -> &'static str {
        match self {
            Self::Sqlite => " INDEXED BY api_keys_by_due",
            Self::MySql => " FORCE INDEX (api_keys_by_due)",
            Self::Postgres | Self::Cockroach => "",
        }
    }

    /// Returns what follows the table's name in a statement that reads this index, whatever the
    /// planner takes for better; empty where `plan_settings` hold.
    pub(super) fn index_hint(self, index: &str) -> String {
        match (self, index) {
            (Self::Sqlite, PRIMARY_KEY) => " INDEXED BY sqlite_autoindex_api_keys_1".to_owned(),
            (Self::Sqlite, index) => format!(" INDEXED BY {index}"),
            (Self::MySql, index) => format!(" FORCE INDEX ({index})"),
            (Self::Postgres | Self::Cockroach, _) => String::new(),
        }
    }

    /// Returns the statement that, within a transaction, keeps the planner from reading a whole
    /// table, whether it has statistics or not.
    pub(super) const fn plan_settings(self) -> Option<&'static str> {
        match self {
            Self::Postgres => Some(
                "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; \
                 SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; \
                 SET LOCAL plan_cache_mode = force_custom_plan",
            ),
            Self::Sqlite | Self::Cockroach | Self::MySql => None,
        }
    }

    /// Returns the join that reads the table on its left first.
    pub(super) const fn ordered_join(self) -> &'static str {
        match self {
            Self::Sqlite => "CROSS JOIN",
            Self::Postgres | Self::Cockroach => "JOIN",
            Self::MySql => "STRAIGHT_JOIN",
        }
    }

    /// Returns the expression for a key's name in the index of names, in which the case of the
    /// letters A to Z doesn't count; in MySQL, that of no letter.
    pub(super) const fn folded_name(self) -> &'static str {
        match self {
            Self::Sqlite => "name COLLATE NOCASE",
            Self::Postgres | Self::Cockroach => "lower(name)",
            Self::MySql => "folded_name",
        }
    }

    /// Returns the expression for the metadata of a key in which, like above, case doesn't count.
    pub(super) const fn folded_metadata(self) -> &'static str {
        match self {
            Self::Sqlite => "lower(metadata)",
            Self::Postgres | Self::Cockroach => "lower(metadata COLLATE \"C\")",
            Self::MySql => "metadata COLLATE utf8mb4_general_ci",
        }
    }

    /// Returns the function that finds its second argument within its first, or gives 0.
    pub(super) const fn position_function(self) -> &'static str {
        match self {
            Self::Sqlite | Self::MySql => "instr",
            Self::Postgres | Self::Cockroach => "strpos",
        }
    }

    /// Returns the condition of keys whose terms aren't written.
    pub(super) const fn are_terms_due(self) -> &'static str {
        match self {
            Self::Sqlite | Self::Postgres | Self::Cockroach => "(terms_at IS NULL OR terms_at <> mutation)",
            Self::MySql => "terms_due = 1",
        }
    }

    /// Returns what follows the rows of an INSERT that replaces `set` where a row with the same
    /// `key` exists. In `set`, [`Self::inserted`] stands for the new value of a column.
    pub(super) fn on_conflict(self, key: &str, set: &str) -> String {
        match self {
            Self::Sqlite | Self::Postgres | Self::Cockroach => {
                format!("ON CONFLICT ({key}) DO UPDATE SET {set}")
            }
            Self::MySql => format!("ON DUPLICATE KEY UPDATE {set}"),
        }
    }

    /// Returns the expression for the value of a column that was to be inserted.
    pub(super) fn inserted(self, column: &str) -> String {
        match self {
            Self::Sqlite | Self::Postgres | Self::Cockroach => format!("excluded.{column}"),
            Self::MySql => format!("VALUES({column})"),
        }
    }

    /// Returns the names of the functions for the largest and the smallest of several values.
    pub(super) const fn greatest_and_least(self) -> (&'static str, &'static str) {
        match self {
            Self::Sqlite => ("max", "min"),
            Self::Postgres | Self::Cockroach | Self::MySql => ("GREATEST", "LEAST"),
        }
    }

    /// Returns what follows a SELECT whose rows must not be deleted before the transaction ends.
    /// SQLite has one writer, and CockroachDB's transactions are serializable.
    pub(super) const fn lock_shared(self) -> &'static str {
        match self {
            Self::Sqlite | Self::Cockroach => "",
            Self::Postgres => " FOR KEY SHARE",
            Self::MySql => " LOCK IN SHARE MODE",
        }
    }

    /// Returns what follows a SELECT whose rows only this transaction may change.
    pub(super) const fn lock_exclusive(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres | Self::Cockroach | Self::MySql => " FOR UPDATE",
        }
    }

    /// Returns the type of a CAST to a number of 64 bits.
    pub(super) const fn integer(self) -> &'static str {
        match self {
            Self::Sqlite | Self::Postgres | Self::Cockroach => "BIGINT",
            Self::MySql => "SIGNED",
        }
    }

    /// Returns the query that counts tables.
    pub(super) const fn count_tables(self) -> &'static str {
        match self {
            Self::Sqlite => "SELECT count(*) FROM sqlite_master WHERE type = 'table'",
            Self::Postgres | Self::Cockroach => {
                "SELECT count(*) FROM information_schema.tables WHERE table_schema = current_schema()"
            }
            Self::MySql => "SELECT count(*) FROM information_schema.tables WHERE table_schema = database()",
        }
    }

    /// Returns the query that counts tables of a name.
    pub(super) const fn count_named(self) -> &'static str {
        match self {
            Self::Sqlite => "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = $1",
            Self::Postgres | Self::Cockroach => {
                "SELECT count(*) FROM information_schema.tables WHERE table_schema = current_schema() \
                 AND table_name = $1"
            }
            Self::MySql => {
                "SELECT count(*) FROM information_schema.tables WHERE table_schema = database() \
                 AND table_name = $1"
            }
        }
    }

    /// Returns the migrations.
    pub(super) fn migrator(self) -> &'static Migrator {
        match self {
            Self::Sqlite => &SQLITE,
            Self::Postgres => &POSTGRES,
            Self::Cockroach => &COCKROACH,
            Self::MySql => &MYSQL,
        }
    }

    /// Returns true if an error means that the connection is lost, or the server is shutting down.
    pub(super) fn is_connection_lost(self, error: &sqlx::Error) -> bool {
        match error {
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => self != Self::Sqlite,
            sqlx::Error::Database(error) => match (self, error.code().as_deref()) {
                // Class connection_exception; admin_shutdown, crash_shutdown, cannot_connect_now.
                (Self::Postgres | Self::Cockroach, Some(code)) => {
                    code.starts_with("08") || code.starts_with("57P")
                }
                // ER_SERVER_SHUTDOWN, ER_CONNECTION_KILLED.
                (Self::MySql, Some(code)) => matches!(code, "08S01" | "70100"),
                _ => false,
            },
            _ => false,
        }
    }

    /// Returns true if an error means that the transaction had no effect and should be retried.
    pub(super) fn is_retryable(self, error: &sqlx::Error) -> bool {
        let Some(error) = error.as_database_error() else {
            return false;
        };
        let code = error.code().unwrap_or_default();
        match self {
            // Writers wait for each other.
            Self::Sqlite => false,
            // Serialization failure or deadlock; or two transactions inserted the same row, which
            // the second one sees when it is retried.
            Self::Postgres | Self::Cockroach => {
                matches!(&*code, "40001" | "40P01") || error.is_unique_violation()
            }
            // SQLSTATE of a deadlock. A lock wait that timed out is HY000, and isn't retried.
            Self::MySql => code == "40001" || error.is_unique_violation(),
        }
    }
}

/// Most rows of one statement. Every database accepts their parameters, and they usually fit into
/// one TLS record: two records wait 40 ms for the server's delayed ACK, as sqlx leaves Nagle's
/// algorithm on.
pub(super) const MAX_ROWS: usize = 40;

/// Returns the placeholders of an INSERT of `rows` rows of `columns` columns: `($1, $2), ($3, $4)`.
pub(super) fn placeholders(rows: usize, columns: usize) -> String {
    let mut text = String::with_capacity(rows * (columns * 7 + 4));
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { "), (" });
        for column in 1..=columns {
            let before = if column == 1 { "" } else { ", " };
            let _ = write!(text, "{before}${}", row * columns + column);
        }
    }
    text.push(')');
    text
}

/// Replaces `$1`, `$2` … by `?`. Those have no numbers, so each must occur once and in order.
fn with_question_marks(text: &str) -> String {
    let mut rewritten = String::with_capacity(text.len());
    let mut parts = text.split('$');
    rewritten.push_str(parts.next().unwrap_or_default());
    for (index, part) in (1..).zip(parts) {
        let after = part.trim_start_matches(|c: char| c.is_ascii_digit());
        debug_assert_eq!(part[..part.len() - after.len()].parse(), Ok(index), "{text}");
        rewritten.push('?');
        rewritten.push_str(after);
    }
    rewritten
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::{AnyConnection, Connection, Row};

    /// A role's defaults neither shorten the waits of a write nor make its commit a promise.
    #[tokio::test]
    async fn a_write_of_postgres_is_durable_whatever_the_defaults_are() {
        let Ok(dsn) = std::env::var("TALOS_TEST_POSTGRES") else {
            assert!(std::env::var("TALOS_TEST_REQUIRE_ALL").is_err(), "TALOS_TEST_POSTGRES isn't set");
            eprintln!("skipped, TALOS_TEST_POSTGRES isn't set");
            return;
        };
        crate::store::driver::install();
        let mut connection = AnyConnection::connect(&dsn).await.unwrap();
        for (set, kept) in [("off", "local"), ("on", "on"), ("remote_write", "remote_write")] {
            let defaults = format!("SET synchronous_commit = {set}; SET lock_timeout = 1");
            sqlx::raw_sql(sqlx::AssertSqlSafe(defaults)).execute(&mut connection).await.unwrap();
            let mut write = connection.begin_with(Dialect::Postgres.begin_write()).await.unwrap();
            let settings = "SELECT current_setting('synchronous_commit') AS commits, \
                            current_setting('lock_timeout') AS waits";
            let row = sqlx::raw_sql(settings).fetch_one(&mut *write).await.unwrap();
            assert_eq!(
                (row.get::<String, _>("commits"), row.get::<String, _>("waits")),
                (kept.into(), "8s".into())
            );
            write.commit().await.unwrap();
            let row = sqlx::raw_sql(settings).fetch_one(&mut connection).await.unwrap();
            assert_eq!(row.get::<String, _>("commits"), set, "nothing is left in the session");
        }
    }

    #[test]
    fn values_of_many_rows() {
        assert_eq!(placeholders(1, 3), "($1, $2, $3)");
        assert_eq!(placeholders(2, 2), "($1, $2), ($3, $4)");
        assert_eq!(placeholders(2, 1), "($1), ($2)");
    }

    #[test]
    fn question_marks() {
        let text = || "SELECT a FROM t WHERE b = $1 AND c IN ($2, $3) LIMIT $4".to_owned();
        assert_eq!(Dialect::Postgres.statement(text()), text());
        for dialect in [Dialect::Sqlite, Dialect::MySql] {
            assert_eq!(dialect.statement(text()), "SELECT a FROM t WHERE b = ? AND c IN (?, ?) LIMIT ?");
        }
        assert_eq!(Dialect::MySql.statement("SELECT 1".to_owned()), "SELECT 1");
    }

    #[test]
    fn every_database_has_the_same_versions() {
        let versions = |dialect: Dialect| {
            let migrations = dialect.migrator().iter();
            migrations.map(|migration| (migration.version, migration.description.clone())).collect::<Vec<_>>()
        };
        for dialect in [Dialect::Postgres, Dialect::Cockroach, Dialect::MySql] {
            assert_eq!(versions(dialect), versions(Dialect::Sqlite), "{dialect:?}");
        }
    }
}
