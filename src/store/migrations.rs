//! The migrations of the schema, compiled into the program.
//!
//! They are read with `include_str!`, not with sqlx's `migrate!`: for that macro the compiler
//! builds all drivers, SQLite and TLS a second time, for itself.

use std::sync::LazyLock;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// Expands to a step's migrations up and down, from `migrations/<database>/<step>.{up,down}.sql`.
macro_rules! step {
    ($database:literal, $version:literal, $step:literal) => {
        [
            migration(
                $version,
                $step,
                MigrationType::ReversibleUp,
                include_str!(concat!("migrations/", $database, "/", $step, ".up.sql")),
            ),
            migration(
                $version,
                $step,
                MigrationType::ReversibleDown,
                include_str!(concat!("migrations/", $database, "/", $step, ".down.sql")),
            ),
        ]
    };
}

/// Expands to the migrations of a database.
macro_rules! migrations {
    ($database:literal) => {
        Migrator::with_migrations(
            [
                step!($database, 1, "0001_keys"),
                step!($database, 2, "0002_audit_heads"),
                step!($database, 3, "0003_additive_counts_and_retries"),
                step!($database, 4, "0004_additive_key_states"),
                step!($database, 5, "0005_additive_suspensions_and_actors"),
                step!($database, 6, "0006_additive_usage"),
                step!($database, 7, "0007_additive_limits"),
                step!($database, 8, "0008_additive_credits"),
                step!($database, 9, "0009_additive_finding"),
                step!($database, 10, "0010_additive_events"),
                step!($database, 11, "0011_additive_imported_hashes"),
                step!($database, 12, "0012_additive_actor_limits"),
            ]
            .concat(),
        )
    };
}

/// A migration as sqlx makes it of a file: the file's name, without number, describes it. A step
/// that programs which don't know it may run beside is named `NNNN_additive_…`: it adds a table, an
/// index, or a column that is nullable or has a default, and changes nothing that is there.
fn migration(version: i64, step: &str, kind: MigrationType, sql: &'static str) -> Migration {
    let name = step.split_once('_').map_or(step, |(_, name)| name).replace('_', " ");
    Migration::new(version, name.into(), kind, sql.into_sql_str(), false)
}

/// The migrations of SQLite.
pub(super) static SQLITE: LazyLock<Migrator> = LazyLock::new(|| migrations!("sqlite"));
/// The migrations of PostgreSQL.
pub(super) static POSTGRES: LazyLock<Migrator> = LazyLock::new(|| migrations!("postgres"));
/// The migrations of CockroachDB: PostgreSQL's, without the advisory locks that it doesn't have.
pub(super) static COCKROACH: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = migrations!("postgres");
    migrator.set_locking(false);
    migrator
});
/// The migrations of MySQL and MariaDB.
pub(super) static MYSQL: LazyLock<Migrator> = LazyLock::new(|| migrations!("mysql"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_a_migration() {
        for (database, migrator) in [("sqlite", &SQLITE), ("postgres", &POSTGRES), ("mysql", &MYSQL)] {
            let folder = format!("{}/src/store/migrations/{database}", env!("CARGO_MANIFEST_DIR"));
            let mut files: Vec<_> =
                std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
            files.sort();
            let mut texts: Vec<_> = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
            let mut compiled: Vec<_> =
                migrator.iter().map(|migration| migration.sql.as_str().to_owned()).collect();
            texts.sort();
            compiled.sort();
            assert_eq!(texts, compiled, "{database}");
        }
    }
}
