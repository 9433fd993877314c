//! Connection that polls use, and the proof that it leads to the primary.
//!
//! A connection that was opened before a switchover still reaches the old server, which still
//! answers: as a standby, as a replica, or as a primary that nobody else writes to any more. Only a
//! new connection shows where the address leads. So this connection is replaced a few times per
//! lease, in the background, and a result counts from the moment at which its connection began to
//! open.
//!
//! A connection may also be dead without an error, after a suspend or behind a NAT that forgot it.
//! So no poll relies on one alone: a new connection is opened beside one that doesn't answer for a
//! while, and the first that answers is used from then on.

mod connection;
mod outcome;
mod race;
mod timing;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::FutureExt;
use parking_lot::Mutex;
use sqlx::any::{AnyConnectOptions, AnyRow};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

pub(super) use connection::{Connector, Statement};
pub use outcome::{Evidence, PollError, Proof, Server};
pub use timing::PollTiming;

use super::StoreError;
use super::database_file::FileId;
use super::eviction::ConnectionEviction;
use super::server::{NotAuthoritative, ServerId};
use crate::clock::{Clock, Moment};
use crate::mutants::{self, Mutant};
use connection::{Answered, Attempt, CONNECT_TIMEOUT, PollConnection};
use race::{Race, Step};

/// Connections that are opened in the background at once: far away, opening one takes longer than a
/// poll.
const MAX_RENEWALS: u32 = 3;

/// Connection of its own for polls, so that a pool that is exhausted doesn't keep changes from
/// being read. Clones share it.
#[derive(Clone)]
pub(super) struct Poller(Arc<Inner>);

struct Inner {
    connector: Connector,
    eviction: ConnectionEviction,
    /// Wakes the task that polls.
    poll_requested: Arc<Notify>,
    connections: Mutex<Connections>,
    server: ArcSwapOption<Server>,
    /// Server whose answers are accepted: the one of the last poll.
    expected: ArcSwapOption<ServerId>,
    /// Incremented when the current connections are given up.
    generation: AtomicU64,
    /// Wakes those who wait for a successful poll.
    polled: Notify,
}

#[derive(Default)]
struct Connections {
    /// Connection of the last poll; absent during a poll, and before the first.
    current: Option<PollConnection>,
    /// Connection that was opened in the background to replace the current one.
    next: Option<PollConnection>,
    /// Number of connections that are being opened in the background.
    renewals: u32,
    /// Time at which the last of them began to open.
    renewal_began: Option<Moment>,
    /// Reason why the last of them failed to open.
    renewal_error: Option<StoreError>,
}

impl Poller {
    /// Creates a poller without a connection.
    pub(super) fn new(
        connector: Connector,
        eviction: ConnectionEviction,
        poll_requested: Arc<Notify>,
    ) -> Self {
        Self(Arc::new(Inner {
            connector,
            eviction,
            poll_requested,
            connections: Mutex::default(),
            server: ArcSwapOption::empty(),
            expected: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            polled: Notify::new(),
        }))
    }

    /// Returns the server that answered the last poll; `None` before the first.
    pub(super) fn server(&self) -> Option<Arc<Server>> {
        self.0.server.load_full()
    }

    /// Returns the reason why the connection could not be replaced the last time.
    pub(super) fn renewal_error(&self) -> Option<String> {
        self.0.connections.lock().renewal_error.as_ref().map(ToString::to_string)
    }

    /// Returns the options of its connections.
    pub(super) fn options(&self) -> &AnyConnectOptions {
        self.0.connector.options()
    }

    /// Returns the SQLite file that the last poll read.
    pub(super) fn file(&self) -> Option<FileId> {
        self.0.connections.lock().current.as_ref()?.file
    }

    /// Checks that an answer came from the server of the last poll.
    ///
    /// # Errors
    /// When it came from another one.
    pub(super) fn check_server(&self, server: &ServerId) -> Result<(), NotAuthoritative> {
        match &*self.0.expected.load() {
            Some(expected) if **expected != *server && !mutants::is_on(Mutant::AnyServer) => {
                Err(NotAuthoritative::OtherServer)
            }
            _ => Ok(()),
        }
    }

    /// Gives up the connection, also one that is in use: the next poll opens another.
    pub(super) fn reset(&self) {
        self.0.generation.fetch_add(1, Ordering::AcqRel);
        let mut connections = self.0.connections.lock();
        let dropped = [connections.current.take(), connections.next.take()];
        drop(connections);
        dropped.into_iter().flatten().for_each(PollConnection::close);
    }

    /// Requests a poll on a new connection, and waits for its success: afterwards it is known which
    /// server is the primary, if any is.
    pub(super) async fn verify_primary(&self, max_wait: Duration) {
        let polled = self.0.polled.notified();
        tokio::pin!(polled);
        polled.as_mut().enable();
        self.reset();
        self.0.poll_requested.notify_one();
        let _ = timeout(max_wait, polled).await;
    }

    /// Closes the connection for good.
    pub(super) fn close(&self) {
        self.0.connector.close();
        self.reset();
    }

    /// Runs a statement whose first row has the columns `server_id` and `server_state`, by
    /// `deadline`.
    ///
    /// # Errors
    /// When no connection answers in time, or none that leads to a primary.
    pub(super) async fn fetch(
        &self,
        statement: Statement,
        clock: &Clock,
        timing: PollTiming,
        deadline: Instant,
    ) -> Result<(Vec<AnyRow>, Proof), PollError> {
        let now = clock.moment();
        let generation = self.0.generation.load(Ordering::Acquire);
        let old = self.take_connection(now, timing).map(|connection| self.attempt(connection, &statement));
        let mut race = Race::new(old, timing);
        loop {
            if race.is_idle() {
                if let Some(error) = race.take_outage() {
                    return Err(error);
                }
                race.start_new(self.open_and_attempt(&statement, clock));
            }
            match race.next(deadline).await {
                Step::Old(Ok(answered)) => {
                    if let Some(new) = race.into_new() {
                        self.finish_in_background(new, clock, timing);
                    }
                    return Ok(self.retain(answered, clock, timing, generation));
                }
                Step::Old(Err(error)) => {
                    if let StoreError::NotAuthoritative(reason) = &error {
                        // The pool's connections may lead to the same server.
                        self.0.eviction.evict_all(reason);
                    }
                    race.old_failed(error);
                }
                Step::New(Ok(answered)) => {
                    if race.is_old_dead() {
                        let reason = "one of them failed or didn't answer, while a new one did";
                        self.0.eviction.evict_all(reason);
                    }
                    return Ok(self.retain(answered, clock, timing, generation));
                }
                Step::New(Err(error)) => race.new_failed(error),
                Step::Hedge => race.start_new(self.open_and_attempt(&statement, clock)),
                Step::Deadline => return Err(race.timed_out(self.0.connector.connect_time())),
            }
        }
    }

    /// Takes the newest connection, unless its result would be too old or it may be dead.
    fn take_connection(&self, now: Moment, timing: PollTiming) -> Option<PollConnection> {
        let mut connections = self.0.connections.lock();
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
        let is_idle = now.since(newest.used) > timing.max_idle();
        if is_idle {
            self.0.eviction.evict_all("nothing was polled for long: the process may have stalled");
        }
        if is_idle || newest.file.is_none() && now.since(newest.opened) > timing.lease {
            newest.close();
            return None;
        }
        Some(newest)
    }

    fn open_and_attempt(&self, statement: &Statement, clock: &Clock) -> Attempt {
        let (inner, statement, clock) = (Arc::clone(&self.0), Arc::clone(statement), clock.clone());
        async move {
            let connection = inner.connector.open(&clock).await?;
            inner.connector.fetch(connection, &statement).await
        }
        .boxed()
    }

    fn attempt(&self, connection: PollConnection, statement: &Statement) -> Attempt {
        let (inner, statement) = (Arc::clone(&self.0), Arc::clone(statement));
        async move { inner.connector.fetch(connection, &statement).await }.boxed()
    }

    /// Makes an attempt that is under way the next connection.
    fn finish_in_background(&self, new: Attempt, clock: &Clock, timing: PollTiming) {
        self.0.connections.lock().renewals += 1;
        let (inner, clock) = (Arc::clone(&self.0), clock.clone());
        tokio::spawn(async move {
            let opened = timeout(CONNECT_TIMEOUT, new).await;
            let opened = opened.unwrap_or(Err(StoreError::TimedOut));
            inner.end_renewal(opened.map(|answered| answered.connection), &clock, timing);
        });
    }

    /// Keeps a connection that has just answered, and starts its replacement when that is due.
    fn retain(
        &self,
        Answered { mut connection, rows }: Answered,
        clock: &Clock,
        timing: PollTiming,
        generation: u64,
    ) -> (Vec<AnyRow>, Proof) {
        let now = clock.moment();
        connection.used = now;
        // The file system is asked after each read of SQLite: that needs no new connection.
        let is_file = connection.file.is_some();
        let opened = connection.opened;
        let proof = Proof::new(if is_file { now } else { opened }, connection.server.clone());
        let is_given_up = || self.0.generation.load(Ordering::Acquire) != generation;
        // Whoever gave it up waits for a poll on a new connection, which says who the primary is.
        if self.0.connector.is_closed() || is_given_up() {
            connection.close();
            return (rows, proof);
        }
        self.record_server(&connection, now);
        self.0.polled.notify_waiters();
        let mut connections = self.0.connections.lock();
        if is_given_up() {
            drop(connections);
            connection.close();
            return (rows, proof);
        }
        connections.current = Some(connection);
        if connections.next.is_some() && timing.is_expiring(now.since(opened)) {
            // A newer connection opened meanwhile: what it reads counts for longer.
            self.0.poll_requested.notify_one();
        }
        let newest = connections.renewal_began.map_or(opened, |began| opened.later(began));
        let connect_time = self.0.connector.connect_time();
        if !is_file
            && timing.needs_renewal(now.since(newest), connect_time)
            && connections.renewals < MAX_RENEWALS
        {
            connections.renewals += 1;
            connections.renewal_began = Some(now);
            drop(connections);
            // The new connection is ready shortly before the next poll.
            let delay = timing.interval.saturating_sub(connect_time * 2);
            tokio::spawn(Arc::clone(&self.0).renew(clock.clone(), delay, timing));
        }
        (rows, proof)
    }

    /// Records the server that answers polls. If it is another one than before, connections of the
    /// pool are evicted, as they may lead to the old one.
    fn record_server(&self, connection: &PollConnection, now: Moment) {
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
            self.0.eviction.evict_all("the database's address leads to another server now");
            tracing::warn!(server = %connection.name, before = %before.name, "polls come from another server now");
        } else {
            tracing::debug!(server = %connection.name, "polls come from this server");
        }
        let server = Server { id: connection.server.clone(), name: connection.name.clone(), since: now };
        self.0.server.store(Some(Arc::new(server)));
    }
}

impl Inner {
    /// Opens the next connection after a delay.
    async fn renew(self: Arc<Self>, clock: Clock, delay: Duration, timing: PollTiming) {
        sleep(delay).await;
        let opened = timeout(CONNECT_TIMEOUT, self.connector.open(&clock)).await;
        self.end_renewal(opened.unwrap_or(Err(StoreError::TimedOut)), &clock, timing);
    }

    /// Stores the next connection, or the reason why there is none.
    fn end_renewal(&self, opened: Result<PollConnection, StoreError>, clock: &Clock, timing: PollTiming) {
        let now = clock.moment();
        let mut connections = self.connections.lock();
        connections.renewals -= 1;
        match opened {
            Ok(next) if self.connector.is_closed() => {
                drop(connections);
                next.close();
            }
            Ok(next) => {
                connections.renewal_error = None;
                let is_newer =
                    connections.next.as_ref().is_none_or(|other| other.opened.is_before(next.opened));
                let unused = if is_newer { connections.next.replace(next) } else { Some(next) };
                let current_age = connections.current.as_ref().map(|current| now.since(current.opened));
                drop(connections);
                unused.into_iter().for_each(PollConnection::close);
                if current_age.is_some_and(|age| timing.is_expiring(age)) {
                    self.poll_requested.notify_one();
                }
            }
            Err(error) => {
                if connections.renewal_error.is_none() {
                    tracing::warn!(
                        %error,
                        "no new connection to the database can be opened; without one, the lease expires"
                    );
                }
                connections.renewal_error = Some(error);
                // The next poll tries again at once.
                connections.renewal_began = None;
            }
        }
    }
}
