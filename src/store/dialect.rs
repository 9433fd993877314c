//! What the databases understand differently. All statements are written once, with `$1`, `$2` … in this order.

use sqlx::migrate::Migrator;

use super::migrations::{COCKROACH, MYSQL, POSTGRES, SQLITE};

/// A kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
    /// Speaks PostgreSQL's protocol, without its advisory locks.
    Cockroach,
    /// MariaDB as well.
    MySql,
}

impl Dialect {
    /// A statement as this database wants it.
    pub fn statement(self, text: String) -> String {
        match self {
            Self::Sqlite | Self::Postgres | Self::Cockroach => text,
            Self::MySql => with_question_marks(&text),
        }
    }

    /// What begins a transaction that is going to write, and what holds in it alone: a pooler may give the next one
    /// another session, so nothing may be left behind in this one.
    pub const fn begin(self) -> &'static str {
        match self {
            // A deferred transaction that finds the file changed under it can't become a writer any more.
            Self::Sqlite => "BEGIN IMMEDIATE",
            // Whatever the server's default is: each statement sees what is committed when it begins. Not READ WRITE,
            // as a server that is read-only by default is so because it is not to be written.
            //
            // Whoever is cut off or stopped in the midst of a change holds the row that all changes need: not for
            // long, or nobody could revoke anything until the server's TCP gives up.
            Self::Postgres => {
                "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = 5000"
            }
            // Serializable, which it retries by itself or asks to be retried.
            Self::Cockroach => "BEGIN; SET LOCAL idle_in_transaction_session_timeout = 5000",
            Self::MySql => "BEGIN",
        }
    }

    /// What begins a transaction that only reads.
    pub const fn begin_reading(self) -> &'static str {
        match self {
            Self::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED",
            Self::Sqlite | Self::Cockroach | Self::MySql => "BEGIN",
        }
    }

    /// What every connection is told first.
    pub const fn session(self) -> Option<&'static str> {
        match self {
            // FULL: what was acknowledged survives a power cut, not only a crash of this process.
            Self::Sqlite => {
                Some("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000;")
            }
            Self::Postgres | Self::Cockroach => None,
            // A server's defaults, its `init_connect` included, must not change what a statement sees or returns:
            // autocommit, or the first snapshot never ends; no chained transactions, for the same reason; READ
            // COMMITTED, except where a binary log of statements refuses it, and there a statement outside of a
            // transaction sees the same; all rows; no text cut off silently. As above, nobody holds the row that all
            // changes need for long; only MariaDB can do so, and only MariaDB reads that comment, MySQL the other.
            Self::MySql => Some(
                "SET SESSION autocommit = 1, completion_type = 'NO_CHAIN', \
                 /*!50720 transaction_isolation */ /*M! tx_isolation */ = \
                 IF(@@session.binlog_format = 'STATEMENT', 'REPEATABLE-READ', 'READ-COMMITTED'), \
                 sql_select_limit = 18446744073709551615, \
                 sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', \
                 innodb_lock_wait_timeout = 8 /*M!100300 , idle_write_transaction_timeout = 5 */",
            ),
        }
    }

    /// Compares the column `actor_id` with a text, byte for byte, in one place for a parameter.
    pub const fn actor_is(self) -> &'static str {
        match self {
            Self::Sqlite | Self::Postgres | Self::Cockroach => "actor_id = ",
            // Its texts are equal whatever spaces they end with.
            Self::MySql => "CAST(actor_id AS BINARY) = ",
        }
    }

    /// How many tables of ours there are.
    pub const fn count_tables(self) -> &'static str {
        match self {
            Self::Sqlite => "SELECT count(*) FROM sqlite_master WHERE type = 'table'",
            Self::Postgres | Self::Cockroach => {
                "SELECT count(*) FROM information_schema.tables WHERE table_schema = current_schema()"
            }
            Self::MySql => "SELECT count(*) FROM information_schema.tables WHERE table_schema = database()",
        }
    }

    /// How many tables of ours have that name.
    pub const fn count_named(self) -> &'static str {
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

    /// Its migrations.
    pub fn migrator(self) -> &'static Migrator {
        match self {
            Self::Sqlite => &SQLITE,
            Self::Postgres => &POSTGRES,
            Self::Cockroach => &COCKROACH,
            Self::MySql => &MYSQL,
        }
    }

    /// Whether an error says that the connection is gone, or the server behind it is about to be.
    pub fn has_lost_connection(self, error: &sqlx::Error) -> bool {
        match error {
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => self != Self::Sqlite,
            sqlx::Error::Database(error) => match (self, error.code().as_deref()) {
                // connection_exception; admin_shutdown, crash_shutdown, cannot_connect_now and kin.
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

    /// Whether an error means that the transaction had no effect and is to be tried again.
    pub fn asks_to_retry(self, error: &sqlx::Error) -> bool {
        let Some(error) = error.as_database_error() else {
            return false;
        };
        let code = error.code().unwrap_or_default();
        match self {
            // Its writers wait for each other.
            Self::Sqlite => false,
            // Serialization failure, deadlock; and two that made the same row at once: the second sees it next time.
            Self::Postgres | Self::Cockroach => {
                matches!(&*code, "40001" | "40P01") || error.is_unique_violation()
            }
            // SQLSTATE of a deadlock. A lock wait that timed out is HY000 and no more than slow.
            Self::MySql => code == "40001" || error.is_unique_violation(),
        }
    }
}

/// Most rows of one statement. So many parameters every database takes, and they usually fit into one TLS record: what
/// takes two waits 40 ms for the server's delayed ACK, as the library leaves Nagle's algorithm on.
pub(super) const CHUNK: usize = 40;

/// The values of a statement that puts in `rows` rows of `columns` columns: `($1, $2), ($3, $4)`.
pub(super) fn placeholders(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let numbers: Vec<String> =
            (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        format!("({})", numbers.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// `$1`, `$2` … as `?`, which have no numbers: they must stand in order and each once.
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

    #[test]
    fn values_of_many_rows() {
        assert_eq!(placeholders(1, 3), "($1, $2, $3)");
        assert_eq!(placeholders(2, 2), "($1, $2), ($3, $4)");
    }

    #[test]
    fn question_marks() {
        let text = || "SELECT a FROM t WHERE b = $1 AND c IN ($2, $3) LIMIT $4".to_owned();
        assert_eq!(Dialect::Postgres.statement(text()), text());
        assert_eq!(Dialect::MySql.statement(text()), "SELECT a FROM t WHERE b = ? AND c IN (?, ?) LIMIT ?");
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
