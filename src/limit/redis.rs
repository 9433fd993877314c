//! Buckets in Redis that all processes share: one script in one round trip, by Redis' own clock.

use std::sync::atomic::{AtomicU64, Ordering};

use super::BucketKey;
use super::decision::RateDecision;
use super::gcra::Gcra;
use crate::clock::Clock;
use crate::redis::{RedisClient, RedisReport, RedisSettings, RedisSettingsError, RedisUse};

/// Script that does what [`Gcra::charge`] does.
///
/// KEYS: the bucket. ARGV: emission interval and refill time in microseconds. It returns 1 or 0 for
/// allowed or not, and the bucket's debt in microseconds. The stored value expires once the bucket
/// is full again. A denial writes only if the debt was cut to the refill time, because the clock
/// was set back or the policy changed: otherwise requests would be denied until the clock has
/// caught up.
const SCRIPT: &str = "\
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, span = tonumber(ARGV[1]), tonumber(ARGV[2])
local full_at = tonumber(redis.call('GET', KEYS[1]) or 0) or 0
local debt = math.min(math.max(full_at - now, 0), span)
local taken = debt + interval
if taken > span then
  if full_at - now > span then
    redis.call('SET', KEYS[1], string.format('%.0f', now + span), 'PX', math.ceil(span / 1000))
  end
  return {0, debt}
end
redis.call('SET', KEYS[1], string.format('%.0f', now + taken), 'PX', math.ceil(taken / 1000))
return {1, taken}";

/// Use of Redis for limits. The script charges a bucket of nobody's, which shows whether the user
/// may run it and all commands in it.
const USE: RedisUse = RedisUse {
    purpose: "rate limits",
    effect: "rate limits aren't enforced",
    rights: &[&["EVAL", SCRIPT, "1", "talos:v1:limit:rights", "1000", "1000"]],
};

/// Limiter whose buckets are in Redis.
pub struct RedisLimiter {
    client: RedisClient,
    failures: AtomicU64,
}

impl RedisLimiter {
    /// Checks settings; [`RedisLimiter::run`] connects.
    ///
    /// # Errors
    /// Fails if an address or a certificate can't be used, or plaintext would leave this machine
    /// and isn't allowed to.
    pub fn new(settings: RedisSettings, clock: Clock) -> Result<Self, RedisSettingsError> {
        Ok(Self { client: RedisClient::new(settings, clock, USE)?, failures: AtomicU64::new(0) })
    }

    /// Keeps connected; never returns.
    pub async fn run(&self) {
        self.client.run().await;
    }

    /// Charges one request. Returns `None` when Redis doesn't answer in time.
    pub(super) async fn charge(&self, (network, key_id): BucketKey, gcra: Gcra) -> Option<RateDecision> {
        let name = format!("talos:v1:limit:{network}:{key_id}");
        let arguments = [gcra.emission_interval, gcra.refill_time()];
        let result = self.client.guarded(self.client.eval(SCRIPT, &name, &arguments)).await;
        if result.is_none() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        result.map(|[allowed, debt]| gcra.decision(debt, allowed == 1))
    }

    /// Returns what is known of Redis.
    pub fn report(&self) -> RedisReport {
        self.client.report()
    }

    /// Returns how many requests weren't counted.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}
