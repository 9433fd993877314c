//! Credentials that fail: each is counted, a few a minute are told of.

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

/// How many failures of a network are told of one by one …
const EVENTS: u32 = 10;
/// … in so much time.
const WINDOW: Duration = Duration::from_secs(60);

/// A credential that failed.
#[derive(Debug, Clone, Copy)]
pub struct Failure<'a> {
    /// Where.
    pub network: NetworkId,
    /// What was asked for.
    pub operation: Operation,
    /// Why it failed.
    pub denial: Denial,
    /// The key, if possession of it was proven.
    pub key_id: Option<KeyId>,
    /// From where it came.
    pub client: Option<IpAddr>,
    /// The request that it came with.
    pub request_id: Option<&'a str>,
}

impl Failure<'_> {
    /// The event; `dropped` were not told of since the last.
    pub(super) fn occurrence(&self, dropped: u64) -> Occurrence {
        let occurrence = Occurrence::new(Event::VerificationFailed, self.network);
        let occurrence = match self.key_id {
            Some(id) => occurrence.of_id(id),
            None => occurrence,
        };
        occurrence
            .with("Operation", Some(self.operation.name()))
            .with("Reason", Some(self.denial.error_code()))
            .with("Dropped", (dropped > 0).then_some(dropped))
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

/// The line for failures of which only the number is told.
pub(super) fn summary(network: NetworkId, occurrence: &Occurrence) -> Map<String, Value> {
    object([
        ("kind", "event".into()),
        ("network", network_json(network)),
        ("events", vec![occurrence.to_json()].into()),
    ])
}

/// The failures of all networks.
#[derive(Default)]
pub(super) struct Failures {
    windows: Mutex<HashMap<NetworkId, Window>>,
    all: AtomicU64,
    held_back: AtomicU64,
}

/// A minute of one network.
struct Window {
    began: BootTime,
    told: u32,
    held_back: u64,
}

impl Failures {
    /// Counts a failure. Some if it may be told of, with how many were held back before it.
    pub fn admit(&self, network: NetworkId, now: BootTime) -> Option<u64> {
        self.all.fetch_add(1, Ordering::Relaxed);
        let mut windows = self.windows.lock();
        let window = windows.entry(network).or_insert(Window { began: now, told: 0, held_back: 0 });
        if now.since(window.began) >= WINDOW {
            (window.began, window.told) = (now, 0);
        }
        if window.told < EVENTS {
            window.told += 1;
            return Some(std::mem::take(&mut window.held_back));
        }
        window.held_back += 1;
        self.held_back.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Takes back that some were told of.
    pub fn hold_back(&self, network: NetworkId, count: u64) {
        let mut windows = self.windows.lock();
        if let Some(window) = windows.get_mut(&network) {
            window.held_back += count;
        }
    }

    /// How many were held back in minutes that are over; all that were when `now` is None.
    pub fn over(&self, now: Option<BootTime>) -> Vec<(NetworkId, u64)> {
        let mut windows = self.windows.lock();
        let mut over = vec![];
        windows.retain(|network, window| {
            let is_over = now.is_none_or(|now| now.since(window.began) >= WINDOW);
            if is_over && window.held_back > 0 {
                over.push((*network, std::mem::take(&mut window.held_back)));
                // Stays for a while: if they can't be told of now, they are counted here again.
                return true;
            }
            !is_over
        });
        over
    }

    /// All failures, and those that were not told of one by one.
    pub fn totals(&self) -> (u64, u64) {
        (self.all.load(Ordering::Relaxed), self.held_back.load(Ordering::Relaxed))
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
    fn ten_a_minute_and_network_are_told_of_and_all_are_counted() {
        let failures = Failures::default();
        let told = |network, second| failures.admit(network, at(second));
        for _ in 0..10 {
            assert_eq!(told(NETWORK, 1), Some(0));
        }
        for _ in 0..5 {
            assert_eq!(told(NETWORK, 59), None);
        }
        let other = NetworkId::new(Uuid::from_u128(1));
        assert_eq!(told(other, 59), Some(0), "each network has its own");
        assert_eq!(failures.over(Some(at(60))), []);
        assert_eq!(told(NETWORK, 61), Some(5), "the next says how many there were");
        for _ in 0..9 {
            assert_eq!(told(NETWORK, 61), Some(0));
        }
        assert_eq!(told(NETWORK, 61), None);
        assert_eq!(failures.over(Some(at(121))), [(NETWORK, 1)], "or the end of the minute does");
        assert_eq!(failures.over(Some(at(121))), []);
        assert_eq!(failures.totals(), (27, 6));
    }

    #[test]
    fn what_could_not_be_told_of_is_not_forgotten() {
        let failures = Failures::default();
        for _ in 0..12 {
            failures.admit(NETWORK, at(1));
        }
        assert_eq!(failures.over(None), [(NETWORK, 2)]);
        failures.hold_back(NETWORK, 2);
        assert_eq!(failures.over(None), [(NETWORK, 2)]);
    }
}
