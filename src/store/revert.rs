//! Reversal of migrations: what it would lose, and who uses the database meanwhile.

use std::fmt;
use std::time::Duration;

use sqlx::any::AnyConnectOptions;
use sqlx::migrate::{Migration, MigrationType};
use sqlx::{AnyConnection, Connection, Executor, Row};

use super::dialect::Dialect;
use super::driver;
use super::dsn::Dsn;
use super::{StepState, Store, StoreError};
use crate::rng::Rng;

/// Tables and columns that are made of others, or that only caches need.
const DERIVED: [&str; 10] = [
    "mutation_log",
    "mutation_counter",
    "key_counts",
    "swept",
    "state",
    "due_at",
    "key_terms",
    "terms_at",
    "terms_due",
    "folded_name",
];
/// Columns in which an empty text stands for no value.
const EMPTY_BY_DEFAULT: [&str; 2] = ["secret_id", "key_prefix"];
/// Most connections of others that an error names.
const MAX_NAMED: usize = 5;
/// Looks at the connections of others. Those of a process that has just ended go away.
const LOOKS: u32 = 20;
/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Migration that was reverted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undone {
    /// Version that it leads to.
    pub version: i64,
    /// Name.
    pub name: String,
    /// Statements that dropped something.
    pub drops: Vec<String>,
}

/// Permissions of a reversal.
#[derive(Debug, Clone, Copy, Default)]
pub struct RevertOptions {
    /// Data may be lost.
    pub lose_data: bool,
    /// Other processes may use the database meanwhile.
    pub while_in_use: bool,
}

/// Data that a reversal would lose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    table: String,
    /// Column; `None` for the whole table.
    column: Option<String>,
    rows: i64,
}

impl fmt::Display for Loss {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, column, rows } = self;
        let plural = if *rows == 1 { "" } else { "s" };
        if let Some(column) = column {
            write!(out, "{column} of ")?;
        }
        match table.as_str() {
            "api_keys" => write!(out, "{rows} key{plural}"),
            "actors" if self.column.is_some() => write!(out, "{rows} actor{plural}"),
            "actors" => write!(out, "names, metadata and suspensions of {rows} actor{plural}"),
            "audit_heads" => write!(out, "the recorded end of {rows} audit log{plural}"),
            table => write!(out, "{rows} row{plural} of {table}"),
        }
    }
}

/// Several losses, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Losses(Vec<Loss>);

impl fmt::Display for Losses {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let losses: Vec<String> = self.0.iter().map(Loss::to_string).collect();
        out.write_str(&losses.join(", "))
    }
}

impl Store {
    /// Reverts the last `steps` migrations of the database at `dsn`, each in a transaction of its
    /// own, except in MySQL, which has none for tables.
    ///
    /// # Errors
    /// When the database can't be reached, is dirty or newer, a migration fails, or data would be
    /// lost or another process uses the database, and `options` don't allow that.
    pub async fn migrate_down(
        dsn: &str,
        steps: usize,
        options: RevertOptions,
    ) -> Result<Vec<Undone>, StoreError> {
        let others = if options.while_in_use { vec![] } else { connections_of_others(dsn).await? };
        let store = Self::connect_to(Dsn::parse(dsn)?.existing_only().unprepared(), Rng::system()).await?;
        let mut applied = store.steps().await?;
        applied.retain(|step| step.state != StepState::Pending);
        let stays = applied.len().saturating_sub(steps);
        let undo = applied.split_off(stays);
        if undo.is_empty() {
            store.close().await;
            return Ok(vec![]);
        }
        if !others.is_empty() {
            return Err(StoreError::InUse { by: others.join(", ") });
        }
        let undone = undo.iter().rev().map(|step| Undone {
            version: step.version,
            name: step.name.clone(),
            drops: drop_statements(store.0.dialect, step.version),
        });
        let undone: Vec<Undone> = undone.collect();
        let losses = store.losses(&undone).await?;
        if !losses.is_empty() && !options.lose_data {
            return Err(StoreError::WouldLose { losses: Losses(losses) });
        }
        let target = applied.last().map_or(0, |step| step.version);
        store.revert_steps(&undo, target).await?;
        store.close().await;
        Ok(undone)
    }

    /// Returns what reverting these steps would lose.
    async fn losses(&self, undone: &[Undone]) -> Result<Vec<Loss>, StoreError> {
        let dropped: Vec<Dropped> =
            undone.iter().flat_map(|step| &step.drops).flat_map(|statement| parse_drops(statement)).collect();
        let is_dropped_as_a_whole =
            |table: &str| dropped.iter().any(|dropped| dropped.column.is_none() && dropped.table == table);
        let mut losses = vec![];
        for Dropped { table, column } in &dropped {
            let name = column.as_ref().unwrap_or(table);
            let is_derived = [table, name].iter().any(|name| DERIVED.contains(&name.as_str()));
            if is_derived || (column.is_some() && is_dropped_as_a_whole(table)) {
                continue;
            }
            if !self.has_table(table.clone()).await? {
                continue;
            }
            let condition = match column {
                None => String::new(),
                Some(column) if EMPTY_BY_DEFAULT.contains(&column.as_str()) => {
                    format!(" WHERE {column} <> ''")
                }
                Some(column) => format!(" WHERE {column} IS NOT NULL"),
            };
            let rows = self.number(format!("SELECT count(*) FROM {table}{condition}")).await?;
            if rows > 0 {
                losses.push(Loss { table: table.clone(), column: column.clone(), rows });
            }
        }
        Ok(losses)
    }
}

/// Table or column that a statement drops.
#[derive(Debug, PartialEq, Eq)]
struct Dropped {
    table: String,
    column: Option<String>,
}

/// Returns the tables and columns that a statement drops.
fn parse_drops(statement: &str) -> Vec<Dropped> {
    let words: Vec<&str> = statement.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let is = |at: usize, word: &str| words.get(at).is_some_and(|found| found.eq_ignore_ascii_case(word));
    let name = |at: usize| words.get(at).map(|word| (*word).to_owned());
    match name(2) {
        Some(table) if is(0, "DROP") && is(1, "TABLE") => vec![Dropped { table, column: None }],
        Some(table) if is(0, "ALTER") && is(1, "TABLE") => {
            let drops = (3..words.len()).filter(|at| is(*at, "DROP") && is(at + 1, "COLUMN"));
            drops.map(|at| Dropped { table: table.clone(), column: name(at + 2) }).collect()
        }
        _ => vec![],
    }
}

/// Returns the statements of a reversal that drop something.
fn drop_statements(dialect: Dialect, version: i64) -> Vec<String> {
    let is_down = |step: &&Migration| {
        step.version == version && matches!(step.migration_type, MigrationType::ReversibleDown)
    };
    let Some(down) = dialect.migrator().iter().find(is_down) else {
        return vec![];
    };
    let statements = down.sql.as_str().split(';').map(|statement| {
        let lines = statement.lines().map(|line| line.split("--").next().unwrap_or_default());
        lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
    });
    statements.filter(|statement| statement.to_ascii_uppercase().contains("DROP ")).collect()
}

/// Returns descriptions of connections that others have to the database; none once all are gone.
async fn connections_of_others(dsn: &str) -> Result<Vec<String>, StoreError> {
    driver::install();
    let dsn = Dsn::parse(dsn)?.existing_only();
    let options: AnyConnectOptions = dsn.url.parse()?;
    let mut connection = AnyConnection::connect_with(&options).await?;
    let mut others = vec![];
    for look in 0..LOOKS {
        if look > 0 {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        others = look_for_others(&mut connection, dsn.dialect).await?;
        if others.is_empty() {
            break;
        }
    }
    let more = others.len().saturating_sub(MAX_NAMED);
    others.truncate(MAX_NAMED);
    if more > 0 {
        others.push(format!("and {more} more"));
    }
    connection.close().await?;
    Ok(others)
}

/// Describes other programs that use the database.
async fn look_for_others(
    connection: &mut AnyConnection,
    dialect: Dialect,
) -> Result<Vec<String>, StoreError> {
    let sessions = match dialect {
        Dialect::Sqlite => {
            // A file leaves the mode WAL only while nobody else has it open. `serve` sets it again.
            let alone = connection.execute("PRAGMA busy_timeout = 0; PRAGMA journal_mode = DELETE").await;
            return match alone {
                Ok(_) => Ok(vec![]),
                Err(sqlx::Error::Database(error)) if error.message().contains("locked") => {
                    Ok(vec!["another process that has the file open".to_owned()])
                }
                Err(error) => Err(error.into()),
            };
        }
        Dialect::Postgres | Dialect::Cockroach => {
            "SELECT coalesce(usename::text, '') AS name, coalesce(client_addr::text, '') AS address, \
             coalesce(application_name, '') AS program FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY pid"
        }
        Dialect::MySql => {
            "SELECT CAST(user AS CHAR) AS name, CAST(host AS CHAR) AS address, '' AS program \
             FROM information_schema.processlist WHERE db = database() AND id <> connection_id() ORDER BY id"
        }
    };
    let rows = connection.fetch_all(sessions).await?;
    let describe = |row: &sqlx::any::AnyRow| {
        let text = |column: &str| row.try_get::<String, _>(column);
        let (name, address, program) = (text("name")?, text("address")?, text("program")?);
        let known = [("user ", name), ("from ", address), ("program ", program)];
        let known = known.into_iter().filter(|(_, value)| !value.is_empty());
        let known: Vec<String> = known.map(|(what, value)| format!("{what}{value}")).collect();
        Ok(format!("a connection ({})", known.join(" ")))
    };
    rows.iter().map(describe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_columns_are_found_and_indexes_are_not() {
        let dropped = |table: &str, column: Option<&str>| Dropped {
            table: table.to_owned(),
            column: column.map(str::to_owned),
        };
        for (statement, expected) in [
            ("DROP TABLE api_keys", vec![dropped("api_keys", None)]),
            ("DROP INDEX api_keys_by_age", vec![]),
            ("ALTER TABLE a DROP COLUMN b", vec![dropped("a", Some("b"))]),
            (
                "ALTER TABLE a DROP COLUMN b, DROP INDEX c, DROP COLUMN d",
                vec![dropped("a", Some("b")), dropped("a", Some("d"))],
            ),
        ] {
            assert_eq!(parse_drops(statement), expected, "{statement}");
        }
    }

    #[test]
    fn losses_are_printed_in_words() {
        let loss = |table: &str, column: Option<&str>, rows| Loss {
            table: table.to_owned(),
            column: column.map(str::to_owned),
            rows,
        };
        let losses = Losses(vec![
            loss("api_keys", None, 1),
            loss("audit_heads", None, 2),
            loss("api_keys", Some("secret_id"), 3),
        ]);
        assert_eq!(losses.to_string(), "1 key, the recorded end of 2 audit logs, secret_id of 3 keys");
    }
}
