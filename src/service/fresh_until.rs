//! Time until which an answer counts, for others that cache answers.

use super::Service;
use crate::cache::memory::Entry;
use crate::clock::Timestamp;

impl Service {
    /// Returns the time until which an answer about a key counts: the end of the lease, or of the
    /// key if that is sooner; now, if its uses cost credits. While the database can't be asked, it
    /// lies in the past.
    pub fn fresh_until(&self, entry: &Entry) -> Timestamp {
        if entry.key.credits.is_some() {
            // Each use costs something, so an answer counts once.
            return self.clock.now();
        }
        let lease = self.freshness.lease_end().unwrap_or(Timestamp::from_secs(0));
        entry.end().map_or(lease, |end| end.min(lease))
    }

    /// Returns the time until which an answer about a token that ends at `expires` counts. There is
    /// no lease on tokens; only the deny list can end one sooner.
    pub fn token_fresh_until(&self, expires: Timestamp) -> Timestamp {
        expires.min(self.clock.now().plus(self.freshness.config().lease))
    }
}
