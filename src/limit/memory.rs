//! Buckets of this process, in a table of a bounded size.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use parking_lot::Mutex;

use super::gcra::Gcra;
use super::{Charge, Subject};
use crate::clock::Clock;

/// Parts of the table, each with a lock of its own.
const PARTS: usize = 64;
/// Most buckets of a part: a million together, some 100 MiB. Only a key that has just been proven gets one.
const PART: usize = 16 * 1024;

/// Counts the uses of keys in this process.
pub struct MemoryLimiter {
    /// Its own running time: what happens to the wall clock changes nothing.
    clock: Clock,
    hasher: RandomState,
    parts: Vec<Mutex<HashMap<Subject, u64>>>,
    /// Most buckets of a part.
    most: usize,
}

impl MemoryLimiter {
    /// With every bucket full.
    pub fn new(clock: Clock) -> Self {
        Self::of_size(clock, PART)
    }

    fn of_size(clock: Clock, most: usize) -> Self {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        Self { clock, hasher: RandomState::new(), parts, most }
    }

    /// Counts one use.
    pub(super) fn charge(&self, subject: Subject, gcra: Gcra) -> Charge {
        let part = usize::try_from(self.hasher.hash_one(subject) >> 32).unwrap_or(0) % PARTS;
        let mut part = self.parts[part].lock();
        // Not before: whoever had to wait for the lock would come with a time that is over.
        let now = self.clock.boot_now().as_micros();
        if part.len() >= self.most && !part.contains_key(&subject) {
            make_room(&mut part, now);
        }
        let full_at = part.entry(subject).or_insert(0);
        let (next, charge) = gcra.use_once(*full_at, now);
        *full_at = next;
        charge
    }
}

/// Forgets the buckets that are full again, which changes nothing; if there are none, the one that is full soonest,
/// whose key gains the least by that.
fn make_room(part: &mut HashMap<Subject, u64>, now: u64) {
    let before = part.len();
    part.retain(|_, full_at| *full_at > now);
    if part.len() == before
        && let Some(soonest) = part.iter().min_by_key(|(_, full_at)| **full_at).map(|(subject, _)| *subject)
    {
        part.remove(&soonest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::key::{KeyId, NetworkId};
    use std::time::Duration;

    const ONE_A_MINUTE: Gcra = Gcra { interval: 60_000_000, places: 1 };

    fn subject(number: u64) -> Subject {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        (NetworkId::SINGLE, KeyId::Imported(id))
    }

    #[test]
    fn keys_and_networks_are_counted_apart() {
        let limiter = MemoryLimiter::new(Clock::manual(Timestamp::from_secs(1_000)));
        let elsewhere = NetworkId::parse("00000000-0000-0000-0000-000000000001").unwrap();
        let subjects = [subject(1), subject(2), (elsewhere, subject(1).1)];
        for expected in [true, false] {
            for subject in subjects {
                assert_eq!(limiter.charge(subject, ONE_A_MINUTE).allowed, expected);
            }
        }
    }

    #[test]
    fn the_table_is_bounded_and_forgets_what_is_over_first() {
        let clock = Clock::manual(Timestamp::from_secs(1_000));
        let limiter = MemoryLimiter::of_size(clock.clone(), 16);
        let total = || limiter.parts.iter().map(|part| part.lock().len()).sum::<usize>();
        let most = PARTS * 16;
        for number in 0..10_000 {
            limiter.charge(subject(number), ONE_A_MINUTE);
            if number % 500 == 0 {
                clock.advance(Duration::from_secs(1));
            }
        }
        assert!(total() <= most, "{}", total());
        let last = subject(9_999);
        assert!(!limiter.charge(last, ONE_A_MINUTE).allowed, "what was just used is remembered");
    }
}
