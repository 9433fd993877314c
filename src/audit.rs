//! The audit log: changes, and secrets that were returned.
//!
//! A call writes one line before anything is done and one before it is answered. Each line is
//! chained to the one before by a MAC.

mod actor_changes;
mod behind;
mod call;
mod chain;
pub mod changes;
mod confirmed;
mod failures;
mod file;
mod log;
mod merge;
mod outside;
mod parts;
mod recorded;
pub mod repeat;
mod tail;
pub mod verify;
mod writable;
mod writer;

pub use behind::{Lacking, MARKER_EXTENSION};
pub use call::{Call, Origin, Outcome};
pub use chain::{ChainKey, ChainKeys};
pub use failures::Failure;
pub use log::{AuditError, AuditLog, HeadReporter, WriteFailed, check_writable, instance, is_in_use};
pub use outside::OutsideChange;
pub use writer::{LogSettings, NoticedChange};

use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::BootTime;
use crate::event::{Event, Occurrence};
use crate::key::NetworkId;
use failures::Failures;

/// Interval at which suppressed failures are reported and the file is checked.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);
/// Rounds of maintenance between two looks at what the database lacks.
const RECHECK_ROUNDS: u32 = 5;

/// Audit records and their log. Without a log nothing is written, but failures are still counted.
#[derive(Default)]
pub struct Audit {
    log: Option<AuditLog>,
    failures: Failures,
}

impl Audit {
    /// Creates the audit. Records go to `log`, if there is one.
    pub fn new(log: Option<AuditLog>) -> Self {
        Self { log, failures: Failures::default() }
    }

    /// Returns the log.
    pub fn log(&self) -> Option<&AuditLog> {
        self.log.as_ref()
    }

    /// Returns the number of failed verifications, and how many of those had no event of their own.
    pub fn failures(&self) -> (u64, u64) {
        self.failures.totals()
    }

    /// Records a failed verification.
    ///
    /// Ten per minute and network have an event of their own; of the others the number is recorded.
    pub fn record_failure(&self, failure: &Failure<'_>, now: BootTime) {
        let Some(before) = self.failures.admit(failure.network, now) else {
            return;
        };
        let occurrence = failure.occurrence(before);
        trace(&occurrence);
        if let Some(log) = &self.log
            && !log.enqueue(failure.line(&occurrence))
        {
            self.failures.add_suppressed(failure.network, before + 1);
        }
    }

    /// Reports the number of suppressed failures, of windows that have ended before `now`, or of
    /// all.
    pub fn report_suppressed(&self, now: Option<BootTime>) {
        for (network, suppressed) in self.failures.take_suppressed(now) {
            let occurrence = Occurrence::new(Event::VerificationFailed, network)
                .with("Operation", Some("summary"))
                .with("Dropped", Some(suppressed));
            trace(&occurrence);
            if let Some(log) = &self.log
                && !log.enqueue(failures::summary(network, &occurrence))
            {
                self.failures.add_suppressed(network, suppressed);
            }
        }
    }

    /// Reports suppressed failures and checks the file, for ever.
    pub async fn run_maintenance(&self, clock: &crate::clock::Clock) {
        for round in (0..RECHECK_ROUNDS).cycle() {
            tokio::time::sleep(MAINTENANCE_INTERVAL).await;
            self.report_suppressed(Some(clock.boot_now()));
            if let Some(log) = &self.log {
                log.check_file();
                if round == 0 {
                    log.behind().recheck().await;
                }
            }
        }
    }
}

/// Adds an event to the current trace span.
fn trace(occurrence: &Occurrence) {
    let attributes = occurrence.attributes().map(|(name, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (name, text)
    });
    crate::trace::add_event(occurrence.event.name(), attributes);
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Map<String, Value> {
    members
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn network(network: NetworkId) -> Value {
    network.to_string().into()
}
