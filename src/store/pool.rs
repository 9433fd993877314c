//! Pool of connections to the database: acquired, released, and closed when they are dead.
//!
//! A network that fails need not report it: when a server's machine goes off, a connection to it
//! stays silent for a quarter of an hour. So every wait here has a timeout, and a connection that
//! lets one expire is closed. Connections of the same age aren't used any more either, nor are
//! those to a server, or a file, that was replaced.

mod idle;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::try_join_all;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool, Connection, Executor};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout, timeout_at};

use super::StoreError;
use super::database_file::FileId;
use super::dsn::Dsn;
use super::eviction::ConnectionEviction;
use super::tracked_file::TrackedFile;
use idle::{IdleConnection, IdleConnections, RESPONSE_TIMEOUT, return_to_pool};

/// Timeout of waiting for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// Timeout of a ping before a connection is used: opening another is better than a longer wait.
const PING_TIMEOUT: Duration = Duration::from_millis(500);
/// Reason for an eviction after a connection didn't respond.
const NO_RESPONSE: &str = "one of them doesn't respond";

/// Pool whose connections are used by one caller at a time. Clones share it.
#[derive(Clone)]
pub(super) struct Pool {
    pool: AnyPool,
    eviction: ConnectionEviction,
    idle: IdleConnections,
    file: Option<Arc<TrackedFile>>,
}

/// Number of connections of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolStats {
    /// Open connections.
    pub open: u32,
    /// Open connections that nobody uses.
    pub idle: u32,
    /// Most connections that may be open.
    pub max: u32,
}

impl PoolStats {
    /// Adds the numbers of another pool.
    pub(super) const fn plus(self, other: Self) -> Self {
        Self { open: self.open + other.open, idle: self.idle + other.idle, max: self.max + other.max }
    }
}

/// Acquired connection; to be given back by [`Pool::release`].
pub(super) struct Checkout {
    pub connection: PoolConnection<Any>,
    /// Time until which it may be used.
    pub deadline: Instant,
    /// True if it must be closed on release.
    pub must_close: bool,
    /// File that the path named when it was acquired, for SQLite.
    file: Option<FileId>,
    /// Time since when it is outside of sqlx's pool.
    outside_since: Instant,
    acquired: Instant,
    /// Dropped last, so that the next caller finds the connection.
    permit: OwnedSemaphorePermit,
}

impl Pool {
    /// Opens a pool with one connection.
    pub(super) async fn open(
        dsn: &Dsn,
        options: &AnyConnectOptions,
        max_connections: u32,
        eviction: ConnectionEviction,
        file: Option<Arc<TrackedFile>>,
    ) -> Result<Self, sqlx::Error> {
        let (dialect, max_idle) = (dsn.dialect, dsn.max_idle);
        // Set below: the callback needs the pool that it is an option of.
        let opened: Arc<OnceLock<AnyPool>> = Arc::default();
        let pool = {
            let (opened, eviction) = (Arc::clone(&opened), eviction.clone());
            AnyPoolOptions::new()
                .max_connections(max_connections)
                .acquire_timeout(dsn.connect_timeout.unwrap_or(ACQUIRE_TIMEOUT).max(ACQUIRE_TIMEOUT))
                .max_lifetime(dsn.max_lifetime)
                .idle_timeout(dsn.idle_timeout)
                .after_connect(move |connection, _| {
                    Box::pin(async move {
                        match dialect.session_setup() {
                            Some(setup) => connection.execute(setup).await.map(drop),
                            None => Ok(()),
                        }
                    })
                })
                // Replaced by `before_acquire`, as sqlx's own test has no timeout.
                .test_before_acquire(false)
                .before_acquire(move |connection, meta| {
                    let eviction = eviction.clone();
                    Box::pin(async move {
                        let is_evicted = eviction.is_evicted(meta.age, Instant::now());
                        Ok(!is_evicted && is_alive(&eviction, connection).await)
                    })
                })
                .after_release(move |_, _| {
                    let idle = opened.get().map_or(0, AnyPool::num_idle);
                    let keep = max_idle.is_none_or(|max| idle < usize::try_from(max).unwrap_or(usize::MAX));
                    Box::pin(async move { Ok(keep) })
                })
                .connect_with(options.clone())
                .await?
        };
        let _ = opened.set(pool.clone());
        Ok(Self { pool, eviction, idle: IdleConnections::new(max_connections, dsn.max_lifetime), file })
    }

    /// Returns all idle connections to sqlx's pool and borrows that, for what only sqlx does.
    pub(super) fn reclaim(&self) -> &AnyPool {
        self.idle.clear();
        &self.pool
    }

    /// Returns the number of connections.
    pub(super) fn stats(&self) -> PoolStats {
        let idle = u32::try_from(self.pool.num_idle() + self.idle.len()).unwrap_or(u32::MAX);
        PoolStats { open: self.pool.size(), idle, max: self.pool.options().get_max_connections() }
    }

    /// Opens `connections` connections, or as many as there may be.
    pub(super) async fn warm_up(&self, connections: usize, time_limit: Duration) -> Result<(), StoreError> {
        let max = usize::try_from(self.stats().max).unwrap_or(usize::MAX);
        let connections = connections.min(max);
        // Acquired side by side: a connection that is released would be acquired again.
        for checkout in try_join_all((0..connections).map(|_| self.acquire(time_limit))).await? {
            self.release(checkout, Ok(Ok(())))?;
        }
        Ok(())
    }

    /// Acquires a connection, which may be used until `time_limit` from now.
    pub(super) async fn acquire(&self, time_limit: Duration) -> Result<Checkout, StoreError> {
        let began = Instant::now();
        let deadline = began + time_limit;
        let permit = match timeout_at(deadline.min(began + ACQUIRE_TIMEOUT), self.idle.acquire()).await {
            Ok(permit) => permit.ok_or(sqlx::Error::PoolClosed)?,
            Err(_) => return Err(sqlx::Error::PoolTimedOut.into()),
        };
        let file = self.file.as_ref().map(|file| file.refresh()).transpose()?;
        let now = Instant::now();
        let is_evicted = |outside_since| self.eviction.is_evicted(now - outside_since, now);
        let checkout = |connection, outside_since| {
            let acquired = Instant::now();
            Checkout { connection, deadline, must_close: false, file, outside_since, acquired, permit }
        };
        while let Some((IdleConnection { mut connection, outside_since, .. }, is_recent)) =
            self.idle.pop(is_evicted, now)
        {
            // Pinged here: while sqlx pings a connection that was returned to it, it would open
            // another.
            let is_alive = async { is_recent || is_alive(&self.eviction, &mut connection).await };
            match timeout_at(deadline, is_alive).await {
                Ok(true) => return Ok(checkout(connection, outside_since)),
                Ok(false) => drop(connection.detach()),
                Err(_) => {
                    drop(connection.detach());
                    return Err(StoreError::TimedOut);
                }
            }
        }
        match timeout_at(deadline, self.pool.acquire()).await {
            Ok(connection) => Ok(checkout(connection?, Instant::now())),
            Err(_) => Err(StoreError::TimedOut),
        }
    }

    /// Releases a connection, by the result of its use; `Elapsed` means that the use was cut off.
    pub(super) fn release<T>(
        &self,
        checkout: Checkout,
        result: Result<Result<T, StoreError>, Elapsed>,
    ) -> Result<T, StoreError> {
        let Checkout { mut connection, must_close, file, outside_since, acquired, permit, .. } = checkout;
        // A file that was replaced meanwhile invalidates what was read from it, or written to it.
        let result = match (result, &self.file, file) {
            (Ok(Ok(value)), Some(tracked), Some(file)) => Ok(tracked.file().check(file).map(|()| value)),
            (result, ..) => result,
        };
        let result = match result {
            Ok(result) if must_close => {
                connection.close_on_drop();
                result
            }
            Ok(Ok(value)) => {
                self.idle.push(connection, outside_since, || self.pool.is_closed(), Instant::now());
                Ok(value)
            }
            Ok(Err(StoreError::NotAuthoritative(reason))) => {
                // All connections that were opened before now may lead to the same server.
                connection.close_on_drop();
                self.eviction.evict_all(reason);
                Err(reason.into())
            }
            Ok(failed) => {
                // The connection may have failed, so sqlx pings it.
                return_to_pool(connection);
                failed
            }
            Err(_) => {
                // A statement is under way, so the connection can't be used again.
                drop(connection.detach());
                if acquired.elapsed() >= RESPONSE_TIMEOUT {
                    self.eviction.evict_all(NO_RESPONSE);
                }
                Err(StoreError::TimedOut)
            }
        };
        drop(permit);
        result
    }

    /// Closes all idle connections. Returns true if none is open any more.
    pub(super) async fn close_idle(&self) -> bool {
        self.idle.clear();
        while let Some(connection) = self.pool.try_acquire() {
            // An error doesn't matter: nothing is under way.
            let _ = connection.close().await;
        }
        self.pool.size() == 0
    }

    /// Closes the connections, once their statements have ended.
    pub(super) async fn close(&self) {
        let closing = self.pool.close();
        self.idle.clear();
        closing.await;
    }
}

/// Pings a connection; evicts all others as well if it doesn't respond.
async fn is_alive(eviction: &ConnectionEviction, connection: &mut AnyConnection) -> bool {
    match timeout(PING_TIMEOUT, connection.ping()).await {
        Ok(answer) => answer.is_ok(),
        Err(_) => {
            eviction.evict_all(NO_RESPONSE);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens a pool of two connections to a new database.
    async fn pool(directory: &tempfile::TempDir) -> Pool {
        pool_with(directory, "").await
    }

    /// Opens such a pool with parameters in its DSN.
    async fn pool_with(directory: &tempfile::TempDir, parameters: &str) -> Pool {
        crate::store::driver::install();
        let dsn = format!("sqlite://{}/talos.db{parameters}", directory.path().display());
        let dsn = Dsn::parse(&dsn).unwrap();
        Pool::open(&dsn, &dsn.url.parse().unwrap(), 2, ConnectionEviction::default(), None).await.unwrap()
    }

    fn stats(pool: &Pool) -> (u32, u32, u32) {
        let PoolStats { open, idle, max } = pool.stats();
        (open, idle, max)
    }

    #[tokio::test]
    async fn a_released_connection_is_acquired_again_unless_evicted() {
        let directory = tempfile::tempdir().unwrap();
        let pool = pool(&directory).await;
        let time_limit = Duration::from_secs(5);
        let first = pool.acquire(time_limit).await.unwrap();
        let outside_since = first.outside_since;
        pool.release(first, Ok(Ok(()))).unwrap();
        assert_eq!(stats(&pool), (1, 1, 2));
        let again = pool.acquire(time_limit).await.unwrap();
        assert_eq!(again.outside_since, outside_since, "it never went back to sqlx's pool");
        pool.release(again, Ok(Ok(()))).unwrap();
        tokio::time::sleep(idle::MAX_IDLE_UNPINGED).await;
        let again = pool.acquire(time_limit).await.unwrap();
        assert_eq!(
            (again.outside_since, stats(&pool)),
            (outside_since, (1, 0, 2)),
            "it is pinged, and no other is opened meanwhile"
        );
        pool.release(again, Ok(Ok(()))).unwrap();
        pool.eviction.evict_all("a test");
        let other = pool.acquire(time_limit).await.unwrap();
        assert!(other.outside_since > outside_since);
        assert!(pool.release(other, Ok(Err::<(), _>(StoreError::TimedOut))).is_err());
        assert_eq!(pool.idle.len(), 0, "after a failure sqlx pings it first");
    }

    #[tokio::test]
    async fn a_connection_lives_no_longer_than_its_max_lifetime() {
        let directory = tempfile::tempdir().unwrap();
        let pool = pool_with(&directory, "?max_conn_lifetime=20ms").await;
        let checkout = pool.acquire(Duration::from_secs(5)).await.unwrap();
        tokio::time::sleep_until(checkout.outside_since + Duration::from_millis(20)).await;
        pool.release(checkout, Ok(Ok(()))).unwrap();
        assert_eq!(pool.idle.len(), 0);
    }

    #[tokio::test]
    async fn warming_up_opens_no_more_than_the_maximum() {
        let directory = tempfile::tempdir().unwrap();
        let pool = pool(&directory).await;
        assert_eq!(pool.stats().open, 1);
        pool.warm_up(3, Duration::from_secs(5)).await.unwrap();
        assert_eq!(stats(&pool), (2, 2, 2));
    }

    #[tokio::test]
    async fn the_maximum_holds_and_closing_waits_for_no_idle_connection() {
        let directory = tempfile::tempdir().unwrap();
        let pool = pool(&directory).await;
        let time_limit = Duration::from_millis(100);
        let one = pool.acquire(time_limit * 50).await.unwrap();
        let two = pool.acquire(time_limit * 50).await.unwrap();
        assert!(pool.acquire(time_limit).await.is_err());
        pool.release(one, Ok(Ok(()))).unwrap();
        let one = pool.acquire(time_limit).await.unwrap();
        pool.release(one, Ok(Ok(()))).unwrap();
        pool.release(two, Ok(Ok(()))).unwrap();
        timeout(Duration::from_secs(5), pool.close()).await.unwrap();
        assert!(pool.acquire(time_limit).await.is_err());
    }
}
