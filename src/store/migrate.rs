//! The schema and its versions.

use sqlx::migrate::Migrator;

use super::{Store, StoreError};
use crate::rng::Rng;

static SQLITE: Migrator = sqlx::migrate!("src/store/migrations/sqlite");

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

    async fn table_count(&self) -> Result<i64, StoreError> {
        let count = "SELECT count(*) FROM sqlite_master WHERE type = 'table'";
        Ok(sqlx::query_scalar(count).fetch_one(&self.0.writers).await?)
    }

    async fn version(&self) -> Result<i64, StoreError> {
        let table = "SELECT count(*) FROM sqlite_master WHERE name = '_sqlx_migrations'";
        let tables: i64 = sqlx::query_scalar(table).fetch_one(&self.0.writers).await?;
        if tables == 0 {
            return Ok(0);
        }
        let version = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success";
        Ok(sqlx::query_scalar(version).fetch_one(&self.0.writers).await?)
    }
}

fn known() -> i64 {
    SQLITE.iter().map(|migration| migration.version).max().unwrap_or(0)
}
