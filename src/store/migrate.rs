//! Schema of the database, and its migrations.
//!
//! A step whose name begins with `additive` only adds what older programs don't need: a table, an
//! index, a column with a default. It is recorded with its name, so an older program sees that it
//! may run beside it.

mod postgres;

use futures_util::FutureExt;
use sqlx::migrate::{Migrate, Migration, MigrationType, Migrator};
use sqlx::{AnyConnection, Connection, Row};

use super::dialect::Dialect;
use super::dsn::Dsn;
use super::{Store, StoreError};
use crate::rng::Rng;

/// First word of the name of an additive step.
const ADDITIVE: &str = "additive";

/// Sets the time that a command waits for another one that migrates the same SQLite file: on large
/// tables that takes longer than any other write.
const SQLITE_LOCK_TIMEOUT: &str = "PRAGMA busy_timeout = 120000";

/// Takes the lock of those who migrate the same database of MariaDB or MySQL: 1 when it is taken, 0
/// after 30 s. It ends with the connection, too.
const MYSQL_LOCK: &str =
    "SELECT CAST(COALESCE(GET_LOCK(CONCAT('talos migrate ', MD5(DATABASE())), 30), 0) AS SIGNED)";
/// Releases that lock.
const MYSQL_UNLOCK: &str = "DO RELEASE_LOCK(CONCAT('talos migrate ', MD5(DATABASE())))";

/// Table in which the migrator records applied migrations.
const MIGRATIONS_TABLE: &str = "_sqlx_migrations";

/// Migration of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Version that it leads to.
    pub version: i64,
    /// Name.
    pub name: String,
    /// State in the database.
    pub state: StepState,
}

/// State of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    /// Not applied yet.
    Pending,
    /// Applied.
    Applied,
    /// Failed midway; an operator must repair the schema.
    Dirty,
    /// Applied by a newer program; this one doesn't know it.
    Unknown,
}

impl Step {
    /// Returns true if programs that don't know the migration may run beside it.
    pub fn is_additive(&self) -> bool {
        self.name.split(' ').next() == Some(ADDITIVE)
    }
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

impl Store {
    /// Migrates the database at `dsn` to this program's schema; returns the version. Additive
    /// steps of a newer program stay.
    ///
    /// # Errors
    /// When the database can't be reached, its schema is newer by a step that isn't additive, or a
    /// migration fails, which then has no effect.
    pub async fn migrate_up(dsn: &str) -> Result<i64, StoreError> {
        let store = Self::connect_to(Dsn::parse(dsn)?.unprepared(), Rng::system()).await?;
        store.newer_steps(&store.steps().await?)?;
        store.check_names().await?;
        store.apply_steps().await?;
        let version = store.version().await?;
        store.close().await;
        Ok(version)
    }

    /// Returns the newest version of the schema that this program knows for the database at `dsn`.
    ///
    /// # Errors
    /// When the DSN can't be used.
    pub fn known_schema(dsn: &str) -> Result<i64, StoreError> {
        Ok(newest_version(Dsn::parse(dsn)?.dialect))
    }

    /// Lists the migrations of the database and of this program, by version.
    ///
    /// # Errors
    /// When the database can't be reached.
    pub async fn migrations(dsn: &str) -> Result<Vec<Step>, StoreError> {
        let store = Self::connect_to(Dsn::parse(dsn)?.existing_only().unprepared(), Rng::system()).await?;
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
        let store = Self::connect_to(Dsn::parse(dsn)?.existing_only().unprepared(), Rng::system()).await?;
        if version != 0 && !steps_up(store.0.dialect).any(|step| step.version == version) {
            return Err(StoreError::NoSuchVersion { version, known: store.known_version() });
        }
        let recorded = steps_up(store.0.dialect).filter(move |step| step.version <= version);
        if store.0.dialect == Dialect::Postgres {
            let mut connection = store.0.writers.reclaim().acquire().await?;
            let mut transaction = postgres::begin(&mut connection).await?;
            postgres::force(&mut transaction, recorded).await?;
            transaction.commit().await?;
            // Closing waits for connections that are in use.
            drop(connection);
            store.close().await;
            return Ok(());
        }
        store.0.writers.reclaim().acquire().await?.ensure_migrations_table(MIGRATIONS_TABLE).await?;
        let mut transaction = store.0.writers.reclaim().begin_with(store.0.dialect.begin_write()).await?;
        store.0.query("DELETE FROM _sqlx_migrations").execute(&mut *transaction).await?;
        for step in recorded {
            let connection: &mut AnyConnection = &mut transaction;
            connection.skip(MIGRATIONS_TABLE, step).await?;
        }
        transaction.commit().await?;
        store.close().await;
        Ok(())
    }

    /// Migrates an SQLite file without any table. Other databases are migrated on request only.
    ///
    /// All steps are one transaction, which takes the lock for writing when it begins: another
    /// process that starts at the same time sees all tables or none, and waits for the lock.
    pub(super) async fn migrate_if_new(&self) -> Result<(), StoreError> {
        let dialect = self.0.dialect;
        if dialect != Dialect::Sqlite || self.number(dialect.count_tables()).await? > 0 {
            return Ok(());
        }
        let mut transaction = self.0.writers.reclaim().begin_with(dialect.begin_write()).await?;
        let count = self.0.query(dialect.count_tables()).fetch_one(&mut *transaction).await?;
        if count.try_get::<i64, _>(0)? > 0 {
            return Ok(());
        }
        let connection: &mut AnyConnection = &mut transaction;
        connection.ensure_migrations_table(MIGRATIONS_TABLE).await?;
        for step in steps_up(dialect) {
            connection.apply(MIGRATIONS_TABLE, step).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Applies the steps that are missing.
    async fn apply_steps(&self) -> Result<(), StoreError> {
        let (dialect, pool) = (self.0.dialect, self.0.writers.reclaim());
        if dialect == Dialect::Postgres {
            let mut connection = pool.acquire().await?;
            let mut transaction = postgres::begin(&mut connection).await?;
            postgres::up(&mut transaction, steps_up(dialect)).await?;
            return Ok(transaction.commit().await?);
        }
        let mut migrator = Migrator::with_migrations(dialect.migrator().iter().cloned().collect());
        // The caller has seen that these are additive.
        migrator.set_ignore_missing(true);
        if dialect == Dialect::Sqlite {
            // The migrator has no lock there. All steps are one transaction, which takes the lock
            // for writing before it looks at what is applied, as others may migrate at the same
            // time.
            let mut connection = pool.acquire().await?;
            sqlx::raw_sql(SQLITE_LOCK_TIMEOUT).execute(&mut *connection).await?;
            let mut transaction = connection.begin_with(dialect.begin_write()).await?;
            migrator.set_locking(false);
            let connection: &mut AnyConnection = &mut transaction;
            migrator.run_direct(None, connection, false).await?;
            return Ok(transaction.commit().await?);
        }
        migrator.set_locking(false);
        if dialect == Dialect::Cockroach {
            return Ok(migrator.run(pool).await?);
        }
        // MariaDB doesn't wait for the migrator's own lock.
        let mut connection = pool.acquire().await?;
        let connection: &mut AnyConnection = &mut connection;
        let locked = sqlx::query(MYSQL_LOCK).fetch_one(&mut *connection).await?;
        if locked.try_get::<i64, _>(0)? != 1 {
            return Err(StoreError::MigrationLocked);
        }
        let migrated = migrator.run_direct(None, &mut *connection, false).await;
        sqlx::raw_sql(MYSQL_UNLOCK).execute(connection).await?;
        Ok(migrated?)
    }

    /// Reverts steps, the newest first.
    pub(super) async fn revert_steps(&self, steps: &[Step], target: i64) -> Result<(), StoreError> {
        let (dialect, pool) = (self.0.dialect, self.0.writers.reclaim());
        if dialect != Dialect::Postgres {
            return Ok(dialect.migrator().undo(pool, target).await?);
        }
        let mut down = vec![];
        for step in steps.iter().rev() {
            let is_down = |migration: &&Migration| {
                migration.version == step.version
                    && matches!(migration.migration_type, MigrationType::ReversibleDown)
            };
            let migration = dialect.migrator().iter().find(is_down);
            down.push(migration.ok_or(sqlx::migrate::MigrateError::VersionMissing(step.version))?);
        }
        let mut connection = pool.acquire().await?;
        let mut transaction = postgres::begin(&mut connection).await?;
        postgres::down(&mut transaction, down.into_iter()).await?;
        Ok(transaction.commit().await?)
    }

    /// Checks that the schema is this program's, or newer by additive steps.
    pub(super) async fn check_schema(&self) -> Result<(), StoreError> {
        let steps = self.steps().await?;
        let needed = self.known_version();
        let is_applied = |step: &&Step| matches!(step.state, StepState::Applied | StepState::Unknown);
        let found = steps.iter().filter(is_applied).map(|step| step.version).max().unwrap_or(0);
        let is_missing = |step: &Step| step.version <= needed && !is_applied(&step);
        if found < needed || steps.iter().any(is_missing) {
            self.check_names().await?;
            return Err(StoreError::SchemaTooOld { found: found.min(needed - 1), needed });
        }
        if self.newer_steps(&steps)? > 0 {
            tracing::warn!(
                found,
                known = needed,
                "the database's schema is newer than this program, by additive steps only: going on beside it"
            );
            let _ = self.0.newer_schema.set(found);
        }
        Ok(())
    }

    /// Checks that there is a schema for the tables, and that no table of Ory Talos is in the way.
    async fn check_names(&self) -> Result<(), StoreError> {
        let has_schemas = matches!(self.0.dialect, Dialect::Postgres | Dialect::Cockroach);
        if has_schemas && self.number("SELECT count(current_schema())").await? == 0 {
            let problem = "the database has no schema that search_path names and this user may use: create it, or correct \
                           the parameter";
            return Err(StoreError::Dsn(problem.into()));
        }
        if self.version().await? > 0 || !self.has_table("api_keys").await? {
            return Ok(());
        }
        match self.ory_tables().await?.into_iter().find(|(_, name)| name == "api_keys") {
            Some((_, table)) => Err(StoreError::NameTaken { table }),
            None => Ok(()),
        }
    }

    /// Returns the version of a newer schema beside which this program runs.
    pub fn newer_schema(&self) -> Option<i64> {
        self.0.newer_schema.get().copied()
    }

    /// Counts the steps that this program doesn't know.
    ///
    /// # Errors
    /// When one of them isn't additive.
    fn newer_steps(&self, steps: &[Step]) -> Result<usize, StoreError> {
        let newer: Vec<&Step> = steps.iter().filter(|step| step.state == StepState::Unknown).collect();
        match newer.iter().rfind(|step| !step.is_additive()) {
            Some(step) => Err(StoreError::SchemaTooNew { found: step.version, known: self.known_version() }),
            None => Ok(newer.len()),
        }
    }

    /// Returns the steps of this program, and those that only the database knows, with their
    /// states.
    pub(super) async fn steps(&self) -> Result<Vec<Step>, StoreError> {
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
        let record = self
            .0
            .query("SELECT version, CASE WHEN success THEN 1 ELSE 0 END, description FROM _sqlx_migrations");
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
                None => steps.push(Step { version, name: row.try_get(2)?, state }),
            }
        }
        steps.sort_by_key(|step| step.version);
        Ok(steps)
    }

    pub(super) async fn has_table(&self, name: impl Into<String>) -> Result<bool, StoreError> {
        let query = self.0.query(self.0.dialect.count_named()).bind(name.into());
        let row = self.0.read(|connection| query.fetch_one(connection).boxed()).await?;
        Ok(row.try_get::<i64, _>(0)? > 0)
    }

    /// Returns the schema's version; 0 if it is empty.
    pub(super) async fn version(&self) -> Result<i64, StoreError> {
        let version = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success";
        if !self.has_table(MIGRATIONS_TABLE).await? {
            return Ok(0);
        }
        self.number(version).await
    }

    /// Returns the newest version that this program knows.
    fn known_version(&self) -> i64 {
        newest_version(self.0.dialect)
    }

    pub(super) async fn number(&self, query: impl Into<String>) -> Result<i64, StoreError> {
        let query = self.0.query(query);
        let row = self.0.read(|connection| query.fetch_one(connection).boxed()).await?;
        Ok(row.try_get(0)?)
    }
}

/// Returns the newest version that this program knows.
fn newest_version(dialect: Dialect) -> i64 {
    steps_up(dialect).map(|step| step.version).max().unwrap_or(0)
}

/// Returns the migrations of this program, each once.
fn steps_up(dialect: Dialect) -> impl Iterator<Item = &'static Migration> {
    let all = dialect.migrator().iter();
    all.filter(|step| !matches!(step.migration_type, MigrationType::ReversibleDown))
}
