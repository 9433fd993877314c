//! Readiness state: written by the background ping, read by the probes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::{BootTime, Clock};

/// Age up to which the database's last answer counts as ready.
const MAX_PING_AGE: Duration = Duration::from_secs(1);

/// State that readiness probes report. It never claims more than the last background ping showed.
#[derive(Default)]
pub struct Readiness {
    draining: AtomicBool,
    /// Wakes those who wait for the shutdown.
    drain_begun: Notify,
    /// Start of the last ping that was answered, in microseconds of boot time; 0 before the first.
    last_ping: AtomicU64,
}

impl Readiness {
    /// Records that the database answered a ping that was sent at `sent`.
    pub fn record_ping(&self, sent: BootTime) {
        self.last_ping.store(sent.as_micros().max(1), Ordering::Release);
    }

    /// Makes the process unready for good.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Release);
        self.drain_begun.notify_waiters();
    }

    /// Waits until the process is shutting down.
    pub async fn draining(&self) {
        let begun = self.drain_begun.notified();
        tokio::pin!(begun);
        begun.as_mut().enable();
        if !self.is_draining() {
            begun.await;
        }
    }

    /// Returns true once the process is shutting down.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Returns true if the database answered a recent ping and the process isn't shutting down.
    pub fn is_database_up(&self, clock: &Clock) -> bool {
        let last_ping = self.last_ping.load(Ordering::Acquire);
        let age = clock.boot_now().since(BootTime::from_micros(last_ping));
        last_ping != 0 && age <= MAX_PING_AGE && !self.is_draining()
    }
}
