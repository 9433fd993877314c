//! How often a key may be used: the policy that it carries, enforced by GCRA in this process or in Redis.
//!
//! A policy of `quota` requests per `window` is a bucket of `quota` places, one of which becomes free every
//! `window / quota`. So a key that was idle may be used `quota` times at once, and over any window at most `quota`
//! times more than that burst. Only requests are counted: a policy in another unit is reported, not enforced.
//!
//! Time here is the machine's running time, which nobody sets; Redis has none in scripts but its wall clock. Each time that
//! is set ahead, a key gets at most one more burst; set back, its bucket is empty at the worst, and fills as ever.
//!
//! The limiter's own outage refuses nobody.

mod gcra;
mod memory;
mod shared;

use std::time::Duration;

pub use memory::MemoryLimiter;
pub use shared::RedisLimiter;

use crate::clock::Clock;
use crate::key::{KeyId, NetworkId, RatePolicy};
use gcra::Gcra;

/// Whose uses are counted together.
pub type Subject = (NetworkId, KeyId);

/// What came of one use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// Whether it may be.
    pub allowed: bool,
    /// How many more there may be at once.
    pub remaining: u64,
    /// After how long there may be as many as ever again.
    pub reset: Duration,
    /// After how long one more may be; zero while there may be one.
    pub retry_after: Duration,
}

impl Charge {
    /// As the `RateLimit` header says it: `"default";r=42` (draft-ietf-httpapi-ratelimit-headers).
    pub fn header(&self) -> String {
        format!("\"default\";r={}", self.remaining)
    }

    /// As the `Retry-After` header says it, in whole seconds; None while there may be one more.
    pub fn retry_after_secs(&self) -> Option<u64> {
        let whole = self.retry_after.as_secs() + u64::from(self.retry_after.subsec_nanos() > 0);
        (!self.allowed).then_some(whole.max(1))
    }
}

/// Where uses are counted.
pub enum Limiter {
    /// Here: each process counts for itself.
    Memory(MemoryLimiter),
    /// In Redis: all processes count together.
    Redis(Box<RedisLimiter>),
}

impl Limiter {
    /// Counts in this process, by its own clock.
    pub fn memory(clock: Clock) -> Self {
        Self::Memory(MemoryLimiter::new(clock))
    }

    /// Counts one use by `subject`. None when it isn't counted: by this policy nothing is, or the limiter is out of
    /// order, which is nobody's fault who asks.
    pub async fn charge(&self, subject: Subject, policy: RatePolicy) -> Option<Charge> {
        if !policy.unit.is_enforced() {
            return None;
        }
        let gcra = Gcra::of(policy);
        match self {
            Self::Memory(limiter) => Some(limiter.charge(subject, gcra)),
            Self::Redis(limiter) => limiter.charge(subject, gcra).await,
        }
    }

    /// Whether counting has to wait for somebody else's answer.
    pub fn waits(&self) -> bool {
        matches!(self, Self::Redis(_))
    }

    /// How many uses weren't counted because the limiter was out of order.
    pub fn failures(&self) -> u64 {
        match self {
            Self::Memory(_) => 0,
            Self::Redis(limiter) => limiter.failures(),
        }
    }
}
