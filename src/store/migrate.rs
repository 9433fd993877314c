//! The schema and its versions.

use sqlx::migrate::{Migrate, MigrationType, Migrator};
use sqlx::{AnyConnection, Connection};

use super::{Store, StoreError};
use crate::rng::Rng;

static SQLITE: Migrator = sqlx::migrate!("src/store/migrations/sqlite");

/// Where the migrator keeps its own record.
const RECORD: &str = "_sqlx_migrations";

/// One step of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its number.
    pub version: i64,
    /// What it is called.
    pub name: String,
    /// Whether it was made.
    pub state: StepState,
}

/// How far a step has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    /// The database doesn't have it yet.
    Pending,
    /// The database has it.
    Applied,
    /// It failed midway: somebody must look.
    Dirty,
    /// The database has it, and this program doesn't know it.
    Unknown,
}

impl StepState {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Applied => "applied",
            Self::Dirty => "dirty",
            Self::Unknown => "unknown to this program",
        }
    }
}

/// A step that was taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undone {
    /// Its number.
    pub version: i64,
    /// What it is called.
    pub name: String,
    /// The statements that took something away.
    pub drops: Vec<String>,
}

impl Store {
    /// Brings the database at `dsn` to this program's schema; gives its version.
    ///
    /// # Errors
    /// When the database can't be reached, its schema is newer, or a migration fails (which then has no effect).
    pub async fn migrate_up(dsn: &str) -> Result<i64, StoreError> {
        let store = Self::connect(dsn, Rng::system()).await?;
        SQLITE.run(&store.0.writers).await?;
        let version = store.version().await?;
        store.close().await;
        Ok(version)
    }

    /// Takes back the last `steps` steps of the database at `dsn`, each in a transaction of its own.
    ///
    /// # Errors
    /// When the database can't be reached, is dirty or newer, a migration fails, or (unless `lose_keys`) there are
    /// keys, which would be lost with their tables and columns.
    pub async fn migrate_down(dsn: &str, steps: usize, lose_keys: bool) -> Result<Vec<Undone>, StoreError> {
        let store = Self::connect_to_old(dsn).await?;
        let applied = store.steps().await?;
        let applied: Vec<&Step> = applied.iter().filter(|step| step.state != StepState::Pending).collect();
        let undo: Vec<&Step> = applied.iter().rev().take(steps).copied().collect();
        if undo.is_empty() {
            store.close().await;
            return Ok(vec![]);
        }
        let keys = store.key_count().await?;
        if keys > 0 && !lose_keys {
            return Err(StoreError::WouldLoseKeys { keys });
        }
        let target = applied.iter().rev().nth(steps).map_or(0, |step| step.version);
        SQLITE.undo(&store.0.writers, target).await?;
        store.close().await;
        let undone = undo.into_iter().map(|step| Undone {
            version: step.version,
            name: step.name.clone(),
            drops: drops(step.version),
        });
        Ok(undone.collect())
    }

    /// Every step, those of the database and those of this program, by number.
    ///
    /// # Errors
    /// When the database can't be reached.
    pub async fn migrations(dsn: &str) -> Result<Vec<Step>, StoreError> {
        let store = Self::connect_to_old(dsn).await?;
        let steps = store.steps().await?;
        store.close().await;
        Ok(steps)
    }

    /// Has the record say that the schema is at `version`, clean, whatever it really is. 0 is the schema without a step.
    ///
    /// # Errors
    /// When the database can't be reached, or this program has no such version.
    pub async fn migrate_force(dsn: &str, version: i64) -> Result<(), StoreError> {
        if version != 0 && !steps_up().any(|step| step.version == version) {
            return Err(StoreError::NoSuchVersion { version, known: known() });
        }
        let store = Self::connect_to_old(dsn).await?;
        let mut connection = store.0.writers.acquire().await?;
        connection.ensure_migrations_table(RECORD).await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("DELETE FROM _sqlx_migrations").execute(&mut *transaction).await?;
        for step in steps_up().filter(|step| step.version <= version) {
            let connection: &mut AnyConnection = &mut transaction;
            connection.skip(RECORD, step).await?;
        }
        transaction.commit().await?;
        drop(connection);
        store.close().await;
        Ok(())
    }

    /// Migrates a database that has no table at all.
    pub(super) async fn migrate_if_new(&self) -> Result<(), StoreError> {
        if self.table_count().await? > 0 {
            return Ok(());
        }
        match SQLITE.run(&self.0.writers).await {
            Ok(()) => Ok(()),
            // Another process found the same new file and was quicker.
            Err(_) if self.version().await.is_ok_and(|version| version == known()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Refuses a database whose schema isn't this program's.
    pub(super) async fn check_schema(&self) -> Result<(), StoreError> {
        let (found, known) = (self.version().await?, known());
        match found.cmp(&known) {
            std::cmp::Ordering::Less => Err(StoreError::SchemaTooOld { found, needed: known }),
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(StoreError::SchemaTooNew { found, known }),
        }
    }

    async fn steps(&self) -> Result<Vec<Step>, StoreError> {
        let mut steps: Vec<Step> = steps_up()
            .map(|step| Step {
                version: step.version,
                name: step.description.to_string(),
                state: StepState::Pending,
            })
            .collect();
        if !self.has_table(RECORD).await? {
            return Ok(steps);
        }
        let rows = "SELECT version, description, CASE WHEN success THEN 1 ELSE 0 END FROM _sqlx_migrations";
        let rows: Vec<(i64, String, i64)> = sqlx::query_as(rows).fetch_all(&self.0.writers).await?;
        for (version, name, success) in rows {
            let known = steps.iter_mut().find(|step| step.version == version);
            let state = match (success, &known) {
                (0, _) => StepState::Dirty,
                (_, Some(_)) => StepState::Applied,
                (_, None) => StepState::Unknown,
            };
            match known {
                Some(step) => step.state = state,
                None => steps.push(Step { version, name, state }),
            }
        }
        steps.sort_by_key(|step| step.version);
        Ok(steps)
    }

    async fn key_count(&self) -> Result<i64, StoreError> {
        if !self.has_table("api_keys").await? {
            return Ok(0);
        }
        Ok(sqlx::query_scalar("SELECT count(*) FROM api_keys").fetch_one(&self.0.writers).await?)
    }

    async fn table_count(&self) -> Result<i64, StoreError> {
        let count = "SELECT count(*) FROM sqlite_master WHERE type = 'table'";
        Ok(sqlx::query_scalar(count).fetch_one(&self.0.writers).await?)
    }

    async fn has_table(&self, name: &str) -> Result<bool, StoreError> {
        let count = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = $1";
        let count: i64 = sqlx::query_scalar(count).bind(name).fetch_one(&self.0.writers).await?;
        Ok(count > 0)
    }

    async fn version(&self) -> Result<i64, StoreError> {
        if !self.has_table(RECORD).await? {
            return Ok(0);
        }
        let version = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success";
        Ok(sqlx::query_scalar(version).fetch_one(&self.0.writers).await?)
    }
}

/// The steps of this program, each once.
fn steps_up() -> impl Iterator<Item = &'static sqlx::migrate::Migration> {
    SQLITE.iter().filter(|step| !matches!(step.migration_type, MigrationType::ReversibleDown))
}

fn known() -> i64 {
    steps_up().map(|step| step.version).max().unwrap_or(0)
}

/// What taking a step back takes away, as its statements say it.
fn drops(version: i64) -> Vec<String> {
    let down = SQLITE
        .iter()
        .find(|step| step.version == version && matches!(step.migration_type, MigrationType::ReversibleDown));
    let Some(down) = down else {
        return vec![];
    };
    let statements = down.sql.as_str().split(';').map(|statement| {
        let lines = statement.lines().map(|line| line.split("--").next().unwrap_or_default());
        lines.collect::<Vec<_>>().join(" ").split_whitespace().collect::<Vec<_>>().join(" ")
    });
    statements.filter(|statement| statement.to_ascii_uppercase().contains("DROP ")).collect()
}
