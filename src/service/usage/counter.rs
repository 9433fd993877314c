//! Counting of Checks on the threads of the authz plane.

use std::cell::RefCell;
use std::hash::BuildHasherDefault;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::ALLOW;
use super::rows::{CheckKey, CheckRow, CheckTable, CountedKey, hour_of};
use crate::clock::{BootTime, Timestamp};
use crate::key::{KeyId, NetworkId};
use crate::settings::policy::RouteName;

/// Rows at which a thread hands its table over before its time. While it can't, further rows are
/// counted together.
const MAX_TABLE_ROWS: usize = 8_192;
/// Longest time between two handovers of a thread's table.
const MAX_HANDOVER_INTERVAL: Duration = Duration::from_secs(1);

thread_local! {
    static TABLE: RefCell<ThreadTable> = const { RefCell::new(ThreadTable::new()) };
}

/// Checks that this thread has counted and not handed over yet.
struct ThreadTable {
    rows: CheckTable,
    /// Number of all Checks that were counted here.
    checks: u64,
    /// Start of the hour in which Checks count.
    hour: Option<Timestamp>,
}

impl ThreadTable {
    const fn new() -> Self {
        Self { rows: CheckTable::with_hasher(BuildHasherDefault::new()), checks: 0, hour: None }
    }
}

/// Attributes of a Check, as far as they are known when it ends.
#[derive(Debug, Default)]
pub struct CountedCheck {
    /// Network of the request. Without one, nothing is counted.
    pub network: Option<NetworkId>,
    /// Key of its credential.
    pub key: Option<KeyId>,
    /// Name of its route.
    pub route: RouteName,
    /// Address of its client.
    pub client: Option<IpAddr>,
}

/// Counter of Checks; each thread has a table of its own.
pub struct UsageCounter {
    is_enabled: bool,
    handover_interval: Duration,
    queue: mpsc::Sender<CheckTable>,
    pub(super) readings: UsageReadings,
}

/// Readings for metrics, which the writer sets.
#[derive(Default)]
pub(super) struct UsageReadings {
    pub(super) rows: AtomicU64,
    pub(super) overflowed: AtomicU64,
    pub(super) failures: AtomicU64,
    /// Boot time since which Checks aren't written, in microseconds; 0 if all are.
    pub(super) unwritten_since: AtomicU64,
}

impl UsageCounter {
    /// Makes a counter whose tables go to `queue`.
    pub(super) fn new(is_enabled: bool, flush_interval: Duration, queue: mpsc::Sender<CheckTable>) -> Self {
        let handover_interval = MAX_HANDOVER_INTERVAL.min(flush_interval / 10).max(Duration::from_millis(1));
        Self { is_enabled, handover_interval, queue, readings: UsageReadings::default() }
    }

    /// Counts a Check: one probe of this thread's table, and one addition.
    pub fn count(&self, check: &CountedCheck, outcome: &'static str) {
        self.count_many(check, outcome, 1);
    }

    /// Counts as many equal Checks.
    pub fn count_many(&self, check: &CountedCheck, outcome: &'static str, number: u64) {
        let (true, Some(network)) = (self.is_enabled, check.network) else {
            return;
        };
        let key = check.key.map_or(CountedKey::None, CountedKey::Key);
        TABLE.with_borrow_mut(|table| {
            // Without an hour, the first handover says which.
            let hour = table.hour.unwrap_or(Timestamp::from_micros(0));
            let key = CheckKey { network, key, route: check.route, outcome, hour };
            table.checks += 1;
            let checks = table.checks;
            // Most Checks find their row; only a new one may need room.
            let row = match table.rows.get_mut(&key) {
                Some(row) => row,
                None => self.new_row(&mut table.rows, key),
            };
            row.count += number;
            if outcome == ALLOW {
                (row.address, row.last) = (check.client, checks);
            }
        });
    }

    /// Returns the row of a key that has none yet. If the table is full and can't be sent, that is
    /// the row of those beyond the bound.
    #[cold]
    fn new_row<'table>(&self, rows: &'table mut CheckTable, key: CheckKey) -> &'table mut CheckRow {
        if rows.len() >= MAX_TABLE_ROWS {
            self.send(rows);
        }
        let key = if rows.len() >= MAX_TABLE_ROWS { key.other() } else { key };
        rows.entry(key).or_default()
    }

    /// Hands this thread's table over; Checks count in the hour of `now` from here on. Returns the
    /// time until the next handover; `None` if nothing is counted.
    pub fn hand_over(&self, now: Timestamp) -> Option<Duration> {
        TABLE.with_borrow_mut(|table| {
            self.send(&mut table.rows);
            table.hour = Some(hour_of(now));
        });
        self.is_enabled.then_some(self.handover_interval)
    }

    /// Sends a table. If too many wait, the thread keeps it and tries again later.
    fn send(&self, rows: &mut CheckTable) {
        if rows.is_empty() {
            return;
        }
        if let Ok(permit) = self.queue.try_reserve() {
            let empty = CheckTable::with_capacity_and_hasher(rows.len(), Default::default());
            permit.send(std::mem::replace(rows, empty));
        }
    }

    /// Returns the number of rows in memory.
    pub fn rows(&self) -> u64 {
        self.readings.rows.load(Ordering::Relaxed)
    }

    /// Returns the number of Checks that were counted without their key, as there were too many
    /// rows.
    pub fn overflowed(&self) -> u64 {
        self.readings.overflowed.load(Ordering::Relaxed)
    }

    /// Returns the number of writes that failed.
    pub fn failures(&self) -> u64 {
        self.readings.failures.load(Ordering::Relaxed)
    }

    /// Returns the age of the oldest number that isn't written; zero if all are.
    pub fn unwritten_age(&self, now: BootTime) -> Duration {
        match self.readings.unwritten_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => now.since(BootTime::from_micros(since)),
        }
    }
}
