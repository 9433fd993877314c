//! Expiry of tokens that outlive the settings under which they were derived.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::BootTime;

/// Latest expiry of tokens derived under a longer `credentials.derived_tokens.max_ttl` than the one
/// in force.
///
/// Talos rejects such a token once it is older than the setting allows. A backend that verifies it
/// with the published keys doesn't know the setting and accepts the token until its `exp`.
#[derive(Debug, Default)]
pub struct Outstanding(AtomicU64);

impl Outstanding {
    /// Records that a token expires `ttl` after `now` at the latest.
    pub fn note(&self, now: BootTime, ttl: Duration) {
        let ttl = u64::try_from(ttl.as_micros()).unwrap_or(u64::MAX);
        self.0.fetch_max(now.as_micros().saturating_add(ttl), Ordering::Relaxed);
    }

    /// Returns the time until the last of them expires.
    pub fn left(&self, now: BootTime) -> Duration {
        BootTime::from_micros(self.0.load(Ordering::Relaxed)).since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_one_counts_and_less_and_less() {
        let (start, outstanding) = (BootTime::from_micros(5_000_000), Outstanding::default());
        assert_eq!(outstanding.left(start), Duration::ZERO);
        outstanding.note(start, Duration::from_secs(10));
        outstanding.note(start, Duration::from_secs(3));
        assert_eq!(outstanding.left(start), Duration::from_secs(10));
        assert_eq!(outstanding.left(BootTime::from_micros(9_000_000)), Duration::from_secs(6));
        assert_eq!(outstanding.left(BootTime::from_micros(15_000_000)), Duration::ZERO);
        outstanding.note(start, Duration::MAX);
        assert!(outstanding.left(start) > Duration::from_secs(1 << 40));
    }
}
