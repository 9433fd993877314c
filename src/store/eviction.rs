//! Eviction of connections: those that were opened before some moment aren't used any more, in any
//! of the pools.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Time within which a further eviction isn't logged.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Time at which a connection was last found to be dead or to lead to the wrong server. Clones
/// share it.
#[derive(Clone, Default)]
pub(super) struct ConnectionEviction(Arc<Mutex<Option<Instant>>>);

impl ConnectionEviction {
    /// Evicts every connection that was opened before now.
    pub(super) fn evict_all(&self, reason: impl Display) {
        let now = Instant::now();
        let before = self.0.lock().replace(now);
        if before.is_none_or(|before| now - before > LOG_INTERVAL) {
            tracing::warn!(%reason, "connections to the database are closed and opened anew");
        }
    }

    /// Returns true if a connection of this age is evicted.
    pub(super) fn is_evicted(&self, age: Duration, now: Instant) -> bool {
        let evicted = *self.0.lock();
        evicted.is_some_and(|evicted| now.saturating_duration_since(evicted) < age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_connections_are_evicted_and_newer_ones_are_not() {
        let eviction = ConnectionEviction::default();
        let (sibling, second) = (eviction.clone(), Duration::from_secs(1));
        assert!(!sibling.is_evicted(second * 1_000, Instant::now()));
        let before = Instant::now();
        eviction.evict_all("a test");
        let later = Instant::now() + second * 10;
        assert!(sibling.is_evicted(later - before, later), "opened just before");
        assert!(!sibling.is_evicted(second * 9, later), "opened after");
    }
}
