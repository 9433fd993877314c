//! The database: every key's row, and the log of what changed.
//!
//! Each call runs in a task of its own that is never cancelled, as a query dropped midway can poison its pooled
//! connection; who waits may stop waiting.

mod adopt;
mod changes;
mod dialect;
mod dsn;
mod keys;
mod last_used;
mod list;
mod migrate;
mod mutations;
mod row;
mod transaction;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyPool, Executor};

pub use adopt::Adopted;
pub use changes::{Changed, Rewrite, Successor};
pub use keys::{Inserted, Lookup, NewKey, Request};
pub use last_used::PRECISION;
pub use list::{Filter, Page};
pub use migrate::{Step, StepState, Undone};
pub use mutations::{Logged, Mutation, TRIM_BATCH};

use crate::rng::Rng;
use dialect::Dialect;
use dsn::Dsn;

/// How long a connection may be waited for.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// Why the database gave no answer. Never holds a DSN.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The DSN can't be used.
    #[error("db.dsn: {0}")]
    Dsn(&'static str),
    /// The schema is older than this program.
    #[error(
        "the database's schema is at version {found}, this program needs {needed}: run `talos migrate up`"
    )]
    SchemaTooOld {
        /// Version of the database, 0 when it has none.
        found: i64,
        /// Version of this program.
        needed: i64,
    },
    /// The schema is newer than this program.
    #[error("the database's schema is at version {found}, this program knows {known} at most: upgrade it")]
    SchemaTooNew {
        /// Version of the database.
        found: i64,
        /// Version of this program.
        known: i64,
    },
    /// There is no such version.
    #[error("this program has no version {version} of the schema; it knows 0 to {known}")]
    NoSuchVersion {
        /// The one asked for.
        version: i64,
        /// The newest of this program.
        known: i64,
    },
    /// There are keys, and they would be lost.
    #[error("the database holds {keys} keys, which would be lost")]
    WouldLoseKeys {
        /// How many.
        keys: i64,
    },
    /// Migrating failed.
    #[error("migrating the database: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A row holds what this program can't have written.
    #[error("a row of the database can't be read: column {0}")]
    Corrupt(&'static str),
    /// The database refused, failed or can't be reached.
    #[error("the database: {0}")]
    Sql(#[from] sqlx::Error),
    /// The task of a query ended before it could answer.
    #[error("the database query was interrupted")]
    Interrupted,
}

/// A handle to the database; clones share its connections.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    dialect: Dialect,
    /// Whether prepared statements stay on their connections.
    prepares: bool,
    readers: AnyPool,
    /// The same connections, but for SQLite, which has one writer at a time: waiting for this pool's one connection is
    /// fair, its busy handler isn't.
    writers: AnyPool,
    rng: Rng,
    key_reads: AtomicU64,
}

impl Store {
    /// Connects. A new SQLite file is made and migrated; any other database must have the current schema.
    ///
    /// # Errors
    /// When the DSN can't be used, the database can't be reached, or its schema isn't this program's.
    pub async fn open(dsn: &str, rng: Rng) -> Result<Self, StoreError> {
        let store = Self::connect(dsn, rng).await?;
        store.migrate_if_new().await?;
        store.check_schema().await?;
        Ok(store)
    }

    /// Connects to a database that must be there already, with the current schema.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_existing(dsn: &str) -> Result<Self, StoreError> {
        let store = Self::connect_to_old(dsn).await?;
        store.check_schema().await?;
        Ok(store)
    }

    async fn connect(dsn: &str, rng: Rng) -> Result<Self, StoreError> {
        Self::connect_as(Dsn::parse(dsn)?, rng).await
    }

    /// Connects to a database that must be there already.
    async fn connect_to_old(dsn: &str) -> Result<Self, StoreError> {
        Self::connect_as(Dsn::parse(dsn)?.of_old(), Rng::system()).await
    }

    async fn connect_as(dsn: Dsn, rng: Rng) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let options: AnyConnectOptions = dsn.url.parse()?;
        let (writers, readers) = match dsn.dialect {
            Dialect::Sqlite => {
                // The writer first: it makes the file.
                let writers = pool(&dsn, &options, 1).await?;
                (writers, pool(&dsn, &options, dsn.max_connections).await?)
            }
            Dialect::Postgres | Dialect::Cockroach | Dialect::MySql => {
                let pool = pool(&dsn, &options, dsn.max_connections).await?;
                (pool.clone(), pool)
            }
        };
        Ok(Self(Arc::new(Inner {
            dialect: dsn.dialect,
            prepares: dsn.prepares,
            writers,
            readers,
            rng,
            key_reads: AtomicU64::new(0),
        })))
    }

    /// How many key rows were asked for, ever: what the caches are there to save.
    pub fn key_reads(&self) -> u64 {
        self.0.key_reads.load(Ordering::Relaxed)
    }

    /// The connections.
    pub fn connections(&self) -> Connections {
        let inner = &self.0;
        let (readers, writers) = (Connections::of(&inner.readers), Connections::of(&inner.writers));
        match inner.dialect {
            Dialect::Sqlite => readers.and(writers),
            // One pool under two names.
            Dialect::Postgres | Dialect::Cockroach | Dialect::MySql => readers,
        }
    }

    /// Asks for an answer, whatever it is.
    ///
    /// # Errors
    /// When there is none.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.run(async |inner| {
            let ping = inner.query("SELECT 1");
            inner.read(|connection| ping.execute(connection).boxed()).await.map(drop)
        })
        .await
    }

    /// Closes the connections, once their queries are through.
    pub async fn close(&self) {
        self.0.readers.close().await;
        self.0.writers.close().await;
    }

    async fn run<T, F, Fut>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Inner>) -> Fut,
        Fut: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let task = tokio::spawn(query(Arc::clone(&self.0)));
        task.await.unwrap_or(Err(StoreError::Interrupted))
    }
}

/// How many connections to the database there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// Open ones.
    pub open: u32,
    /// Those of them that nobody uses at the moment.
    pub idle: u32,
    /// Most that there may be.
    pub max: u32,
}

impl Connections {
    fn of(pool: &AnyPool) -> Self {
        Self {
            open: pool.size(),
            idle: u32::try_from(pool.num_idle()).unwrap_or(u32::MAX),
            max: pool.options().get_max_connections(),
        }
    }

    const fn and(self, other: Self) -> Self {
        Self { open: self.open + other.open, idle: self.idle + other.idle, max: self.max + other.max }
    }
}

async fn pool(dsn: &Dsn, options: &AnyConnectOptions, connections: u32) -> Result<AnyPool, sqlx::Error> {
    let (dialect, max_idle) = (dsn.dialect, dsn.max_idle);
    // Known once the pool is made, which must know this before.
    let made: Arc<OnceLock<AnyPool>> = Arc::default();
    let pool = {
        let made = Arc::clone(&made);
        AnyPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .max_lifetime(dsn.max_lifetime)
            .idle_timeout(dsn.idle_time)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    match dialect.session() {
                        Some(settings) => connection.execute(settings).await.map(drop),
                        None => Ok(()),
                    }
                })
            })
            .after_release(move |_, _| {
                let idle = made.get().map_or(0, AnyPool::num_idle);
                let keep = max_idle.is_none_or(|most| idle < usize::try_from(most).unwrap_or(usize::MAX));
                Box::pin(async move { Ok(keep) })
            })
            .connect_with(options.clone())
            .await?
    };
    let _ = made.set(pool.clone());
    Ok(pool)
}
