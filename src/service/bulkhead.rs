//! Between what anybody can make up and the connections that everybody needs.
//!
//! An issued key proves itself before anything is looked up. What looks like an imported one may be a key or anything
//! else: only the database can tell. So no more than a quarter of its connections is ever busy with those that nobody
//! here has seen before, and no more than a few wait for that: a flood of them is a flood of 503, and everybody else
//! doesn't notice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// How many may wait for each of those that may enter.
const QUEUE: usize = 32;
/// How long one may wait: whoever asked gives up soon after.
const PATIENCE: Duration = Duration::from_millis(100);

/// The compartment of those lookups.
pub struct Bulkhead {
    permits: Semaphore,
    /// Those inside and those that wait.
    room: Semaphore,
    refused: AtomicU64,
}

/// One lookup's place, until it is dropped.
pub(super) struct Inside<'a> {
    _permit: SemaphorePermit<'a>,
    _room: SemaphorePermit<'a>,
}

impl Bulkhead {
    /// For a pool of that many connections.
    pub fn new(connections: u32) -> Self {
        let permits = usize::try_from(connections / 4).unwrap_or(0).max(1);
        Self {
            permits: Semaphore::new(permits),
            room: Semaphore::new(permits * (1 + QUEUE)),
            refused: AtomicU64::new(0),
        }
    }

    /// Lets one lookup in, or not.
    pub(super) async fn enter(&self) -> Option<Inside<'_>> {
        let inside = async {
            let room = self.room.try_acquire().ok()?;
            let permit = tokio::time::timeout(PATIENCE, self.permits.acquire()).await.ok()?.ok()?;
            Some(Inside { _permit: permit, _room: room })
        };
        let inside = inside.await;
        if inside.is_none() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        inside
    }

    /// How many it didn't let in, ever.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn few_are_inside_some_wait_and_the_rest_is_sent_away() {
        let bulkhead = Bulkhead::new(8);
        let inside = [bulkhead.enter().await.unwrap(), bulkhead.enter().await.unwrap()];
        let waiting = (0..2 * QUEUE).map(|_| bulkhead.enter());
        let (waited, next) = tokio::join!(futures_util::future::join_all(waiting), async {
            // They stand in the queue by now: the next one doesn't.
            bulkhead.enter().await
        });
        assert!(next.is_none());
        assert!(waited.iter().all(Option::is_none), "nobody went out");
        assert_eq!(bulkhead.refused(), 2 * QUEUE as u64 + 1);
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
