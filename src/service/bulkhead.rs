//! Bulkhead: caps the database connections that unauthenticated lookups may hold.
//!
//! An issued key proves itself before anything is looked up. A credential that looks like an
//! imported key may be one or may be garbage, and only the database can tell. So lookups of
//! credentials that this instance has never seen hold at most a quarter of the connections, and few
//! more wait for those. A flood of garbage gets 503s, and other requests keep their connections.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Waiting lookups per permit.
const MAX_WAITING: usize = 32;
/// Maximum wait for a permit. Clients give up soon after.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// Limit on lookups of credentials that may be made up.
pub struct Bulkhead {
    permits: Semaphore,
    /// Lookups that run or wait.
    room: Semaphore,
    refused: AtomicU64,
}

/// Permit for one lookup, held until dropped.
pub(super) struct BulkheadPermit<'a> {
    _permit: SemaphorePermit<'a>,
    _room: SemaphorePermit<'a>,
}

impl Bulkhead {
    /// Creates a bulkhead for a pool of `connections` connections.
    pub fn new(connections: u32) -> Self {
        let permits = usize::try_from(connections / 4).unwrap_or(0).max(1);
        Self {
            permits: Semaphore::new(permits),
            room: Semaphore::new(permits * (1 + MAX_WAITING)),
            refused: AtomicU64::new(0),
        }
    }

    /// Waits for a permit. Returns `None` if too many wait already, or after `MAX_WAIT`.
    pub(super) async fn enter(&self) -> Option<BulkheadPermit<'_>> {
        let permit = async {
            let room = self.room.try_acquire().ok()?;
            let permit = tokio::time::timeout(MAX_WAIT, self.permits.acquire()).await.ok()?.ok()?;
            Some(BulkheadPermit { _permit: permit, _room: room })
        };
        let permit = permit.await;
        if permit.is_none() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        permit
    }

    /// Returns the number of lookups that got no permit.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn few_lookups_run_some_wait_and_the_rest_are_refused() {
        let bulkhead = Bulkhead::new(8);
        let inside = [bulkhead.enter().await.unwrap(), bulkhead.enter().await.unwrap()];
        let waiting = (0..2 * MAX_WAITING).map(|_| bulkhead.enter());
        let (waited, next) = tokio::join!(futures_util::future::join_all(waiting), async {
            // The queue is full by now.
            bulkhead.enter().await
        });
        assert!(next.is_none());
        assert!(waited.iter().all(Option::is_none), "nobody went out");
        assert_eq!(bulkhead.refused(), 2 * MAX_WAITING as u64 + 1);
        let (next, ()) = tokio::join!(bulkhead.enter(), async { drop(inside) });
        assert!(next.is_some());
    }

    #[tokio::test]
    async fn the_smallest_pool_lets_one_in() {
        for connections in [0, 1, 3] {
            assert!(Bulkhead::new(connections).enter().await.is_some());
        }
    }
}
