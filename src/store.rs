//! The database: every key's row, and the log of what changed.
//!
//! Each call runs in a task of its own that is never cancelled, as a query dropped midway can poison its pooled
//! connection; who waits may stop waiting.

mod adopt;
mod anchor;
mod audit;
mod changes;
mod database_file;
mod dialect;
mod dsn;
mod keys;
mod last_used;
mod list;
mod lookups;
mod migrate;
mod migrations;
mod mutations;
mod poller;
mod pool;
mod row;
mod server;
mod suspicion;
mod transaction;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;
use sqlx::any::AnyConnectOptions;
use sqlx::{AnyConnection, Connection};
use tokio::sync::Notify;

pub use adopt::Adopted;
pub use audit::AuditHead;
pub use changes::{Changed, Rewrite, Successor};
pub use keys::{Inserted, InsertedKeys, NewKey, Request};
pub use last_used::PRECISION;
pub use list::{Filter, Page};
pub use lookups::Lookup;
pub use migrate::{Step, StepState, Undone};
pub use mutations::{LogPart, LogStart, Logged, Mutation, TRIM_BATCH};
pub use poller::{Evidence, PollError, PollTiming, Proof, Server};
pub use server::{NotAuthoritative, ServerId};

use crate::rng::Rng;
use anchor::Anchor;
use dialect::Dialect;
use dsn::Dsn;
use lookups::Lookups;
use poller::Poller;
use pool::{Pool, WatchedFile};
use suspicion::Suspicion;

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
    /// It answers, and its answer can't be relied on.
    #[error("the database: {0}")]
    NotAuthoritative(#[from] NotAuthoritative),
    /// It says nothing; whether what was asked for was done is unknown.
    #[error("the database gives no answer in time")]
    TimedOut,
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
    readers: Pool,
    /// The same connections, but for SQLite, which has one writer at a time: waiting for this pool's one connection is
    /// fair, its busy handler isn't.
    writers: Pool,
    poller: Poller,
    anchor: Anchor,
    /// Against connections of all of them.
    suspicion: Suspicion,
    /// Wakes whoever polls: something was found out that a poll has to settle.
    poll_wanted: Arc<Notify>,
    rng: Rng,
    lookups: Lookups,
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
        let suspicion = Suspicion::default();
        let (file, options) = match &dsn.file {
            Some(path) => {
                // Makes the file, if it may. No later connection does: one that finds none would begin an empty one.
                AnyConnection::connect_with(&options).await?.close().await?;
                (Some(Arc::new(WatchedFile::new(path)?)), dsn.clone().of_old().url.parse()?)
            }
            None => (None, options),
        };
        let pool = |connections| Pool::open(&dsn, &options, connections, suspicion.clone(), file.clone());
        let (writers, readers) = match dsn.dialect {
            Dialect::Sqlite => (pool(1).await?, pool(dsn.max_connections).await?),
            Dialect::Postgres | Dialect::Cockroach | Dialect::MySql => {
                let pool = pool(dsn.max_connections).await?;
                (pool.clone(), pool)
            }
        };
        let anchor = match &file {
            Some(file) => Anchor::open(Arc::clone(file), &options).await,
            None => Anchor::none(),
        };
        let poll_wanted = Arc::new(Notify::new());
        let poller = Poller::new(
            options,
            dsn.dialect,
            dsn.prepares,
            file,
            suspicion.clone(),
            Arc::clone(&poll_wanted),
        );
        Ok(Self(Arc::new(Inner {
            dialect: dsn.dialect,
            prepares: dsn.prepares,
            writers,
            readers,
            poller,
            anchor,
            poll_wanted,
            suspicion,
            rng,
            lookups: Lookups::default(),
            key_reads: AtomicU64::new(0),
        })))
    }

    /// The server that polls come from; None before the first poll.
    pub fn server(&self) -> Option<Arc<Server>> {
        self.0.poller.server()
    }

    /// Why the polls' connection could not be replaced the last time; None when it could.
    pub fn renewal_error(&self) -> Option<String> {
        self.0.poller.renewal_error()
    }

    /// Ends when something was found out that a poll has to settle: a refused write, a server that isn't the one of
    /// the last poll.
    pub async fn poll_wanted(&self) {
        self.0.poll_wanted.notified().await;
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
        self.0.poller.close();
        self.0.anchor.close().await;
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
    fn of(pool: &Pool) -> Self {
        let (open, idle, max) = pool.numbers();
        Self { open, idle, max }
    }

    const fn and(self, other: Self) -> Self {
        Self { open: self.open + other.open, idle: self.idle + other.idle, max: self.max + other.max }
    }
}
