//! Database: the rows of keys, and the mutation log.
//!
//! Each call runs in a task of its own that is never cancelled, as a query that is dropped midway
//! can break its pooled connection. The caller may stop waiting.

mod actor_limits;
mod actors;
mod adopt;
mod anchor;
mod audit;
mod changes;
mod clock_skew;
mod credits;
mod database_file;
mod dialect;
mod digests;
mod driver;
mod dsn;
mod erase;
mod error_text;
mod eviction;
mod feed;
mod filter;
mod find;
mod first_contact;
mod graces;
mod hash_upgrade;
mod key_counts;
mod keys;
mod last_used;
mod list;
mod lookups;
mod migrate;
mod migrations;
mod mutations;
mod new_key;
mod ory_rows;
mod ory_tables;
mod page;
#[cfg(test)]
mod plans;
mod poller;
mod pool;
mod probe;
mod reopening;
mod requests;
mod revert;
mod row;
mod server;
mod signers;
mod spends;
mod statement;
mod sweep;
mod terms;
mod tracked_file;
mod transaction;
mod usage;
mod usage_report;
mod usage_trim;
mod wanted;

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt;
use parking_lot::Mutex;
use sqlx::any::AnyConnectOptions;
use tokio::sync::Notify;

pub use actor_limits::{ActorLimit, InsertLimits};
pub use actors::{ActorDeletion, ActorKeyCounts, ActorOutcome};
pub use adopt::Adopted;
pub use audit::AuditHead;
pub use changes::{ChangeOutcome, KeyChange, Successor};
pub use clock_skew::{ClockSkew, MAX_CLOCK_SKEW};
pub use feed::{FeedGone, FeedPart, FeedPosition, FeedRequest, FeedStart, LoggedEvent};
pub use filter::{Conditions, Filter, NEVER_EXPIRES, NameFilter, TimeRange};
pub use find::{KeyTotal, MAX_TOTAL};
pub use hash_upgrade::HashUpgrade;
pub use keys::{InsertOutcome, InsertedKeys};
pub use last_used::LAST_USED_PRECISION;
pub use lookups::Lookup;
pub use migrate::{Step, StepState};
pub use mutations::{LogEntry, LogPart, LogStart, LogSubject, Mutation, TRIM_BATCH, TrimLimit};
pub use new_key::NewKey;
pub use ory_rows::{OryRow, OryTable};
pub use page::{MAX_EXAMINED, Order, OrderBy, Page, PageRequest};
pub use poller::{Evidence, PollError, PollTiming, Proof, Server};
pub use pool::PoolStats;
pub use requests::{EarlierRequest, IdempotencyKey, RepeatedKey};
pub use revert::{Loss, Losses, RevertOptions, Undone};
pub use server::{NotAuthoritative, ServerId};
pub use signers::{MAX_SIGNED_COUNT, SignedBy};
pub use sweep::SWEEP_BATCH;
pub use terms::INDEX_BATCH;
pub use usage::{KeyUse, USAGE_BATCH, UsageRow};
pub use usage_report::{UsageGroup, UsageQuery, UsageSum};
pub use usage_trim::USAGE_TRIM_BATCH;

use crate::clock::Timestamp;
use crate::rng::Rng;
use anchor::Anchor;
use dialect::Dialect;
use digests::HashHint;
use dsn::Dsn;
use error_text::ErrorText;
use eviction::ConnectionEviction;
use lookups::Lookups;
use poller::{Connector, Poller};
use pool::Pool;
use spends::Spends;
use sweep::LastSweep;
use tracked_file::TrackedFile;

/// Error of the database. Messages never have a DSN.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The DSN is malformed or not supported.
    #[error("db.dsn: {0}")]
    Dsn(Cow<'static, str>),
    /// The server of the database refused the first connection.
    #[error("the database at {server}: {}", ErrorText(error))]
    Refused {
        /// Host and port, or socket.
        server: String,
        /// Reason.
        error: sqlx::Error,
    },
    /// The server of the database didn't answer at all.
    #[error(
        "the database at {server} doesn't answer: nothing came back in time; check address, port and scheme of the DSN, and firewalls"
    )]
    Silent {
        /// Host and port, or socket.
        server: String,
    },
    /// The server at the address speaks the protocol of another database.
    #[error(
        "the server at {server} speaks another protocol than that of the DSN: correct the port, or the scheme (postgres://, \
         mysql://)"
    )]
    OtherProtocol {
        /// Host and port, or socket.
        server: String,
    },
    /// An SQLite file that must be there isn't.
    #[error("there is no file {file}: `talos migrate up` makes it, or name another in db.dsn")]
    NoFile {
        /// The file.
        file: String,
    },
    /// The log of an SQLite file was removed, and a process still has the file open.
    #[error(
        "{file}-wal was removed or replaced while a process has {file} open (SQLite's error 522): end every process that \
         uses the file, then start again; docs/upgrade.md tells how a file is restored"
    )]
    LogRemoved {
        /// The file.
        file: String,
    },
    /// The database has an encoding that lacks letters.
    #[error(
        "the encoding of the database is {0}, which lacks letters that names and metadata may have: it must be UTF8. Make \
         another by CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0, and move the data by pg_dump and pg_restore"
    )]
    Encoding(String),
    /// The schema is older than this program.
    #[error(
        "the database's schema is at version {found}, this program needs {needed}: run `talos migrate up`"
    )]
    SchemaTooOld {
        /// Version of the database; 0 if it has none.
        found: i64,
        /// Version of this program.
        needed: i64,
    },
    /// The schema is newer than this program.
    #[error(
        "the database's schema is at version {found}, this program knows {known} at most, and that step isn't \
         additive: upgrade this program"
    )]
    SchemaTooNew {
        /// Version of the database.
        found: i64,
        /// Version of this program.
        known: i64,
    },
    /// Another command migrates the database, or a session keeps the lock.
    #[error(
        "another migration has held the lock of the schema for 30s. If none is running, a session that an older \
         Talos left behind PgBouncer keeps it: end that session, by pg_terminate_backend(pid) for the pid in pg_locks \
         with locktype 'advisory'"
    )]
    MigrationLocked,
    /// This program has no such version of the schema.
    #[error("this program has no version {version} of the schema; it knows 0 to {known}")]
    NoSuchVersion {
        /// Requested version.
        version: i64,
        /// Newest version of this program.
        known: i64,
    },
    /// Data would be lost.
    #[error("this would lose {losses}")]
    WouldLose {
        /// The data.
        losses: Losses,
    },
    /// Other processes use the database.
    #[error("the database is in use by {by}: stop every process that uses it first")]
    InUse {
        /// The others.
        by: String,
    },
    /// Ory Talos has a table of the same name in this database.
    #[error(
        "the table {table} of this database is one of Ory Talos, and Talos needs that name: give it a database of its \
         own, or with PostgreSQL a schema (search_path), and take the keys over with `talos migrate adopt --from-database \
         DSN`, the DSN of this one"
    )]
    NameTaken {
        /// Name of the table.
        table: String,
    },
    /// A migration failed.
    #[error("migrating the database: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A row has a value that this program can't have written.
    #[error("a row of the database can't be read: column {0}")]
    Corrupt(&'static str),
    /// The newest number and the newest entry of the mutation log differ.
    #[error(
        "the newest entry of the table mutation_log isn't the one that mutation_counter names, as after a restore or \
         TRUNCATE of single tables: a new history is begun"
    )]
    LogBroken,
    /// The row that numbers all changes is missing.
    #[error(
        "the table mutation_counter is empty: a restore is under way, or only some tables were restored. Restore all \
         tables of one backup together (docs/upgrade.md)"
    )]
    NoCounter,
    /// The database rejected a statement, failed or can't be reached.
    #[error("the database: {}", ErrorText(.0))]
    Sql(#[from] sqlx::Error),
    /// The server that answers isn't a primary that can be relied on.
    #[error("the database: {0}")]
    NotAuthoritative(#[from] NotAuthoritative),
    /// The process's clock would falsify what is written.
    #[error(
        "this server's clock differs from the database's by {} s ({}), more than the {} s that are allowed",
        seconds_ahead.unsigned_abs(),
        if *seconds_ahead < 0 { "it is behind" } else { "it is ahead" },
        MAX_CLOCK_SKEW.as_secs()
    )]
    ClockSkew {
        /// Time by which it is ahead; negative if it is behind.
        seconds_ahead: i64,
    },
    /// The database didn't answer in time; a change may have been made or not.
    #[error("the database doesn't answer in time")]
    TimedOut,
    /// The task of a query panicked or was stopped.
    #[error("the database query was interrupted")]
    Interrupted,
}

/// Returns true if statements may be prepared: what is prepared stays in a session, which a pooler
/// gives to others.
async fn prepares(dsn: &Dsn, options: &AnyConnectOptions) -> bool {
    if let Some(prepares) = dsn.prepares {
        return prepares;
    }
    let is_pooled = dsn.dialect == Dialect::Postgres && first_contact::is_pooled(options).await;
    if is_pooled {
        tracing::info!(
            "a pooler such as PgBouncer is in front of the database: sessions keep no settings and no prepared statements"
        );
    }
    !is_pooled
}

/// Handle to the database; clones share its connections.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    dialect: Dialect,
    /// True if prepared statements stay on their connections.
    prepares: bool,
    readers: Pool,
    /// The same pool as `readers`, except for SQLite, which has one writer at a time: callers get
    /// this pool's one connection in order, which SQLite's busy handler doesn't ensure.
    writers: Pool,
    poller: Poller,
    anchor: Anchor,
    /// File of the database, for SQLite.
    file: Option<Arc<TrackedFile>>,
    /// Eviction of connections of all pools.
    eviction: ConnectionEviction,
    /// Wakes the task that polls, as only a poll can find the primary.
    poll_requested: Arc<Notify>,
    rng: Rng,
    lookups: Lookups,
    /// Algorithms of imported hashes, as the last lookup saw them.
    hash_hint: HashHint,
    spends: Spends,
    last_sweep: LastSweep,
    key_reads: AtomicU64,
    /// Skew that the last poll measured.
    clock_skew: Mutex<Option<ClockSkew>>,
    /// Number of statements that looked up keys.
    #[cfg(test)]
    lookup_statements: AtomicU64,
    /// Texts of all statements that were made.
    #[cfg(test)]
    statements: parking_lot::Mutex<std::collections::BTreeSet<String>>,
    /// Version of the schema, if it is newer than this program.
    newer_schema: OnceLock<i64>,
}

impl Store {
    /// Connects. A new SQLite file is created and migrated; other databases must have the current
    /// schema.
    ///
    /// # Errors
    /// When the DSN can't be used, the database can't be reached, or its schema has another
    /// version.
    pub async fn open(dsn: &str, rng: Rng) -> Result<Self, StoreError> {
        let store = Self::connect(dsn, rng).await?;
        store.migrate_if_new().await?;
        store.check_schema().await?;
        Ok(store)
    }

    /// Connects to a database that must exist with the current schema.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub async fn open_existing(dsn: &str) -> Result<Self, StoreError> {
        let store = Self::connect_existing(dsn).await?;
        store.check_schema().await?;
        Ok(store)
    }

    async fn connect(dsn: &str, rng: Rng) -> Result<Self, StoreError> {
        Self::connect_to(Dsn::parse(dsn)?, rng).await
    }

    /// Connects to a database that must exist.
    async fn connect_existing(dsn: &str) -> Result<Self, StoreError> {
        Self::connect_to(Dsn::parse(dsn)?.existing_only(), Rng::system()).await
    }

    /// Connects to a database: pools, the connection of polls, and the file's identity for SQLite.
    async fn connect_to(dsn: Dsn, rng: Rng) -> Result<Self, StoreError> {
        driver::install();
        let options: AnyConnectOptions = dsn.url.parse()?;
        if dsn.dialect != Dialect::Sqlite {
            first_contact::reach(&options, dsn.connect_timeout).await?;
        }
        let prepares = prepares(&dsn, &options).await;
        let eviction = ConnectionEviction::default();
        let (file, options) = match &dsn.file {
            Some(path) => {
                // Creates the file if it may. Later connections don't, as they would create an
                // empty database in the place of one that was removed.
                first_contact::open_file(&options, path).await?;
                (
                    Some(Arc::new(TrackedFile::new(path, eviction.clone())?)),
                    dsn.clone().existing_only().url.parse()?,
                )
            }
            None => (None, options),
        };
        let pool = |connections| Pool::open(&dsn, &options, connections, eviction.clone(), file.clone());
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
        let poll_requested = Arc::new(Notify::new());
        let connector = Connector::new(options, dsn.dialect, prepares, file.clone());
        let poller = Poller::new(connector, eviction.clone(), Arc::clone(&poll_requested));
        Ok(Self(Arc::new(Inner {
            dialect: dsn.dialect,
            prepares,
            writers,
            readers,
            poller,
            anchor,
            file,
            poll_requested,
            eviction,
            rng,
            lookups: Lookups::default(),
            hash_hint: HashHint::default(),
            spends: Spends::default(),
            last_sweep: LastSweep::default(),
            key_reads: AtomicU64::new(0),
            clock_skew: Mutex::new(None),
            #[cfg(test)]
            lookup_statements: AtomicU64::new(0),
            #[cfg(test)]
            statements: Default::default(),
            newer_schema: OnceLock::new(),
        })))
    }

    /// Returns the server that polls come from; `None` before the first poll.
    pub fn server(&self) -> Option<Arc<Server>> {
        self.0.poller.server()
    }

    /// Returns the reason why the poll connection could not be replaced the last time.
    pub fn renewal_error(&self) -> Option<String> {
        self.0.poller.renewal_error()
    }

    /// Waits until a poll is requested: a write was refused, another server answered than the one
    /// of the last poll, or the poll connection is old and its replacement has just been opened.
    pub async fn poll_requested(&self) {
        self.0.poll_requested.notified().await;
    }

    /// Returns the skew between the process's clock and the database's; `None` before the first
    /// poll, and for SQLite.
    pub fn clock_skew(&self) -> Option<ClockSkew> {
        *self.0.clock_skew.lock()
    }

    /// Returns a time of this process, corrected by the database's clock if it is off.
    pub fn corrected(&self, now: Timestamp) -> Timestamp {
        self.clock_skew().map_or(now, |skew| skew.correct(now))
    }

    /// Returns the number of key rows that were read since the start.
    pub fn key_reads(&self) -> u64 {
        self.0.key_reads.load(Ordering::Relaxed)
    }

    /// Returns the numbers of connections.
    pub fn pool_stats(&self) -> PoolStats {
        let inner = &self.0;
        let (readers, writers) = (inner.readers.stats(), inner.writers.stats());
        match inner.dialect {
            Dialect::Sqlite => readers.plus(writers),
            // Readers and writers are one pool.
            Dialect::Postgres | Dialect::Cockroach | Dialect::MySql => readers,
        }
    }

    /// Pings the database.
    ///
    /// # Errors
    /// When it doesn't answer.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.run(async |inner| {
            let ping = inner.query("SELECT 1");
            inner.read(|connection| ping.execute(connection).boxed()).await.map(drop)
        })
        .await
    }

    /// Closes the connections, once their queries have ended.
    pub async fn close(&self) {
        self.0.readers.close().await;
        self.0.writers.close().await;
        self.0.poller.close();
        self.0.anchor.close().await;
    }

    /// Runs a query in a task of its own.
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
