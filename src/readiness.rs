//! Whether this process is ready: what the background ping notes and the probes read.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::{BootTime, Clock};

/// Oldest answer of the database that still counts as ready.
const MAX_PING_AGE: Duration = Duration::from_secs(1);

/// What readiness probes are told: never more than the last background ping says.
#[derive(Default)]
pub struct Readiness {
    draining: AtomicBool,
    /// Boot time, in microseconds, at which the last ping that was answered began; 0 before the first.
    pinged: AtomicU64,
}

impl Readiness {
    /// Notes that the database answered a ping that began at `at`.
    pub fn database_answered(&self, at: BootTime) {
        self.pinged.store(at.as_micros().max(1), Ordering::Release);
    }

    /// From now on we are never ready again.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether we are on our way out.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether the database has answered lately.
    pub fn database_answers(&self, clock: &Clock) -> bool {
        let pinged = self.pinged.load(Ordering::Acquire);
        let age = clock.boot().since(BootTime::from_micros(pinged));
        pinged != 0 && age <= MAX_PING_AGE && !self.is_draining()
    }
}
