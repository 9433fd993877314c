//! Schema of the database, and its migrations.

use futures_util::FutureExt;
use sqlx::migrate::{Migrate, Migration, MigrationType};
use sqlx::{AnyConnection, Row};

use super::dialect::Dialect;
use super::{Store, StoreError};
use crate::rng::Rng;

/// Table in which the migrator records applied migrations.
const MIGRATIONS_TABLE: &str = "_sqlx_migrations";

/// Migration of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Version that it leads to.
    pub version: i64,
    /// Name; empty if this program doesn't know the migration.
    pub name: String,
    /// State in the database.
    pub state: StepState,
}

/// State of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    /// It isn't applied yet.
    Pending,
    /// It is applied.
    Applied,
    /// It failed midway, and an operator must repair the schema.
    Dirty,
    /// It is applied, and this program doesn't know it.
    Unknown,
}

impl StepState {
    /// Returns the name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Applied => "applied",
            Self::Dirty => "dirty",
            Self::Unknown => "unknown to this program",
        }
    }
}

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

impl Store {
    /// Migrates the database at `dsn` to this program's schema; returns the version.
    ///
    /// # Errors
    /// When the database can't be reached, its schema is newer, or a migration fails, which then
    /// has no effect.
    pub async fn migrate_up(dsn: &str) -> Result<i64, StoreError> {
        let store = Self::connect(dsn, Rng::system()).await?;
        store.check_names().await?;
        store.0.dialect.migrator().run(store.0.writers.reclaim()).await?;
        let version = store.version().await?;
        store.close().await;
        Ok(version)
    }

    /// Reverts the last `steps` migrations of the database at `dsn`, each in a transaction of its
    /// own, except in MySQL, which has none for tables.
    ///
    /// # Errors
    /// When the database can't be reached, is dirty or newer, a migration fails, or keys would be
    /// lost and `lose_keys` is false.
    pub async fn migrate_down(dsn: &str, steps: usize, lose_keys: bool) -> Result<Vec<Undone>, StoreError> {
        let store = Self::connect_existing(dsn).await?;
        let mut applied = store.steps().await?;
        applied.retain(|step| step.state != StepState::Pending);
        let stays = applied.len().saturating_sub(steps);
        let undo = applied.split_off(stays);
        if undo.is_empty() {
            store.close().await;
            return Ok(vec![]);
        }
        let keys = store.key_count().await?;
        if keys > 0 && !lose_keys {
            return Err(StoreError::WouldLoseKeys { keys });
        }
        let target = applied.last().map_or(0, |step| step.version);
        store.0.dialect.migrator().undo(store.0.writers.reclaim(), target).await?;
        let undone = undo.into_iter().rev().map(|step| Undone {
            version: step.version,
            name: step.name,
            drops: drop_statements(store.0.dialect, step.version),
        });
        let undone = undone.collect();
        store.close().await;
        Ok(undone)
    }

    /// Lists the migrations of the database and of this program, by version.
    ///
    /// # Errors
    /// When the database can't be reached.
    pub async fn migrations(dsn: &str) -> Result<Vec<Step>, StoreError> {
        let store = Self::connect_existing(dsn).await?;
        let steps = store.steps().await?;
        store.close().await;
        Ok(steps)
    }

    /// Records that the schema is at `version` and clean, whatever it really is; 0 is an empty
    /// schema.
    ///
    /// # Errors
    /// When the database can't be reached, or this program has no such version.
    pub async fn migrate_force(dsn: &str, version: i64) -> Result<(), StoreError> {
        let store = Self::connect_existing(dsn).await?;
        if version != 0 && !steps_up(store.0.dialect).any(|step| step.version == version) {
            return Err(StoreError::NoSuchVersion { version, known: store.known_version() });
        }
        store.0.writers.reclaim().acquire().await?.ensure_migrations_table(MIGRATIONS_TABLE).await?;
        let mut transaction = store.0.writers.reclaim().begin_with(store.0.dialect.begin_write()).await?;
        store.0.query("DELETE FROM _sqlx_migrations").execute(&mut *transaction).await?;
        for step in steps_up(store.0.dialect).filter(|step| step.version <= version) {
            let connection: &mut AnyConnection = &mut transaction;
            connection.skip(MIGRATIONS_TABLE, step).await?;
        }
        transaction.commit().await?;
        store.close().await;
        Ok(())
    }

    /// Migrates an SQLite file without any table. Other databases are migrated on request only.
    pub(super) async fn migrate_if_new(&self) -> Result<(), StoreError> {
        if self.0.dialect != Dialect::Sqlite || self.table_count().await? > 0 {
            return Ok(());
        }
        match self.0.dialect.migrator().run(self.0.writers.reclaim()).await {
            Ok(()) => Ok(()),
            // Another process has migrated the same new file meanwhile.
            Err(_) if self.version().await.is_ok_and(|version| version == self.known_version()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Checks that the schema has this program's version.
    pub(super) async fn check_schema(&self) -> Result<(), StoreError> {
        let (found, known) = (self.version().await?, self.known_version());
        match found.cmp(&known) {
            std::cmp::Ordering::Less => {
                self.check_names().await?;
                Err(StoreError::SchemaTooOld { found, needed: known })
            }
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(StoreError::SchemaTooNew { found, known }),
        }
    }

    /// Checks that no table of Ory Talos is in the way of this program's own.
    async fn check_names(&self) -> Result<(), StoreError> {
        if self.version().await? > 0 || !self.has_table("api_keys").await? {
            return Ok(());
        }
        match self.ory_tables().await?.into_iter().find(|(_, name)| name == "api_keys") {
            Some((_, table)) => Err(StoreError::NameTaken { table }),
            None => Ok(()),
        }
    }

    async fn steps(&self) -> Result<Vec<Step>, StoreError> {
        let mut steps: Vec<Step> = steps_up(self.0.dialect)
            .map(|step| Step {
                version: step.version,
                name: step.description.to_string(),
                state: StepState::Pending,
            })
            .collect();
        if !self.has_table(MIGRATIONS_TABLE).await? {
            return Ok(steps);
        }
        let record =
            self.0.query("SELECT version, CASE WHEN success THEN 1 ELSE 0 END FROM _sqlx_migrations");
        for row in self.0.read(|connection| record.fetch_all(connection).boxed()).await? {
            let (version, success): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
            let known = steps.iter_mut().find(|step| step.version == version);
            let state = match (success, &known) {
                (0, _) => StepState::Dirty,
                (_, Some(_)) => StepState::Applied,
                (_, None) => StepState::Unknown,
            };
            match known {
                Some(step) => step.state = state,
                None => steps.push(Step { version, name: String::new(), state }),
            }
        }
        steps.sort_by_key(|step| step.version);
        Ok(steps)
    }

    async fn key_count(&self) -> Result<i64, StoreError> {
        if !self.has_table("api_keys").await? {
            return Ok(0);
        }
        self.number("SELECT count(*) FROM api_keys").await
    }

    async fn table_count(&self) -> Result<i64, StoreError> {
        self.number(self.0.dialect.count_tables()).await
    }

    async fn has_table(&self, name: &'static str) -> Result<bool, StoreError> {
        let query = self.0.query(self.0.dialect.count_named()).bind(name);
        let row = self.0.read(|connection| query.fetch_one(connection).boxed()).await?;
        Ok(row.try_get::<i64, _>(0)? > 0)
    }

    /// Returns the schema's version; 0 if it is empty.
    async fn version(&self) -> Result<i64, StoreError> {
        let version = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success";
        if !self.has_table(MIGRATIONS_TABLE).await? {
            return Ok(0);
        }
        self.number(version).await
    }

    /// Returns the newest version that this program knows.
    fn known_version(&self) -> i64 {
        steps_up(self.0.dialect).map(|step| step.version).max().unwrap_or(0)
    }

    async fn number(&self, query: &'static str) -> Result<i64, StoreError> {
        let query = self.0.query(query);
        let row = self.0.read(|connection| query.fetch_one(connection).boxed()).await?;
        Ok(row.try_get(0)?)
    }
}

/// Returns the migrations of this program, each once.
fn steps_up(dialect: Dialect) -> impl Iterator<Item = &'static Migration> {
    let all = dialect.migrator().iter();
    all.filter(|step| !matches!(step.migration_type, MigrationType::ReversibleDown))
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
