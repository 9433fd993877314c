//! Rate limits of keys: the policy that a key carries, enforced by GCRA in this process or in
//! Redis.
//!
//! A policy of `quota` requests per `window` is a bucket of `quota` places, one of which becomes
//! free every `window / quota`. So an idle key may be used `quota` times at once, and over any
//! window at most `quota` times more than that burst. Only requests are counted: a policy in
//! another unit is reported, not enforced.
//!
//! Buckets in this process use boot time, which nobody sets. Scripts in Redis have only its wall
//! clock: each time that is set ahead, a key gets at most one more burst; when it is set back, the
//! bucket is at worst empty and fills up as usual.
//!
//! A key may have several policies: a request is charged to all of them or to none.
//!
//! A limiter that fails denies nobody.

mod decision;
mod gcra;
mod memory;
mod policies;
mod redis;

pub use self::redis::RedisLimiter;
pub use decision::RateDecision;
pub use memory::MemoryLimiter;

use crate::clock::Clock;
use crate::key::{Key, KeyId, NetworkId, RatePolicy};
use crate::redis::RedisReport;
use decision::BucketKey;
use gcra::Gcra;
use policies::{buckets_of, nearest};

/// Rate limiter, by the place of its buckets.
pub enum Limiter {
    /// In this process: each process counts for itself.
    Memory(MemoryLimiter),
    /// In Redis: all processes count together.
    Redis(Box<RedisLimiter>),
}

impl Limiter {
    /// Creates a limiter with buckets in this process.
    pub fn memory(clock: Clock) -> Self {
        Self::Memory(MemoryLimiter::new(clock))
    }

    /// Charges a request that costs `cost` to the only policy of a key. Returns `None` when the
    /// request isn't counted: the policy's unit isn't enforced, or the limiter failed.
    pub async fn charge(
        &self,
        network: NetworkId,
        key_id: KeyId,
        policy: RatePolicy,
        cost: u32,
    ) -> Option<RateDecision> {
        if !policy.unit.is_enforced() {
            return None;
        }
        let gcra = Gcra::new(policy);
        match self {
            Self::Memory(limiter) => Some(limiter.charge(BucketKey::Key(network, key_id), gcra, cost)),
            Self::Redis(limiter) => limiter.charge(network, key_id, gcra, cost).await,
        }
    }

    /// Charges a request to all policies of a key that Talos enforces, or to none of them if one is
    /// used up. Returns `None` when the request isn't counted.
    pub async fn charge_all(&self, key: &Key, cost: u32) -> Option<RateDecision> {
        let buckets = buckets_of(key);
        if buckets.is_empty() {
            return None;
        }
        match self {
            Self::Memory(limiter) => {
                let places: Vec<_> = buckets.iter().map(|bucket| (bucket.key(), bucket.gcra)).collect();
                let (allowed, debts) = limiter.charge_all(&places, cost);
                nearest(&buckets, &debts, allowed, cost)
            }
            Self::Redis(limiter) => limiter.charge_all(&buckets, cost).await,
        }
    }

    /// Returns what is known of Redis; `None` if it isn't used.
    pub fn redis_report(&self) -> Option<RedisReport> {
        match self {
            Self::Memory(_) => None,
            Self::Redis(limiter) => Some(limiter.report()),
        }
    }

    /// Returns true if charging waits for another process.
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Redis(_))
    }

    /// Returns how many requests weren't counted because the limiter failed.
    pub fn failures(&self) -> u64 {
        match self {
            Self::Memory(_) => 0,
            Self::Redis(limiter) => limiter.failures(),
        }
    }
}
