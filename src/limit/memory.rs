//! Buckets in this process, in a table of bounded size.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use parking_lot::Mutex;

use super::decision::{BucketKey, RateDecision};
use super::gcra::Gcra;
use crate::clock::Clock;

/// Shards of the table, each with its own lock.
const SHARDS: usize = 64;
/// Most buckets of a shard: a million together, some 100 MiB. Only verified keys get a bucket.
const MAX_BUCKETS_PER_SHARD: usize = 16 * 1024;

/// Limiter whose buckets are in this process.
pub struct MemoryLimiter {
    /// Clock whose boot time is used, so that setting the wall clock has no effect.
    clock: Clock,
    hasher: RandomState,
    /// For each bucket the time at which it is full again, in microseconds.
    shards: Vec<Mutex<HashMap<BucketKey, u64>>>,
    max_buckets_per_shard: usize,
}

impl MemoryLimiter {
    /// Creates a limiter without any buckets: a new bucket is full.
    pub fn new(clock: Clock) -> Self {
        Self::with_capacity(clock, MAX_BUCKETS_PER_SHARD)
    }

    fn with_capacity(clock: Clock, max_buckets_per_shard: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { clock, hasher: RandomState::new(), shards, max_buckets_per_shard }
    }

    /// Charges a request to one bucket.
    pub(super) fn charge(&self, bucket: BucketKey, gcra: Gcra, cost: u32) -> RateDecision {
        let mut shard = self.shards[self.shard_of(&bucket)].lock();
        // Read under the lock: after waiting for it, an earlier reading would be out of date.
        let now = self.clock.boot_now().as_micros();
        self.make_room(&mut shard, &bucket, now);
        let full_at = shard.entry(bucket).or_insert(0);
        let (next, decision) = gcra.charge(*full_at, now, cost);
        *full_at = next;
        decision
    }

    /// Charges a request to all buckets, or to none of them if one has no room. Returns whether it
    /// did, and the debts after it.
    pub(super) fn charge_all(&self, buckets: &[(BucketKey, Gcra)], cost: u32) -> (bool, Vec<u64>) {
        let places: Vec<usize> = buckets.iter().map(|(bucket, _)| self.shard_of(bucket)).collect();
        // Locked in the order of their numbers, so that no two requests wait for each other.
        let mut order = places.clone();
        order.sort_unstable();
        order.dedup();
        let mut shards: Vec<_> = order.iter().map(|place| self.shards[*place].lock()).collect();
        let position = |place: usize| order.binary_search(&place).unwrap_or(0);
        let now = self.clock.boot_now().as_micros();
        let debt = |((bucket, gcra), place): (&(BucketKey, Gcra), &usize)| {
            let full_at = shards[position(*place)].get(bucket).copied().unwrap_or(0);
            gcra.debt(full_at, now)
        };
        let mut debts: Vec<u64> = buckets.iter().zip(&places).map(debt).collect();
        let allowed = buckets.iter().zip(&debts).all(|((_, gcra), debt)| gcra.admits(*debt, cost));
        for (((bucket, gcra), place), debt) in buckets.iter().zip(&places).zip(&mut debts) {
            if allowed {
                *debt += gcra.time_of(cost);
            }
            if *debt > 0 {
                let shard = &mut shards[position(*place)];
                self.make_room(shard, bucket, now);
                shard.insert(*bucket, now + *debt);
            }
        }
        (allowed, debts)
    }

    fn shard_of(&self, bucket: &BucketKey) -> usize {
        usize::try_from(self.hasher.hash_one(bucket) >> 32).unwrap_or(0) % SHARDS
    }

    fn make_room(&self, shard: &mut HashMap<BucketKey, u64>, bucket: &BucketKey, now: u64) {
        if shard.len() >= self.max_buckets_per_shard && !shard.contains_key(bucket) {
            evict(shard, now);
        }
    }
}

/// Evicts the buckets that are full again, which changes nothing. If there are none, evicts the one
/// that is full soonest, as its key gains the least.
fn evict(shard: &mut HashMap<BucketKey, u64>, now: u64) {
    let before = shard.len();
    shard.retain(|_, full_at| *full_at > now);
    if shard.len() == before
        && let Some(soonest) = shard.iter().min_by_key(|(_, full_at)| **full_at).map(|(bucket, _)| *bucket)
    {
        shard.remove(&soonest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::key::{KeyId, NetworkId};
    use std::time::Duration;

    const ONE_A_MINUTE: Gcra = Gcra { emission_interval: 60_000_000, burst: 1 };

    fn bucket(number: u64) -> BucketKey {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        BucketKey::Key(NetworkId::SINGLE, KeyId::Imported(id))
    }

    #[test]
    fn keys_and_networks_are_counted_apart() {
        let limiter = MemoryLimiter::new(Clock::manual(Timestamp::from_secs(1_000)));
        let elsewhere = NetworkId::parse("00000000-0000-0000-0000-000000000001").unwrap();
        let far = BucketKey::Key(elsewhere, KeyId::Imported([1; 32]));
        let near = BucketKey::Key(NetworkId::SINGLE, KeyId::Imported([1; 32]));
        let buckets = [bucket(1), bucket(2), far, near];
        for expected in [true, false] {
            for bucket in buckets {
                assert_eq!(limiter.charge(bucket, ONE_A_MINUTE, 1).allowed, expected);
            }
        }
    }

    #[test]
    fn all_buckets_are_charged_or_none() {
        let limiter = MemoryLimiter::new(Clock::manual(Timestamp::from_secs(1_000)));
        let ten = Gcra { emission_interval: 6_000_000, burst: 10 };
        let both = [(bucket(1), ten), (bucket(2), ONE_A_MINUTE)];
        assert_eq!(limiter.charge_all(&both, 1), (true, vec![6_000_000, 60_000_000]));
        assert_eq!(limiter.charge_all(&both, 1), (false, vec![6_000_000, 60_000_000]));
        assert_eq!(
            limiter.charge_all(&both[..1], 9),
            (true, vec![60_000_000]),
            "what was refused cost nothing"
        );
    }

    #[test]
    fn requests_on_many_threads_take_what_there_is_and_no_more() {
        let limiter = MemoryLimiter::new(Clock::manual(Timestamp::from_secs(1_000)));
        let hundred = Gcra { emission_interval: 600_000, burst: 100 };
        let admitted = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let (limiter, admitted) = (&limiter, &admitted);
                scope.spawn(move || {
                    for number in 0..200 {
                        let own = bucket(1_000 + thread * 1_000 + number);
                        let shared = [(own, hundred), (bucket(1), hundred), (bucket(2), hundred)];
                        let order = if thread % 2 == 0 { shared } else { [shared[2], shared[1], shared[0]] };
                        let passed = limiter.charge_all(&order, 1).0;
                        admitted.fetch_add(usize::from(passed), std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(admitted.into_inner(), 100);
    }

    #[test]
    fn the_table_is_bounded_and_evicts_full_buckets_first() {
        let clock = Clock::manual(Timestamp::from_secs(1_000));
        let limiter = MemoryLimiter::with_capacity(clock.clone(), 16);
        let total = || limiter.shards.iter().map(|shard| shard.lock().len()).sum::<usize>();
        let most = SHARDS * 16;
        for number in 0..10_000 {
            limiter.charge(bucket(number), ONE_A_MINUTE, 1);
            if number % 500 == 0 {
                clock.advance(Duration::from_secs(1));
            }
        }
        assert!(total() <= most, "{}", total());
        let last = bucket(9_999);
        assert!(!limiter.charge(last, ONE_A_MINUTE, 1).allowed, "a bucket that was just used stays");
    }
}
