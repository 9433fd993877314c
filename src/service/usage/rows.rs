//! Rows of counted Checks in memory: keys of the tables, tables of the threads, and the table of
//! the process.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use super::{ALLOW, OTHER};
use crate::clock::Timestamp;
use crate::key::{KeyId, NetworkId};
use crate::settings::policy::RouteName;

/// Microseconds of an hour.
const HOUR_MICROS: i64 = 60 * 60 * 1_000_000;
const HOUR: Duration = Duration::from_secs(60 * 60);
/// Longest time from the start of an hour until its Checks are handed over.
const MAX_AGE: Duration = Duration::from_secs(6 * 60 * 60);

/// Returns the start of the UTC hour of a time.
pub(in crate::service) fn hour_of(time: Timestamp) -> Timestamp {
    let micros = time.as_micros();
    Timestamp::from_micros(micros - micros.rem_euclid(HOUR_MICROS))
}

/// Key to which a Check counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum CountedKey {
    /// No known key.
    None,
    /// Any key, beyond the bound on rows.
    Other,
    /// This key.
    Key(KeyId),
}

impl CountedKey {
    /// Returns the text in the database.
    pub(super) fn text(self) -> String {
        match self {
            Self::None => String::new(),
            Self::Other => OTHER.to_owned(),
            Self::Key(id) => id.to_string(),
        }
    }
}

/// Attributes by which Checks are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CheckKey {
    /// Network of the request.
    pub network: NetworkId,
    /// Key of its credential.
    pub key: CountedKey,
    /// Name of its route.
    pub route: RouteName,
    /// `allow`, or the reason of the refusal.
    pub outcome: &'static str,
    /// Start of the hour.
    pub hour: Timestamp,
}

impl CheckKey {
    /// Returns the attributes of those beyond the bound on rows.
    pub(super) fn other(self) -> Self {
        Self { key: CountedKey::Other, route: RouteName::default(), ..self }
    }
}

impl Hash for CheckKey {
    /// Hashes only what tells most rows apart. Ids are random or hashes already, so nobody can
    /// choose many that collide.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let first = |bytes: &[u8]| bytes.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
        let key = match &self.key {
            CountedKey::None => 0,
            CountedKey::Other => 1,
            CountedKey::Key(id) => first(id.as_bytes()),
        };
        let outcome = self.outcome.as_bytes();
        let outcome = outcome.len() as u64 | u64::from(outcome.first().copied().unwrap_or(0)) << 8;
        state.write_u64(
            key ^ first(self.network.as_bytes()).rotate_left(32)
                ^ self.route.prefix().rotate_left(17)
                ^ outcome.rotate_left(48),
        );
    }
}

/// Hasher that mixes one number.
#[derive(Default)]
pub(crate) struct MixHasher(u64);

impl Hasher for MixHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0.rotate_left(8) ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(number ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Number of Checks, and the client of the last one that was allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CheckRow {
    /// Number.
    pub count: u64,
    /// Address of the client, if known.
    pub address: Option<IpAddr>,
    /// Number of that Check among those of its thread; 0 if there is none.
    pub last: u64,
}

/// Table of Checks that aren't handed over yet.
pub(crate) type CheckTable = HashMap<CheckKey, CheckRow, BuildHasherDefault<MixHasher>>;

/// Row of the process.
#[derive(Debug, Clone, Copy, Default)]
struct UsageRowState {
    /// Number of Checks.
    count: u64,
    /// Number that the database is known to have.
    written: u64,
}

/// First and last use of a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct UseState {
    /// First use.
    pub first: Timestamp,
    /// Last use.
    pub last: Timestamp,
    /// Address of the client of the last use.
    pub address: Option<IpAddr>,
    /// Last use that the database is known to have.
    pub written: Option<Timestamp>,
}

/// All rows of the process, with absolute numbers.
pub(crate) struct UsageRows {
    rows: HashMap<CheckKey, UsageRowState, BuildHasherDefault<MixHasher>>,
    uses: HashMap<(NetworkId, KeyId), UseState>,
    max_rows: usize,
    /// Hours before this one are no longer in memory as a whole: what is late counts in it.
    first_hour: Timestamp,
}

/// Result of merging a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Merged {
    /// Number of Checks.
    pub checks: u64,
    /// Number of those beyond the bound on rows.
    pub overflowed: u64,
}

impl UsageRows {
    /// Makes a table of at most `max_rows` rows beside those of `other`.
    pub(crate) fn new(max_rows: usize) -> Self {
        let first_hour = Timestamp::from_micros(0);
        Self { rows: HashMap::default(), uses: HashMap::new(), max_rows, first_hour }
    }

    /// Returns the number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Adds the table of a thread, which was handed over at `now`. What has no hour, or one that a
    /// wrong clock gave it, counts in the hour of `now`.
    pub(crate) fn merge(&mut self, table: CheckTable, now: Timestamp) -> Merged {
        let mut merged = Merged::default();
        let mut rows: Vec<_> = table.into_iter().collect();
        // The last use of a key counts, whichever row it is in.
        rows.sort_unstable_by_key(|(_, row)| row.last);
        for (key, CheckRow { count, address, .. }) in rows {
            let is_right = key.hour <= now && now <= key.hour.plus(MAX_AGE);
            let hour = if is_right { key.hour } else { hour_of(now) };
            let key = CheckKey { hour: hour.max(self.first_hour), ..key };
            merged.checks += count;
            if key.key == CountedKey::Other
                || (self.rows.len() >= self.max_rows && !self.rows.contains_key(&key))
            {
                self.add(key.other(), count);
                merged.overflowed += count;
                continue;
            }
            self.add(key, count);
            if let CountedKey::Key(id) = key.key
                && key.outcome == ALLOW
            {
                self.record_use((key.network, id), now, address);
            }
        }
        merged
    }

    fn add(&mut self, key: CheckKey, count: u64) {
        self.rows.entry(key).or_default().count += count;
    }

    fn record_use(&mut self, key: (NetworkId, KeyId), now: Timestamp, address: Option<IpAddr>) {
        if self.uses.len() >= self.max_rows && !self.uses.contains_key(&key) {
            return;
        }
        // A client of IPv4 is the same one on a dual-stack socket.
        let address = address.map(|address| address.to_canonical());
        let new = UseState { first: now, last: now, address, written: None };
        let used = self.uses.entry(key).or_insert(new);
        used.last = used.last.max(now);
        used.address = address.or(used.address);
    }

    /// Returns the rows that the database doesn't have, the oldest first, with their numbers.
    pub(super) fn unwritten(&self) -> Vec<(CheckKey, u64)> {
        let changed = self.rows.iter().filter(|(_, row)| row.count > row.written);
        let mut changed: Vec<_> = changed.map(|(key, row)| (*key, row.count)).collect();
        changed.sort_unstable_by_key(|(key, _)| (key.hour, *key.network.as_bytes(), key.key));
        changed
    }

    /// Returns the uses that the database doesn't know to `precision`.
    pub(super) fn unwritten_uses(
        &self,
        precision: std::time::Duration,
    ) -> Vec<((NetworkId, KeyId), UseState)> {
        let is_due = |used: &UseState| {
            used.written.is_none_or(|written| used.last > written && used.last >= written.plus(precision))
        };
        let due = self.uses.iter().filter(|(_, used)| is_due(used));
        let mut due: Vec<_> = due.map(|(key, used)| (*key, *used)).collect();
        due.sort_unstable_by_key(|((network, key), _)| (*network.as_bytes(), *key));
        due
    }

    /// Records that the database has this number.
    pub(super) fn set_written(&mut self, key: &CheckKey, count: u64) {
        if let Some(row) = self.rows.get_mut(key) {
            row.written = row.written.max(count);
        }
    }

    /// Records that the database knows a use.
    pub(super) fn set_use_written(&mut self, key: &(NetworkId, KeyId), last: Timestamp) {
        if let Some(used) = self.uses.get_mut(key) {
            used.written = used.written.max(Some(last));
        }
    }

    /// Takes away the rows of a deleted key. Its Checks stay counted, without the key.
    pub(super) fn erase(&mut self, (network, id): (NetworkId, KeyId)) {
        self.uses.remove(&(network, id));
        for (key, row) in self.remove_rows(network, id) {
            self.add(CheckKey { key: CountedKey::None, ..key }, row.count);
        }
    }

    /// Counts what isn't written of a key under its current id: an imported hash has another one
    /// once its key was used. What is written stays in the database under the earlier id.
    pub(super) fn rename(&mut self, (network, id): (NetworkId, KeyId), current: KeyId) {
        if let Some(used) = self.uses.remove(&(network, id)) {
            let mut merged = self.uses.get(&(network, current)).copied().unwrap_or(used);
            if used.last > merged.last {
                merged = UseState { last: used.last, address: used.address.or(merged.address), ..merged };
            }
            let first = merged.first.min(used.first);
            self.uses.insert((network, current), UseState { first, written: None, ..merged });
        }
        for (key, row) in self.remove_rows(network, id) {
            if row.count > row.written {
                self.add(CheckKey { key: CountedKey::Key(current), ..key }, row.count - row.written);
            }
        }
    }

    fn remove_rows(&mut self, network: NetworkId, id: KeyId) -> Vec<(CheckKey, UsageRowState)> {
        let is_of_it = |key: &CheckKey| key.network == network && key.key == CountedKey::Key(id);
        let found: Vec<CheckKey> = self.rows.keys().copied().filter(is_of_it).collect();
        found.into_iter().filter_map(|key| Some((key, self.rows.remove(&key)?))).collect()
    }

    /// Drops what is written of hours before `before`, and uses that are written.
    pub(super) fn forget(&mut self, before: Timestamp) {
        let before = hour_of(before);
        let mut first_hour = self.first_hour;
        self.rows.retain(|key, row| {
            let stays = key.hour >= before || row.count > row.written;
            if !stays {
                // Not up to `before`, which a wrong clock may have said.
                first_hour = first_hour.max(key.hour.plus(HOUR));
            }
            stays
        });
        self.first_hour = first_hour;
        if self.uses.len() >= self.max_rows {
            self.uses.retain(|_, used| used.written.is_none_or(|written| written < used.last));
        }
    }
}

#[cfg(test)]
mod tests;
