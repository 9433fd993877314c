//! The schema and its versions.

use futures_util::FutureExt;
use sqlx::Row;

use super::dialect::Dialect;
use super::{Store, StoreError};
use crate::rng::Rng;

impl Store {
    /// Brings the database at `dsn` to this program's schema; gives its version.
    ///
    /// # Errors
    /// When the database can't be reached, its schema is newer, or a migration fails (which then has no effect).
    pub async fn migrate_up(dsn: &str) -> Result<i64, StoreError> {
        let store = Self::connect(dsn, Rng::system()).await?;
        store.0.dialect.migrator().run(&store.0.writers).await?;
        let version = store.version().await?;
        store.close().await;
        Ok(version)
    }

    /// Migrates an SQLite file that has no table at all. Other databases are migrated when somebody says so.
    pub(super) async fn migrate_if_new(&self) -> Result<(), StoreError> {
        if self.0.dialect != Dialect::Sqlite || self.table_count().await? > 0 {
            return Ok(());
        }
        match self.0.dialect.migrator().run(&self.0.writers).await {
            Ok(()) => Ok(()),
            // Another process found the same new file and was quicker.
            Err(_) if self.version().await.is_ok_and(|version| version == self.known()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Refuses a database whose schema isn't this program's.
    pub(super) async fn check_schema(&self) -> Result<(), StoreError> {
        let (found, known) = (self.version().await?, self.known());
        match found.cmp(&known) {
            std::cmp::Ordering::Less => Err(StoreError::SchemaTooOld { found, needed: known }),
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(StoreError::SchemaTooNew { found, known }),
        }
    }

    async fn table_count(&self) -> Result<i64, StoreError> {
        self.number(self.0.dialect.count_tables()).await
    }

    /// The schema's version; 0 when there is none.
    async fn version(&self) -> Result<i64, StoreError> {
        let version = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success";
        if self.table_count().await? == 0 {
            return Ok(0);
        }
        self.number(version).await
    }

    /// The newest version that this program knows.
    fn known(&self) -> i64 {
        self.0.dialect.migrator().iter().map(|migration| migration.version).max().unwrap_or(0)
    }

    async fn number(&self, query: &'static str) -> Result<i64, StoreError> {
        let query = self.0.query(query);
        let row = self.0.read(|connection| query.fetch_one(connection).boxed()).await?;
        Ok(row.try_get(0)?)
    }
}
