//! Connections that were of use lately: lent again as they are, after a while once they have shown that they still are of
//! use.
//!
//! The library's pool asks the server whether it is still there when it lends a connection, and once more when it takes
//! it back: two round trips beside the one that a read needs. Who answered a moment ago need not be asked.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::Any;
use sqlx::pool::PoolConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::SILENCE;

/// How long a connection is trusted after it was of use. Shorter than the time between two pings, so that these always
/// test one.
pub(super) const TRUST: Duration = Duration::from_millis(250);
/// How long it may stay out of the library's pool, which ends those that are too old: at most as long as they may live.
const AWAY: Duration = Duration::from_secs(10);

/// A connection, and how long it has been out of the library's pool.
pub(super) struct Warm {
    pub connection: PoolConnection<Any>,
    pub since: Instant,
    used: Instant,
}

/// The connections of one pool.
#[derive(Clone)]
pub(super) struct WarmOnes {
    connections: Arc<Mutex<Vec<Warm>>>,
    /// As many as there may be connections: whoever has one finds a connection here or in the library's pool.
    permits: Arc<Semaphore>,
    away: Duration,
}

impl WarmOnes {
    /// Of a pool of so many, each of which may live so long.
    pub fn new(connections: u32, lifetime: Option<Duration>) -> Self {
        let permits = Arc::new(Semaphore::new(usize::try_from(connections).unwrap_or(1)));
        let away = lifetime.map_or(AWAY, |lifetime| lifetime.min(AWAY));
        Self { connections: Arc::default(), permits, away }
    }

    /// Waits until there is a connection to be had; in the order of asking.
    pub async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }

    /// The one that was used last, and whether that was so short a while ago that it needn't be asked; those that are
    /// suspect go back.
    pub fn take(&self, is_suspect: impl Fn(Instant) -> bool, now: Instant) -> Option<(Warm, bool)> {
        let mut connections = self.connections.lock();
        while let Some(newest) = connections.pop() {
            if !is_suspect(newest.since) {
                let is_trusted = now - newest.used < TRUST;
                return Some((newest, is_trusted));
            }
            give_back(newest.connection);
        }
        None
    }

    /// Keeps a connection that has just been of use, unless its pool `is_closed`. Those that nobody needed for a while go
    /// back.
    pub fn put(
        &self,
        connection: PoolConnection<Any>,
        since: Instant,
        is_closed: impl Fn() -> bool,
        now: Instant,
    ) {
        let mut connections = self.connections.lock();
        // Asked under the lock: whoever closes the pool looks in here afterwards.
        if is_closed() || now - since >= self.away {
            drop(connections);
            return give_back(connection);
        }
        let cold = connections.iter().take_while(|warm| now - warm.used >= TRUST).count();
        connections.drain(..cold).for_each(|warm| give_back(warm.connection));
        connections.push(Warm { connection, since, used: now });
    }

    /// Gives all back.
    pub fn clear(&self) {
        self.connections.lock().drain(..).for_each(|warm| give_back(warm.connection));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.connections.lock().len()
    }
}

/// Returns a connection to the library's pool as dropping it does, which asks the server whether it is still there, but
/// not for ever.
pub(super) fn give_back(mut connection: PoolConnection<Any>) {
    let returned = connection.return_to_pool();
    tokio::spawn(async move {
        let _ = timeout(SILENCE, returned).await;
    });
}
