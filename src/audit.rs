//! The audit log: who changed what, and who was shown a secret. A line before anything is done, a line before it is
//! answered, each chained to the one before.

mod call;
mod chain;
mod failures;
mod file;
mod log;
pub mod verify;
mod writer;

pub use call::{Call, Ended, Origin};
pub use chain::{ChainKey, ChainKeys};
pub use failures::Failure;
pub use log::{AuditError, AuditLog, Heads, Unrecorded, instance};
pub use writer::LogSettings;

use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::BootTime;
use crate::event::{Event, Occurrence};
use crate::key::NetworkId;
use failures::Failures;

/// How often what was held back is told, and the file looked after.
const LOOK: Duration = Duration::from_secs(1);

/// What is recorded, and where. Without a log nothing is written; failures are counted all the same.
#[derive(Default)]
pub struct Audit {
    log: Option<AuditLog>,
    failures: Failures,
}

impl Audit {
    /// What is recorded goes to `log`, if there is one.
    pub fn new(log: Option<AuditLog>) -> Self {
        Self { log, failures: Failures::default() }
    }

    /// The log.
    pub fn log(&self) -> Option<&AuditLog> {
        self.log.as_ref()
    }

    /// Credentials that failed, and how many of those only their number is told.
    pub fn failures(&self) -> (u64, u64) {
        self.failures.totals()
    }

    /// Notes that a credential failed: ten a minute and network are told of one by one, the others by their number.
    pub fn failed(&self, failure: &Failure<'_>, now: BootTime) {
        let Some(before) = self.failures.admit(failure.network, now) else {
            return;
        };
        let occurrence = failure.occurrence(before);
        trace(&occurrence);
        if let Some(log) = &self.log
            && !log.write_later(failure.line(&occurrence))
        {
            self.failures.hold_back(failure.network, before + 1);
        }
    }

    /// Tells of failures that were held back in minutes that are over.
    pub fn tell_of_failures(&self, now: Option<BootTime>) {
        for (network, dropped) in self.failures.over(now) {
            let occurrence = Occurrence::new(Event::VerificationFailed, network)
                .with("Operation", Some("summary"))
                .with("Dropped", Some(dropped));
            trace(&occurrence);
            if let Some(log) = &self.log
                && !log.write_later(failures::summary(network, &occurrence))
            {
                self.failures.hold_back(network, dropped);
            }
        }
    }

    /// Looks after the log and what was held back, for ever.
    pub async fn look_after(&self, clock: &crate::clock::Clock) {
        loop {
            tokio::time::sleep(LOOK).await;
            self.tell_of_failures(Some(clock.boot_now()));
            if let Some(log) = &self.log {
                log.look();
            }
        }
    }
}

/// Puts an event into the span that it happened in.
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
