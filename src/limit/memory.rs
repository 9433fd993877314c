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

    /// Charges one request.
    pub(super) fn charge(&self, bucket: BucketKey, gcra: Gcra) -> RateDecision {
        let shard = usize::try_from(self.hasher.hash_one(bucket) >> 32).unwrap_or(0) % SHARDS;
        let mut shard = self.shards[shard].lock();
        // Read under the lock: after waiting for it, an earlier reading would be out of date.
        let now = self.clock.boot_now().as_micros();
        if shard.len() >= self.max_buckets_per_shard && !shard.contains_key(&bucket) {
            evict(&mut shard, now);
        }
        let full_at = shard.entry(bucket).or_insert(0);
        let (next, decision) = gcra.charge(*full_at, now);
        *full_at = next;
        decision
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
        (NetworkId::SINGLE, KeyId::Imported(id))
    }

    #[test]
    fn keys_and_networks_are_counted_apart() {
        let limiter = MemoryLimiter::new(Clock::manual(Timestamp::from_secs(1_000)));
        let elsewhere = NetworkId::parse("00000000-0000-0000-0000-000000000001").unwrap();
        let buckets = [bucket(1), bucket(2), (elsewhere, bucket(1).1)];
        for expected in [true, false] {
            for bucket in buckets {
                assert_eq!(limiter.charge(bucket, ONE_A_MINUTE).allowed, expected);
            }
        }
    }

    #[test]
    fn the_table_is_bounded_and_evicts_full_buckets_first() {
        let clock = Clock::manual(Timestamp::from_secs(1_000));
        let limiter = MemoryLimiter::with_capacity(clock.clone(), 16);
        let total = || limiter.shards.iter().map(|shard| shard.lock().len()).sum::<usize>();
        let most = SHARDS * 16;
        for number in 0..10_000 {
            limiter.charge(bucket(number), ONE_A_MINUTE);
            if number % 500 == 0 {
                clock.advance(Duration::from_secs(1));
            }
        }
        assert!(total() <= most, "{}", total());
        let last = bucket(9_999);
        assert!(!limiter.charge(last, ONE_A_MINUTE).allowed, "a bucket that was just used stays");
    }
}
