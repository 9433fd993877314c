//! Failed verifications: all are counted, a few per minute have an event of their own.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::{network as network_json, object};
use crate::clock::BootTime;
use crate::event::{Event, Occurrence, Operation};
use crate::key::KeyId;
use crate::key::NetworkId;
use crate::key::verdict::Denial;

/// Maximum number of events per network and window.
const MAX_EVENTS_PER_WINDOW: u32 = 10;
/// Length of a window.
const WINDOW: Duration = Duration::from_secs(60);

/// A failed verification.
#[derive(Debug, Clone, Copy)]
pub struct Failure<'a> {
    /// Network.
    pub network: NetworkId,
    /// Operation.
    pub operation: Operation,
    /// Reason.
    pub denial: Denial,
    /// The key, if possession of it was proven.
    pub key_id: Option<KeyId>,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// Request id.
    pub request_id: Option<&'a str>,
}

impl Failure<'_> {
    /// Returns the event. `suppressed` failures before it had none.
    pub(super) fn occurrence(&self, suppressed: u64) -> Occurrence {
        let occurrence = Occurrence::new(Event::VerificationFailed, self.network);
        let occurrence = match self.key_id {
            Some(id) => occurrence.of_id(id),
            None => occurrence,
        };
        occurrence
            .with("Operation", Some(self.operation.name()))
            .with("Reason", Some(self.denial.error_code()))
            .with("Dropped", (suppressed > 0).then_some(suppressed))
    }

    pub(super) fn line(&self, occurrence: &Occurrence) -> Map<String, Value> {
        object([
            ("kind", "event".into()),
            ("operation", self.operation.name().into()),
            ("network", network_json(self.network)),
            ("client_address", self.client.map_or(Value::Null, |client| client.to_string().into())),
            ("request_id", self.request_id.into()),
            ("events", vec![occurrence.to_json()].into()),
        ])
    }
}

/// Returns the line for suppressed failures.
pub(super) fn summary(network: NetworkId, occurrence: &Occurrence) -> Map<String, Value> {
    object([
        ("kind", "event".into()),
        ("network", network_json(network)),
        ("events", vec![occurrence.to_json()].into()),
    ])
}

/// Failures of all networks.
#[derive(Default)]
pub(super) struct Failures {
    windows: Mutex<HashMap<NetworkId, Window>>,
    all: AtomicU64,
    suppressed: AtomicU64,
}

/// Window of one network.
struct Window {
    began: BootTime,
    reported: u32,
    suppressed: u64,
}

impl Failures {
    /// Counts a failure. Returns the number of suppressed failures before it if it may have an
    /// event.
    pub(super) fn admit(&self, network: NetworkId, now: BootTime) -> Option<u64> {
        self.all.fetch_add(1, Ordering::Relaxed);
        let mut windows = self.windows.lock();
        let window = windows.entry(network).or_insert(Window { began: now, reported: 0, suppressed: 0 });
        if now.since(window.began) >= WINDOW {
            (window.began, window.reported) = (now, 0);
        }
        if window.reported < MAX_EVENTS_PER_WINDOW {
            window.reported += 1;
            return Some(std::mem::take(&mut window.suppressed));
        }
        window.suppressed += 1;
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Counts failures as suppressed whose event could not be written.
    pub(super) fn add_suppressed(&self, network: NetworkId, count: u64) {
        let mut windows = self.windows.lock();
        if let Some(window) = windows.get_mut(&network) {
            window.suppressed += count;
        }
    }

    /// Takes the numbers of suppressed failures of windows that have ended, of all windows if `now`
    /// is `None`.
    pub(super) fn take_suppressed(&self, now: Option<BootTime>) -> Vec<(NetworkId, u64)> {
        let mut windows = self.windows.lock();
        let mut over = vec![];
        windows.retain(|network, window| {
            let is_over = now.is_none_or(|now| now.since(window.began) >= WINDOW);
            if is_over && window.suppressed > 0 {
                over.push((*network, std::mem::take(&mut window.suppressed)));
                // Kept for a while: if the number can't be written now, it is added back here.
                return true;
            }
            !is_over
        });
        over
    }

    /// Returns the number of all failures, and of those without an event.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.all.load(Ordering::Relaxed), self.suppressed.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const NETWORK: NetworkId = NetworkId::SINGLE;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn ten_failures_a_minute_and_network_are_written_and_all_are_counted() {
        let failures = Failures::default();
        let admit = |network, second| failures.admit(network, at(second));
        for _ in 0..10 {
            assert_eq!(admit(NETWORK, 1), Some(0));
        }
        for _ in 0..5 {
            assert_eq!(admit(NETWORK, 59), None);
        }
        let other = NetworkId::new(Uuid::from_u128(1));
        assert_eq!(admit(other, 59), Some(0), "each network has its own");
        assert_eq!(failures.take_suppressed(Some(at(60))), []);
        assert_eq!(admit(NETWORK, 61), Some(5), "the next says how many there were");
        for _ in 0..9 {
            assert_eq!(admit(NETWORK, 61), Some(0));
        }
        assert_eq!(admit(NETWORK, 61), None);
        assert_eq!(failures.take_suppressed(Some(at(121))), [(NETWORK, 1)], "or the end of the minute does");
        assert_eq!(failures.take_suppressed(Some(at(121))), []);
        assert_eq!(failures.totals(), (27, 6));
    }

    #[test]
    fn suppressed_failures_that_could_not_be_written_are_kept() {
        let failures = Failures::default();
        for _ in 0..12 {
            failures.admit(NETWORK, at(1));
        }
        assert_eq!(failures.take_suppressed(None), [(NETWORK, 2)]);
        failures.add_suppressed(NETWORK, 2);
        assert_eq!(failures.take_suppressed(None), [(NETWORK, 2)]);
    }
}
