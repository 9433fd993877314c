//! Connections to the database: lent, taken back, and given up when they lead nowhere.
//!
//! A network that fails need not say so: a server's machine goes off, and a connection to it stays silent for a quarter
//! of an hour. So every wait here has an end, and a connection that let one end in vain is closed; those that are as
//! old as that one are not trusted either, and neither are those that led to a server, or a file, that was replaced.

mod warm;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::try_join_all;
use parking_lot::Mutex;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool, Connection, Executor};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout, timeout_at};

use super::StoreError;
use super::database_file::{DatabaseFile, FileId};
use super::dsn::Dsn;
use super::server::NotAuthoritative;
use super::suspicion::Suspicion;
use warm::{Warm, WarmOnes, give_back};

/// How long a connection may be waited for.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection that says nothing for so long leads nowhere.
const SILENCE: Duration = Duration::from_secs(2);
/// A connection that is asked whether it is still there has so long for its answer: whoever wants it would rather open
/// another.
const PING_TIMEOUT: Duration = Duration::from_millis(500);

/// Connections that are used by one at a time.
#[derive(Clone)]
pub(super) struct Pool {
    pool: AnyPool,
    suspicion: Suspicion,
    warm: WarmOnes,
    file: Option<Arc<WatchedFile>>,
}

/// The file of an SQLite database, and what its path named when it was last looked at.
pub(super) struct WatchedFile {
    file: DatabaseFile,
    seen: Mutex<FileId>,
}

/// A connection, and until when it may be used.
pub(super) struct Lent {
    pub connection: PoolConnection<Any>,
    pub until: Instant,
    /// Set by whoever finds that it is of no use any more.
    pub broken: bool,
    /// The file that its path named when it was lent, of SQLite.
    file: Option<FileId>,
    /// Since when it is out of the library's pool.
    away: Instant,
    since: Instant,
    /// Given up last: who gets it next finds the connection.
    permit: OwnedSemaphorePermit,
}

impl Pool {
    /// Connects, once at first.
    pub async fn open(
        dsn: &Dsn,
        options: &AnyConnectOptions,
        connections: u32,
        suspicion: Suspicion,
        file: Option<Arc<WatchedFile>>,
    ) -> Result<Self, sqlx::Error> {
        let (dialect, max_idle) = (dsn.dialect, dsn.max_idle);
        // Known once the pool is made, which must know this before.
        let made: Arc<OnceLock<AnyPool>> = Arc::default();
        let pool = {
            let (made, suspicion) = (Arc::clone(&made), suspicion.clone());
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
                // The pool's own test has no end.
                .test_before_acquire(false)
                .before_acquire(move |connection, meta| {
                    let suspicion = suspicion.clone();
                    Box::pin(async move {
                        let is_suspect = suspicion.is_against(meta.age, Instant::now());
                        Ok(!is_suspect && answers(&suspicion, connection).await)
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
        Ok(Self { pool, suspicion, warm: WarmOnes::new(connections, dsn.max_lifetime), file })
    }

    /// The library's pool, for what it does by itself.
    pub fn raw(&self) -> &AnyPool {
        self.warm.clear();
        &self.pool
    }

    /// How many connections there are, how many of them nobody uses, and how many there may be.
    pub fn numbers(&self) -> (u32, u32, u32) {
        let idle = u32::try_from(self.pool.num_idle() + self.warm.len()).unwrap_or(u32::MAX);
        (self.pool.size(), idle, self.pool.options().get_max_connections())
    }

    /// Opens so many connections, or as many as there may be.
    pub async fn fill(&self, connections: usize, patience: Duration) -> Result<(), StoreError> {
        let (.., most) = self.numbers();
        let connections = connections.min(usize::try_from(most).unwrap_or(usize::MAX));
        // All at once: one that is given back is lent again.
        for lent in try_join_all((0..connections).map(|_| self.lend(patience))).await? {
            self.take_back(lent, Ok(Ok(())))?;
        }
        Ok(())
    }

    /// Lends a connection, for as long as `patience` from now; to be given back by [`Pool::take_back`].
    pub async fn lend(&self, patience: Duration) -> Result<Lent, StoreError> {
        let began = Instant::now();
        let until = began + patience;
        let permit = match timeout_at(until.min(began + ACQUIRE_TIMEOUT), self.warm.permit()).await {
            Ok(permit) => permit.ok_or(sqlx::Error::PoolClosed)?,
            Err(_) => return Err(sqlx::Error::PoolTimedOut.into()),
        };
        let file = self.file.as_ref().map(|file| file.look(&self.suspicion)).transpose()?;
        let now = Instant::now();
        let is_suspect = |since| self.suspicion.is_against(now - since, now);
        let lent = |connection, away| {
            let since = Instant::now();
            Lent { connection, until, broken: false, file, away, since, permit }
        };
        while let Some((Warm { mut connection, since, .. }, is_trusted)) = self.warm.take(is_suspect, now) {
            // Asked here: while the library asks one that was given back, it would open another.
            let answers = async { is_trusted || answers(&self.suspicion, &mut connection).await };
            match timeout_at(until, answers).await {
                Ok(true) => return Ok(lent(connection, since)),
                Ok(false) => drop(connection.detach()),
                Err(_) => {
                    drop(connection.detach());
                    return Err(StoreError::TimedOut);
                }
            }
        }
        match timeout_at(until, self.pool.acquire()).await {
            Ok(connection) => Ok(lent(connection?, Instant::now())),
            Err(_) => Err(StoreError::TimedOut),
        }
    }

    /// Takes a connection back after what was done with it, which was cut off if it took too long.
    pub fn take_back<T>(
        &self,
        Lent { mut connection, broken, file, away, since, permit, .. }: Lent,
        done: Result<Result<T, StoreError>, Elapsed>,
    ) -> Result<T, StoreError> {
        // What was read from, or written to, a file that has lost its name meanwhile doesn't count.
        let done = match (done, &self.file, file) {
            (Ok(Ok(value)), Some(watched), Some(file)) => Ok(watched.file.check(file).map(|()| value)),
            (done, ..) => done,
        };
        let result = match done {
            Ok(result) if broken => {
                connection.close_on_drop();
                result
            }
            Ok(Ok(value)) => {
                self.warm.put(connection, away, || self.pool.is_closed(), Instant::now());
                Ok(value)
            }
            Ok(Err(StoreError::NotAuthoritative(reason))) => {
                // All that were made before now may lead to the same server.
                connection.close_on_drop();
                self.suspicion.raise(reason);
                Err(reason.into())
            }
            Ok(failed) => {
                // It may be the connection that failed.
                give_back(connection);
                failed
            }
            Err(_) => {
                // In the middle of something: nobody can use it any more.
                drop(connection.detach());
                if since.elapsed() >= SILENCE {
                    self.suspicion.raise(LEADS_NOWHERE);
                }
                Err(StoreError::TimedOut)
            }
        };
        drop(permit);
        result
    }

    /// Closes the connections, once their queries are through.
    pub async fn close(&self) {
        let closing = self.pool.close();
        self.warm.clear();
        closing.await;
    }
}

/// Why connections are made anew when one gives no answer.
const LEADS_NOWHERE: &str = "one of them gives no answer";

/// Whether a connection leads anywhere; raises the suspicion when it doesn't say.
async fn answers(suspicion: &Suspicion, connection: &mut AnyConnection) -> bool {
    match timeout(PING_TIMEOUT, connection.ping()).await {
        Ok(answer) => answer.is_ok(),
        Err(_) => {
            suspicion.raise(LEADS_NOWHERE);
            false
        }
    }
}

impl WatchedFile {
    /// Of the database at that path, which is there.
    ///
    /// # Errors
    /// When it isn't.
    pub fn new(path: &Path) -> Result<Self, StoreError> {
        let file = DatabaseFile::new(path);
        let seen = Mutex::new(file.current()?);
        Ok(Self { file, seen })
    }

    /// The file.
    pub fn file(&self) -> &DatabaseFile {
        &self.file
    }

    /// What the path names now. When that is another file than before, connections made before now lead to an orphan.
    fn look(&self, suspicion: &Suspicion) -> Result<FileId, StoreError> {
        let current = self.file.current()?;
        let mut seen = self.seen.lock();
        if !seen.is_followed_by(current) {
            suspicion.raise(NotAuthoritative::FileReplaced);
        }
        *seen = current;
        Ok(current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pool of two connections to a new database.
    async fn pool(directory: &tempfile::TempDir) -> Pool {
        pool_with(directory, "").await
    }

    /// The same, with parameters in its DSN.
    async fn pool_with(directory: &tempfile::TempDir, parameters: &str) -> Pool {
        sqlx::any::install_default_drivers();
        let dsn = format!("sqlite://{}/talos.db{parameters}", directory.path().display());
        let dsn = Dsn::parse(&dsn).unwrap();
        Pool::open(&dsn, &dsn.url.parse().unwrap(), 2, Suspicion::default(), None).await.unwrap()
    }

    #[tokio::test]
    async fn who_was_of_use_is_lent_again_unless_suspected() {
        let directory = tempfile::tempdir().unwrap();
        let pool = pool(&directory).await;
        let patience = Duration::from_secs(5);
        let first = pool.lend(patience).await.unwrap();
        let away = first.away;
        pool.take_back(first, Ok(Ok(()))).unwrap();
        assert_eq!(pool.numbers(), (1, 1, 2));
        let again = pool.lend(patience).await.unwrap();
        assert_eq!(again.away, away, "it never went back");
        pool.take_back(again, Ok(Ok(()))).unwrap();
        tokio::time::sleep(warm::TRUST).await;
        let again = pool.lend(patience).await.unwrap();
        assert_eq!(
            (again.away, pool.numbers()),
            (away, (1, 0, 2)),
            "it is asked, and no other opened meanwhile"
        );
        pool.take_back(again, Ok(Ok(()))).unwrap();
        pool.suspicion.raise("a test");
        let other = pool.lend(patience).await.unwrap();
        assert!(other.away > away);
        assert!(pool.take_back(other, Ok(Err::<(), _>(StoreError::TimedOut))).is_err());
        assert_eq!(pool.warm.len(), 0, "what failed is asked first");
    }

    #[tokio::test]
    async fn who_is_lent_again_lives_no_longer_than_it_may() {
        let directory = tempfile::tempdir().unwrap();
        let pool = pool_with(&directory, "?max_conn_lifetime=20ms").await;
        let lent = pool.lend(Duration::from_secs(5)).await.unwrap();
        tokio::time::sleep_until(lent.away + Duration::from_millis(20)).await;
        pool.take_back(lent, Ok(Ok(()))).unwrap();
        assert_eq!(pool.warm.len(), 0);
    }

    #[tokio::test]
    async fn as_many_are_opened_as_are_wanted_and_may_be() {
        let directory = tempfile::tempdir().unwrap();
        let pool = pool(&directory).await;
        assert_eq!(pool.numbers().0, 1);
        pool.fill(3, Duration::from_secs(5)).await.unwrap();
        assert_eq!(pool.numbers(), (2, 2, 2));
    }

    #[tokio::test]
    async fn there_are_no_more_than_there_may_be_and_closing_waits_for_none_that_rests() {
        let directory = tempfile::tempdir().unwrap();
        let pool = pool(&directory).await;
        let patience = Duration::from_millis(100);
        let (one, two) = (pool.lend(patience * 50).await.unwrap(), pool.lend(patience * 50).await.unwrap());
        assert!(pool.lend(patience).await.is_err());
        pool.take_back(one, Ok(Ok(()))).unwrap();
        let one = pool.lend(patience).await.unwrap();
        pool.take_back(one, Ok(Ok(()))).unwrap();
        pool.take_back(two, Ok(Ok(()))).unwrap();
        timeout(Duration::from_secs(5), pool.close()).await.unwrap();
        assert!(pool.lend(patience).await.is_err());
    }
}
