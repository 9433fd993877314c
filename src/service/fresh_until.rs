//! Time until which an answer counts, for others that cache answers.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Service;
use crate::cache::freshness::Freshness;
use crate::cache::memory::Entry;
use crate::clock::Timestamp;

/// Wall time at which a lease ends, computed once for each lease.
#[derive(Default)]
pub(super) struct LeaseEnd {
    /// Boot time from which the lease counts; 0 before the first.
    lease: AtomicU64,
    /// End of that lease, or of a later one: it is stored first.
    end: AtomicI64,
    computing: Mutex<()>,
}

impl LeaseEnd {
    /// Returns the end of the lease; `None` before the first.
    fn get(&self, freshness: &Freshness) -> Option<Timestamp> {
        let lease = freshness.lease_start()?.as_micros();
        if self.lease.load(Ordering::Acquire) == lease {
            return Some(Timestamp::from_micros(self.end.load(Ordering::Relaxed)));
        }
        let _computing = self.computing.lock();
        let lease = freshness.lease_start()?.as_micros();
        let end = freshness.lease_end()?;
        self.end.store(end.as_micros(), Ordering::Relaxed);
        self.lease.store(lease, Ordering::Release);
        Some(end)
    }
}

impl Service {
    /// Returns the time until which an answer about a key counts: the end of the lease, or of the
    /// key if that is sooner; now, if its uses cost credits. While the database can't be asked, it
    /// lies in the past.
    pub fn fresh_until(&self, entry: &Entry) -> Timestamp {
        if entry.key.credits.is_some() {
            // Each use costs something, so an answer counts once.
            return self.clock.now();
        }
        let lease = self.lease_end.get(&self.freshness).unwrap_or(Timestamp::from_secs(0));
        entry.end().map_or(lease, |end| end.min(lease))
    }

    /// Returns the time until which an answer about a token that ends at `expires` counts. There is
    /// no lease on tokens; only the deny list can end one sooner.
    pub fn token_fresh_until(&self, expires: Timestamp) -> Timestamp {
        expires.min(self.clock.now().plus(self.freshness.config().lease))
    }
}
