//! Detection of a stalled process: one that was stopped, or whose machine was suspended.

use std::time::Duration;

use crate::clock::BootTime;

/// Notices gaps between observations of the clock.
pub(super) struct StallDetector {
    last: BootTime,
    limit: Duration,
    has_stalled: bool,
}

impl StallDetector {
    /// Starts at `now`. A gap up to `limit` can be a busy machine.
    pub(super) fn new(now: BootTime, limit: Duration) -> Self {
        Self { last: now, limit, has_stalled: false }
    }

    /// Returns the time between two observations.
    pub(super) fn interval(&self) -> Duration {
        self.limit / 5
    }

    /// Observes the clock.
    pub(super) fn observe(&mut self, now: BootTime) {
        self.has_stalled |= now.since(self.last) > self.limit;
        self.last = now;
    }

    /// Returns true if any gap was longer than the limit.
    pub(super) fn has_stalled(&self) -> bool {
        self.has_stalled
    }
}
