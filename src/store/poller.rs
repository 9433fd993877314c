//! The connection that polls use, and the proof that it leads to the server that counts.
//!
//! A connection that was opened before a switchover goes on reaching the old server, which goes on answering: as a
//! standby, as a replica, or as a primary that nobody else writes to any more. Only a new connection shows where the
//! address leads. So this one is replaced a few times in a lease, in the background, and what is read on it counts as
//! of the moment at which it began to connect.
//!
//! A connection may also be dead without anybody saying so, after a suspend or behind a NAT that forgot it. So none
//! is waited for alone: another is opened beside one that says nothing for a while, and whichever answers first is
//! used from then on.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::{BoxFuture, FutureExt};
use parking_lot::{Mutex, MutexGuard};
use sqlx::any::{AnyConnectOptions, AnyRow};
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor, Row};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::database_file::FileId;
use super::dialect::Dialect;
use super::pool::WatchedFile;
use super::server::{NotAuthoritative, ServerId, authoritative};
use super::suspicion::Suspicion;
use super::{StoreError, transaction};
use crate::clock::{Clock, Moment};

/// The identity of every SQLite file: files are told apart by device and inode.
const FILE: &str = "file";
/// Longest time that closing a replaced connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest time that a new connection may take in the background.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A new connection gets so many times what the last one took before its silence counts as an outage.
const FAIR_FACTOR: u32 = 3;
/// Most connections that are being opened in the background at once: far away, one takes longer than a poll.
const MAX_RENEWALS: u32 = 3;

/// When a poll's connection is replaced, and when it is given up.
#[derive(Debug, Clone, Copy)]
pub struct PollTiming {
    /// How long what a poll read counts (`consistency.lease`).
    pub lease: Duration,
    /// From the beginning of a poll to that of the next (`consistency.poll`).
    pub interval: Duration,
}

impl PollTiming {
    /// Silence after which another connection is tried as well.
    fn hedge(self) -> Duration {
        self.lease / 5
    }

    /// Time without any poll after which the process is taken to have stood still, and its connections for dead.
    pub fn idle(self) -> Duration {
        self.lease.max(self.interval * 2)
    }

    /// Time that a new connection gets, at least, before its silence counts as an outage.
    fn fair(self) -> Duration {
        (self.lease / 2).min(Duration::from_secs(1))
    }

    /// Whether the poll after the next needs a connection that is newer than one of that age, if opening one takes
    /// that long.
    fn is_due(self, age: Duration, connect_time: Duration) -> bool {
        age + self.interval * 2 + connect_time > self.lease / 2
    }

    /// Whether what was read on a connection of that age won't count for much longer.
    fn is_late(self, age: Duration) -> bool {
        age > self.lease / 2
    }
}

/// The server that polls come from.
#[derive(Debug, Clone)]
pub struct Server {
    /// Which one it is.
    pub id: ServerId,
    /// Its address and version, for people.
    pub name: String,
    /// Since when polls come from it.
    pub since: Moment,
}

impl Server {
    /// Whether it is no server but SQLite's file.
    pub fn is_file(&self) -> bool {
        self.id == ServerId::new(FILE)
    }
}

/// Where a statement was answered, and since when that is known to be the server that counts.
#[derive(Debug, Clone, Copy)]
pub struct Proof {
    /// The moment before the connection was opened.
    connected: Moment,
}

impl Proof {
    /// The moment from which what was read counts, if the reading began at `began`.
    pub fn counts_from(self, began: Moment) -> Moment {
        began.earlier(self.connected)
    }
}

/// Why a poll failed.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct PollError {
    /// What happened last.
    pub error: StoreError,
    /// What it says of the database.
    pub evidence: Evidence,
}

/// What a failed poll says of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// Nothing: no new connection was tried, and an old one may be dead by itself.
    None,
    /// A new connection gives no answer so far. That is enough when the old one answered a moment ago.
    Silence,
    /// A new connection failed, or gave no answer in all the time that one needs: the database can't be reached.
    Outage,
}

/// A statement, run on one connection or another.
pub(super) type Statement = Arc<
    dyn for<'c> Fn(&'c mut AnyConnection) -> BoxFuture<'c, Result<Vec<AnyRow>, sqlx::Error>> + Send + Sync,
>;

/// The polls' own connection: whoever makes all others busy doesn't keep changes from being heard of.
#[derive(Clone)]
pub(super) struct Poller(Arc<Shared>);

struct Shared {
    options: AnyConnectOptions,
    dialect: Dialect,
    /// Whether statements may run outside of a transaction (see [`super::dsn::Dsn::prepares`]).
    prepares: bool,
    file: Option<Arc<WatchedFile>>,
    suspicion: Suspicion,
    /// Wakes whoever polls.
    poll_wanted: Arc<Notify>,
    connections: Mutex<Connections>,
    server: ArcSwapOption<Server>,
    /// The server whose answers are accepted: the last poll's.
    expected: ArcSwapOption<ServerId>,
    /// Counts up when the connections so far are given up.
    generation: AtomicU64,
    /// Wakes those who wait for a poll to succeed.
    polled: Notify,
    /// How long the last new connection took, in microseconds.
    connect_time: AtomicU64,
    is_closed: AtomicBool,
}

#[derive(Default)]
struct Connections {
    /// Absent while a poll has it, and before the first.
    current: Option<PollConnection>,
    /// Opened in the background to replace the current one.
    next: Option<PollConnection>,
    /// How many are being opened, and when the last of them began.
    renewals: u32,
    renewal_began: Option<Moment>,
    /// Why opening one failed the last time.
    renewal_error: Option<StoreError>,
}

struct PollConnection {
    connection: AnyConnection,
    opened: Moment,
    used: Moment,
    /// Who answered inside a transaction that could write.
    server: ServerId,
    name: String,
    /// The file that it opened, of SQLite.
    file: Option<FileId>,
}

/// An answer, and the connection that gave it.
type Attempt = BoxFuture<'static, Result<(PollConnection, Vec<AnyRow>), StoreError>>;

impl Poller {
    pub fn new(
        options: AnyConnectOptions,
        dialect: Dialect,
        prepares: bool,
        file: Option<Arc<WatchedFile>>,
        suspicion: Suspicion,
        poll_wanted: Arc<Notify>,
    ) -> Self {
        Self(Arc::new(Shared {
            options,
            dialect,
            prepares,
            file,
            suspicion,
            poll_wanted,
            connections: Mutex::default(),
            server: ArcSwapOption::empty(),
            expected: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            polled: Notify::new(),
            connect_time: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
        }))
    }

    /// The server that answered the last poll; None before the first.
    pub fn server(&self) -> Option<Arc<Server>> {
        self.0.server.load_full()
    }

    /// Why the connection could not be replaced the last time.
    pub fn renewal_error(&self) -> Option<String> {
        self.0.lock().renewal_error.as_ref().map(ToString::to_string)
    }

    /// How it connects.
    pub fn options(&self) -> &AnyConnectOptions {
        &self.0.options
    }

    /// The file that the last poll read, of SQLite.
    pub fn file(&self) -> Option<FileId> {
        self.0.lock().current.as_ref()?.file
    }

    /// Refuses an answer of another server than the last poll's.
    pub fn check(&self, server: &ServerId) -> Result<(), NotAuthoritative> {
        match &*self.0.expected.load() {
            Some(expected) if **expected != *server => Err(NotAuthoritative::OtherServer),
            _ => Ok(()),
        }
    }

    /// Gives up the connection, also one that is in use: the next poll opens another.
    pub fn reset(&self) {
        self.0.generation.fetch_add(1, Ordering::AcqRel);
        let mut connections = self.0.lock();
        let dropped = [connections.current.take(), connections.next.take()];
        drop(connections);
        dropped.into_iter().flatten().for_each(PollConnection::close);
    }

    /// Has somebody poll on a new connection, and waits for that: which server is the primary is settled then, if it
    /// can be.
    pub async fn settle(&self, patience: Duration) {
        let polled = self.0.polled.notified();
        tokio::pin!(polled);
        polled.as_mut().enable();
        self.reset();
        self.0.poll_wanted.notify_one();
        let _ = timeout(patience, polled).await;
    }

    /// Closes the connection for good.
    pub fn close(&self) {
        self.0.is_closed.store(true, Ordering::Release);
        self.reset();
    }

    /// Runs a statement whose first row has the columns `server_id` and `server_state`, by `deadline`.
    ///
    /// # Errors
    /// When nobody answers in time, or nobody whose answer counts.
    pub async fn fetch(
        &self,
        statement: Statement,
        clock: &Clock,
        timing: PollTiming,
        deadline: Instant,
    ) -> Result<(Vec<AnyRow>, Proof), PollError> {
        let now = clock.moment();
        let generation = self.0.generation.load(Ordering::Acquire);
        let mut old = self.take(now, timing).map(|connection| self.attempt(connection, &statement));
        let mut new: Option<Attempt> = None;
        let mut new_began = Instant::now();
        let (began, hedge) = (Instant::now(), sleep(timing.hedge()));
        tokio::pin!(hedge);
        let (mut hedged, mut new_failed) = (false, false);
        let mut error = None;
        loop {
            if old.is_none() && new.is_none() {
                if new_failed && let Some(error) = error.take() {
                    return Err(PollError { error, evidence: Evidence::Outage });
                }
                hedged = true;
                new_began = Instant::now();
                new = Some(self.open_and_attempt(&statement, clock));
            }
            tokio::select! {
                answer = poll_attempt(&mut old) => {
                    old = None;
                    match answer {
                        Ok((connection, rows)) => {
                            if let Some(new) = new {
                                // The attempt under way becomes the next connection.
                                self.0.lock().renewals += 1;
                                let (shared, clock) = (Arc::clone(&self.0), clock.clone());
                                tokio::spawn(async move {
                                    let opened = timeout(CONNECT_TIMEOUT, new).await;
                                    let opened = opened.unwrap_or(Err(StoreError::TimedOut));
                                    shared.end_renewal(opened.map(|(connection, _)| connection), &clock, timing);
                                });
                            }
                            return Ok(self.keep(connection, rows, clock, timing, generation));
                        }
                        Err(failed) => error = Some(failed),
                    }
                    if let Some(StoreError::NotAuthoritative(reason)) = &error {
                        // Its siblings lead to the same server.
                        self.0.suspicion.raise(reason);
                    }
                }
                answer = poll_attempt(&mut new) => {
                    new = None;
                    match answer {
                        Ok((connection, rows)) => {
                            if error.is_some() || old.is_some() && began.elapsed() > timing.hedge() * 2 {
                                self.0.suspicion.raise("one of them failed or gave no answer, while a new one did");
                            }
                            return Ok(self.keep(connection, rows, clock, timing, generation));
                        }
                        Err(failed) => {
                            error = Some(failed);
                            new_failed = true;
                            if old.is_some() {
                                // The old one may be dead: again, while there is time.
                                hedged = false;
                                hedge.as_mut().reset(Instant::now() + timing.hedge() / 2);
                            }
                        }
                    }
                }
                () = &mut hedge, if !hedged => {
                    hedged = true;
                    new_began = Instant::now();
                    new = Some(self.open_and_attempt(&statement, clock));
                }
                () = sleep_until(deadline) => {
                    let connect_time = Duration::from_micros(self.0.connect_time.load(Ordering::Relaxed));
                    let fair = timing.fair().max(connect_time * FAIR_FACTOR).min(timing.lease.mul_f64(0.9));
                    // The old connection is silent; a new one failed, or had the time that it needs.
                    let evidence = match new {
                        _ if new_failed => Evidence::Outage,
                        Some(_) if new_began.elapsed() >= fair => Evidence::Outage,
                        Some(_) => Evidence::Silence,
                        None => Evidence::None,
                    };
                    return Err(PollError { error: error.unwrap_or(StoreError::TimedOut), evidence });
                }
            }
        }
    }

    /// The connection to poll on: the newest one, unless its answer would be too old to count or it may be dead.
    fn take(&self, now: Moment, timing: PollTiming) -> Option<PollConnection> {
        let mut connections = self.0.lock();
        let next = connections.next.take();
        let current = connections.current.take();
        drop(connections);
        let (newest, replaced) = match (next, current) {
            (Some(next), Some(current)) if next.opened.is_before(current.opened) => {
                (Some(current), Some(next))
            }
            (Some(next), current) => (Some(next), current),
            (None, current) => (current, None),
        };
        replaced.into_iter().for_each(PollConnection::close);
        let newest = newest?;
        let is_idle = now.since(newest.used) > timing.idle();
        if is_idle {
            self.0.suspicion.raise("nothing was polled for long: the process may have stood still");
        }
        if is_idle || newest.file.is_none() && now.since(newest.opened) > timing.lease {
            newest.close();
            return None;
        }
        Some(newest)
    }

    fn open_and_attempt(&self, statement: &Statement, clock: &Clock) -> Attempt {
        let (poller, statement, clock) = (self.clone(), Arc::clone(statement), clock.clone());
        async move {
            let connection = poller.0.open(&clock).await?;
            poller.attempt(connection, &statement).await
        }
        .boxed()
    }

    fn attempt(&self, connection: PollConnection, statement: &Statement) -> Attempt {
        let (shared, statement) = (Arc::clone(&self.0), Arc::clone(statement));
        async move {
            let mut connection = connection;
            let rows = shared.run(&mut connection.connection, &statement).await?;
            let server = answering_server(&rows)?;
            if shared.dialect.introduction().is_some() && server != connection.server {
                return Err(NotAuthoritative::SplitReads.into());
            }
            // After the reading: the path still leads to the file that was read.
            if let (Some(file), Some(opened)) = (&shared.file, connection.file) {
                file.file().check(opened)?;
            }
            Ok((connection, rows))
        }
        .boxed()
    }

    /// Keeps a connection that has just answered, and sees to its replacement.
    fn keep(
        &self,
        mut connection: PollConnection,
        rows: Vec<AnyRow>,
        clock: &Clock,
        timing: PollTiming,
        generation: u64,
    ) -> (Vec<AnyRow>, Proof) {
        let now = clock.moment();
        connection.used = now;
        self.note_server(&connection, now);
        // What the file system is asked after each reading needs no new connection.
        let connected = if connection.file.is_some() { now } else { connection.opened };
        let begins = connection.file.is_none().then_some(connection.opened);
        self.0.polled.notify_waiters();
        let mut connections = self.0.lock();
        if self.0.is_closed.load(Ordering::Acquire) || self.0.generation.load(Ordering::Acquire) != generation
        {
            drop(connections);
            connection.close();
            return (rows, Proof { connected });
        }
        connections.current = Some(connection);
        let newest =
            begins.map(|opened| connections.renewal_began.map_or(opened, |began| opened.later(began)));
        let connect_time = Duration::from_micros(self.0.connect_time.load(Ordering::Relaxed));
        if let Some(newest) = newest
            && timing.is_due(now.since(newest), connect_time)
            && connections.renewals < MAX_RENEWALS
        {
            connections.renewals += 1;
            // Just in time for the next poll.
            let due = timing.interval.saturating_sub(connect_time * 2);
            connections.renewal_began = Some(now);
            drop(connections);
            tokio::spawn(Arc::clone(&self.0).renew(clock.clone(), due, timing));
        }
        (rows, Proof { connected })
    }

    fn note_server(&self, connection: &PollConnection, now: Moment) {
        let is_expected =
            self.0.expected.load().as_deref().is_some_and(|expected| *expected == connection.server);
        if !is_expected {
            self.0.expected.store(Some(Arc::new(connection.server.clone())));
        }
        let before = self.0.server.load();
        if before.as_ref().is_some_and(|before| before.id == connection.server) {
            return;
        }
        if let Some(before) = &*before {
            self.0.suspicion.raise("the database's address leads to another server now");
            tracing::warn!(server = %connection.name, before = %before.name, "polls come from another server now");
        } else {
            tracing::debug!(server = %connection.name, "polls come from this server");
        }
        let server = Server { id: connection.server.clone(), name: connection.name.clone(), since: now };
        self.0.server.store(Some(Arc::new(server)));
    }
}

/// The server in the one row that names it, if its answers count.
fn answering_server(rows: &[AnyRow]) -> Result<ServerId, StoreError> {
    for row in rows {
        if !row.try_get::<String, _>("server_state")?.is_empty() {
            return authoritative(row, "server_id", "server_state");
        }
    }
    Err(StoreError::Corrupt("server_state"))
}

async fn poll_attempt(attempt: &mut Option<Attempt>) -> Result<(PollConnection, Vec<AnyRow>), StoreError> {
    match attempt {
        Some(attempt) => attempt.await,
        None => pending().await,
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock()
    }

    /// Opens a connection and learns whom it leads to.
    async fn open(&self, clock: &Clock) -> Result<PollConnection, StoreError> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(sqlx::Error::PoolClosed.into());
        }
        let (opened, began) = (clock.moment(), Instant::now());
        let before = self.file.as_ref().map(|file| file.file().current()).transpose()?;
        let mut connection = AnyConnection::connect_with(&self.options).await?;
        if let Some(settings) = self.dialect.session() {
            connection.execute(settings).await?;
        }
        let (server, name) = match self.dialect.introduction() {
            Some(introduction) => {
                let rows = sqlx::raw_sql(AssertSqlSafe(introduction)).fetch_all(&mut connection).await?;
                let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
                (authoritative(row, "server_id", "server_state")?, row.try_get("server_name")?)
            }
            None => {
                let name = self.file.as_ref().map(|file| file.file().path().display().to_string());
                (ServerId::new(FILE), name.unwrap_or_default())
            }
        };
        let took = began.elapsed().min(CONNECT_TIMEOUT);
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.connect_time.store(took, Ordering::Relaxed);
        // It was made while it was opened, unless it was there.
        let file = self.file.as_ref().map(|file| file.file().current()).transpose()?;
        if before.zip(file).is_some_and(|(before, after)| !before.is_followed_by(after)) {
            return Err(NotAuthoritative::FileReplaced.into());
        }
        Ok(PollConnection { connection, opened, used: clock.moment(), server, name, file })
    }

    async fn run(
        &self,
        connection: &mut AnyConnection,
        statement: &Statement,
    ) -> Result<Vec<AnyRow>, StoreError> {
        if self.prepares {
            return Ok(statement(connection).await?);
        }
        transaction::read_in_transaction(self.dialect, connection, |connection| statement(connection)).await
    }

    /// Opens the next connection once `due` has passed.
    async fn renew(self: Arc<Self>, clock: Clock, due: Duration, timing: PollTiming) {
        sleep(due).await;
        let opened = timeout(CONNECT_TIMEOUT, self.open(&clock)).await;
        self.end_renewal(opened.unwrap_or(Err(StoreError::TimedOut)), &clock, timing);
    }

    /// Takes in the next connection, or why there is none.
    fn end_renewal(&self, opened: Result<PollConnection, StoreError>, clock: &Clock, timing: PollTiming) {
        let now = clock.moment();
        let mut connections = self.lock();
        connections.renewals -= 1;
        match opened {
            Ok(next) if self.is_closed.load(Ordering::Acquire) => {
                drop(connections);
                next.close();
            }
            Ok(next) => {
                connections.renewal_error = None;
                let is_newer =
                    connections.next.as_ref().is_none_or(|other| other.opened.is_before(next.opened));
                let unused = if is_newer { connections.next.replace(next) } else { Some(next) };
                let current = connections.current.as_ref().map(|current| now.since(current.opened));
                drop(connections);
                unused.into_iter().for_each(PollConnection::close);
                if current.is_some_and(|age| timing.is_late(age)) {
                    self.poll_wanted.notify_one();
                }
            }
            Err(error) => {
                if connections.renewal_error.is_none() {
                    tracing::warn!(
                        %error,
                        "no new connection to the database can be made; without one, the lease runs out"
                    );
                }
                connections.renewal_error = Some(error);
                // Polls try again at once.
                connections.renewal_began = None;
            }
        }
    }
}

impl PollConnection {
    fn close(self) {
        tokio::spawn(async move {
            let _ = timeout(CLOSE_TIMEOUT, self.connection.close()).await;
        });
    }
}
