//! Connections that were made before a certain moment are not trusted any more, in any of the pools.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What is found out again within this time isn't logged again.
const QUIET: Duration = Duration::from_secs(1);

/// When a connection was last found to lead nowhere, or to the wrong server. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Suspicion(Arc<Mutex<Option<Instant>>>);

impl Suspicion {
    /// Distrusts every connection that was made before now.
    pub fn raise(&self, reason: impl Display) {
        let now = Instant::now();
        let before = self.0.lock().replace(now);
        if before.is_none_or(|before| now - before > QUIET) {
            tracing::warn!(%reason, "connections to the database are closed and made anew");
        }
    }

    /// Whether a connection of that age was made before there was a reason to distrust it.
    pub fn is_against(&self, age: Duration, now: Instant) -> bool {
        let raised = *self.0.lock();
        raised.is_some_and(|raised| now.saturating_duration_since(raised) < age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_against_what_is_older_than_it() {
        let suspicion = Suspicion::default();
        let (sibling, second) = (suspicion.clone(), Duration::from_secs(1));
        assert!(!sibling.is_against(second * 1_000, Instant::now()));
        let before = Instant::now();
        suspicion.raise("a test");
        let later = Instant::now() + second * 10;
        assert!(sibling.is_against(later - before, later), "made just before");
        assert!(!sibling.is_against(second * 9, later), "made after");
    }
}
