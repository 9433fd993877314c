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
//! A limiter that fails denies nobody.

mod decision;
mod gcra;
mod memory;
mod redis;

pub use self::redis::RedisLimiter;
pub use decision::{BucketKey, RateDecision};
pub use memory::MemoryLimiter;

use crate::clock::Clock;
use crate::key::RatePolicy;
use crate::redis::RedisReport;
use gcra::Gcra;

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

    /// Charges one request to a bucket. Returns `None` when the request isn't counted: the policy's
    /// unit isn't enforced, or the limiter failed.
    pub async fn charge(&self, bucket: BucketKey, policy: RatePolicy) -> Option<RateDecision> {
        if !policy.unit.is_enforced() {
            return None;
        }
        let gcra = Gcra::new(policy);
        match self {
            Self::Memory(limiter) => Some(limiter.charge(bucket, gcra)),
            Self::Redis(limiter) => limiter.charge(bucket, gcra).await,
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
