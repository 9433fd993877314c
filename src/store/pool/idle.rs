//! Idle connections in front of sqlx's pool, used again without a ping when they worked lately.
//!
//! sqlx's pool pings a connection when it is acquired, and again when it is released: two round
//! trips beside the one of the statement. A connection that answered a moment ago needs no ping.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::Any;
use sqlx::pool::PoolConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// Time without a response after which a connection is dead.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time after its last use for which a connection needs no ping. It is shorter than the time
/// between two pings of the database, so that those always test a connection.
pub(super) const MAX_IDLE_UNPINGED: Duration = Duration::from_millis(250);
/// Time that a connection may stay outside of sqlx's pool, which closes connections that are too
/// old.
const MAX_OUTSIDE: Duration = Duration::from_secs(10);

/// Connection that is outside of sqlx's pool.
pub(super) struct IdleConnection {
    pub connection: PoolConnection<Any>,
    /// Time since when it is outside.
    pub outside_since: Instant,
    used: Instant,
}

/// Idle connections of one pool. Clones share them.
#[derive(Clone)]
pub(super) struct IdleConnections {
    connections: Arc<Mutex<Vec<IdleConnection>>>,
    /// One permit per connection that may be open: with a permit there is one here or in sqlx's
    /// pool.
    permits: Arc<Semaphore>,
    max_outside: Duration,
}

impl IdleConnections {
    /// Creates an empty set for a pool of `max_connections`.
    pub(super) fn new(max_connections: u32, max_lifetime: Option<Duration>) -> Self {
        let permits = Arc::new(Semaphore::new(usize::try_from(max_connections).unwrap_or(1)));
        let max_outside = max_lifetime.map_or(MAX_OUTSIDE, |lifetime| lifetime.min(MAX_OUTSIDE));
        Self { connections: Arc::default(), permits, max_outside }
    }

    /// Waits for a permit, in the order of the callers.
    pub(super) async fn acquire(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }

    /// Takes the connection that was used last, and returns true with it if it needs no ping.
    /// Evicted connections are returned to sqlx's pool.
    pub(super) fn pop(
        &self,
        is_evicted: impl Fn(Instant) -> bool,
        now: Instant,
    ) -> Option<(IdleConnection, bool)> {
        let mut connections = self.connections.lock();
        while let Some(newest) = connections.pop() {
            if !is_evicted(newest.outside_since) {
                let is_recent = now - newest.used < MAX_IDLE_UNPINGED;
                return Some((newest, is_recent));
            }
            return_to_pool(newest.connection);
        }
        None
    }

    /// Adds a connection that has just worked, unless its pool `is_closed`. Connections that are
    /// idle for a while are returned to sqlx's pool.
    pub(super) fn push(
        &self,
        connection: PoolConnection<Any>,
        outside_since: Instant,
        is_closed: impl Fn() -> bool,
        now: Instant,
    ) {
        let mut connections = self.connections.lock();
        // Checked under the lock, as closing the pool clears this set afterwards.
        if is_closed() || now - outside_since >= self.max_outside {
            drop(connections);
            return return_to_pool(connection);
        }
        let stale = connections.iter().take_while(|idle| now - idle.used >= MAX_IDLE_UNPINGED).count();
        connections.drain(..stale).for_each(|idle| return_to_pool(idle.connection));
        connections.push(IdleConnection { connection, outside_since, used: now });
    }

    /// Returns all connections to sqlx's pool.
    pub(super) fn clear(&self) {
        self.connections.lock().drain(..).for_each(|idle| return_to_pool(idle.connection));
    }

    /// Returns the number of connections.
    pub(super) fn len(&self) -> usize {
        self.connections.lock().len()
    }
}

/// Returns a connection to sqlx's pool. That pings it, as dropping it does, but with a timeout.
pub(super) fn return_to_pool(mut connection: PoolConnection<Any>) {
    let returned = connection.return_to_pool();
    tokio::spawn(async move {
        let _ = timeout(RESPONSE_TIMEOUT, returned).await;
    });
}
