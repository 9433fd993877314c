//! Times at which the poll connection is replaced, and given up.

use std::time::Duration;

/// Settings of the lease that decide when a poll connection is replaced.
#[derive(Debug, Clone, Copy)]
pub struct PollTiming {
    /// Time for which the result of a poll is valid (`consistency.lease`).
    pub lease: Duration,
    /// Time from the start of a poll to that of the next (`consistency.poll`).
    pub interval: Duration,
}

impl PollTiming {
    /// Returns the time without an answer after which a new connection is tried as well.
    pub(super) fn hedge_delay(self) -> Duration {
        self.lease / 5
    }

    /// Returns the time without a poll after which the process must have stalled, and its
    /// connections may be dead.
    pub fn max_idle(self) -> Duration {
        self.lease.max(self.interval * 2)
    }

    /// Returns the time after which a new connection without an answer is evidence of an outage:
    /// three times what the last connection took to open, within bounds.
    pub(super) fn outage_delay(self, connect_time: Duration) -> Duration {
        const CONNECT_TIME_FACTOR: u32 = 3;
        let least = (self.lease / 2).min(Duration::from_secs(1));
        least.max(connect_time * CONNECT_TIME_FACTOR).min(self.lease.mul_f64(0.9))
    }

    /// Returns true if the poll after the next needs a newer connection than one of this age, given
    /// the time that opening one takes.
    pub(super) fn needs_renewal(self, age: Duration, connect_time: Duration) -> bool {
        age + self.interval * 2 + connect_time > self.lease / 2
    }

    /// Returns true if results of a connection of this age won't be valid for much longer.
    pub(super) fn is_expiring(self, age: Duration) -> bool {
        age > self.lease / 2
    }
}
