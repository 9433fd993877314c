//! Buckets in Redis that all processes share: one script in one round trip, by Redis' own clock.

use std::sync::atomic::{AtomicU64, Ordering};

use super::decision::RateDecision;
use super::gcra::Gcra;
use super::policies::{PolicyBucket, nearest};
use crate::clock::Clock;
use crate::key::{KeyId, NetworkId};
use crate::redis::{RedisClient, RedisReport, RedisSettings, RedisSettingsError, RedisUse};

/// Script that does what [`Gcra::charge`] does, for one bucket or several: all are charged, or
/// none.
///
/// KEYS: the buckets. ARGV: the cost; then for each bucket emission interval and refill time in
/// microseconds. It returns 1 or 0 for allowed or not, and each bucket's debt in microseconds. The
/// stored value expires once the bucket is full again. A denial writes only if the debt was cut to
/// the refill time, because the clock was set back or the policy changed: otherwise requests would
/// be denied until the clock has caught up.
const SCRIPT: &str = "\
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local cost = tonumber(ARGV[1])
local result = {1}
for i, key in ipairs(KEYS) do
  local interval, span = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  local full_at = tonumber(redis.call('GET', key) or 0) or 0
  local debt = math.min(math.max(full_at - now, 0), span)
  if debt + interval * cost > span then
    result[1] = 0
    if full_at - now > span then
      redis.call('SET', key, string.format('%.0f', now + span), 'PX', math.ceil(span / 1000))
    end
  end
  result[i + 1] = debt
end
if result[1] == 1 then
  for i, key in ipairs(KEYS) do
    local taken = result[i + 1] + tonumber(ARGV[2 * i]) * cost
    redis.call('SET', key, string.format('%.0f', now + taken), 'PX', math.ceil(taken / 1000))
    result[i + 1] = taken
  end
end
return result";

/// Use of Redis for limits. The script charges a bucket of nobody's, which shows whether the user
/// may run it and all commands in it.
const USE: RedisUse = RedisUse {
    purpose: "rate limits",
    effect: "rate limits aren't enforced",
    rights: &[&["EVAL", SCRIPT, "1", "talos:v1:limit:rights", "1", "1000", "1000"]],
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

    /// Charges a request to the bucket of a key. Returns `None` when Redis doesn't answer in time.
    pub(super) async fn charge(
        &self,
        network: NetworkId,
        key_id: KeyId,
        gcra: Gcra,
        cost: u32,
    ) -> Option<RateDecision> {
        let name = format!("talos:v1:limit:{network}:{key_id}");
        let arguments = [u64::from(cost), gcra.emission_interval, gcra.refill_time()];
        let (allowed, debts) = self.eval(&[name.as_str()], &arguments).await?;
        Some(gcra.decision(*debts.first()?, allowed, cost))
    }

    /// Charges a request to all buckets or to none. Returns `None` when Redis doesn't answer in
    /// time.
    pub(super) async fn charge_all(&self, buckets: &[PolicyBucket], cost: u32) -> Option<RateDecision> {
        let names: Vec<&str> = buckets.iter().map(|bucket| bucket.name.as_str()).collect();
        let each =
            buckets.iter().flat_map(|PolicyBucket { gcra, .. }| [gcra.emission_interval, gcra.refill_time()]);
        let arguments: Vec<u64> = std::iter::once(u64::from(cost)).chain(each).collect();
        let (allowed, debts) = self.eval(&names, &arguments).await?;
        nearest(buckets, &debts, allowed, cost)
    }

    /// Runs the script. Returns whether the request is allowed, and the debts.
    async fn eval(&self, names: &[&str], arguments: &[u64]) -> Option<(bool, Vec<u64>)> {
        let result = self.client.guarded(self.client.eval(SCRIPT, names, arguments)).await;
        if result.is_none() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        result.map(|mut numbers| {
            let debts = numbers.split_off(numbers.len().min(1));
            (numbers == [1], debts)
        })
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
