//! Buckets that all processes share, in Redis: one script, one round trip, by Redis' own clock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::gcra::Gcra;
use super::{Charge, Subject};
use crate::cache::shared::{Breaker, Link, LinkError, RedisSettings};
use crate::clock::Clock;

/// [`Gcra::use_once`] as a script. KEYS: the bucket. ARGV: interval and span in microseconds. Answers whether it may
/// be, and the debt after it in microseconds. What is stored ends by itself as soon as it says nothing any more. A refusal
/// writes only if the debt was cut to the span, by a clock that was set back or a policy that is another now: else the
/// next one would be refused as well, until the clock has caught up.
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

/// Counts the uses of keys in Redis.
pub struct RedisLimiter {
    link: Link,
    breaker: Breaker,
    check_timeout: Duration,
    failures: AtomicU64,
    failing: AtomicBool,
}

impl RedisLimiter {
    /// Prepares it; connecting is [`RedisLimiter::run`]'s.
    ///
    /// # Errors
    /// As for the shared cache.
    pub fn new(settings: RedisSettings, clock: Clock) -> Result<Self, LinkError> {
        Ok(Self {
            check_timeout: settings.check_timeout,
            link: Link::new(settings)?,
            breaker: Breaker::new(clock),
            failures: AtomicU64::new(0),
            failing: AtomicBool::new(false),
        })
    }

    /// Keeps connected, for ever.
    pub async fn run(&self) {
        // Of what is announced there, this connection wants to hear nothing.
        self.link.run(&Notify::new(), |_| false).await;
    }

    /// Counts one use; None when Redis doesn't say in time.
    pub(super) async fn charge(&self, (network, key_id): Subject, gcra: Gcra) -> Option<Charge> {
        let charge = self.ask(&format!("talos:v1:limit:{network}:{key_id}"), gcra).await;
        let failed = charge.is_none();
        if failed {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        if self.failing.swap(failed, Ordering::Relaxed) != failed {
            match failed {
                true => tracing::warn!("Redis counts no uses of keys: none is limited at present"),
                false => tracing::info!("Redis counts the uses of keys again"),
            }
        }
        charge
    }

    async fn ask(&self, name: &str, gcra: Gcra) -> Option<Charge> {
        let attempt = self.breaker.try_begin()?;
        let arguments = [gcra.interval, gcra.span()];
        let answer = self.link.eval(SCRIPT, name, &arguments);
        match tokio::time::timeout(self.check_timeout, answer).await {
            Ok(Ok([allowed, debt])) => {
                attempt.succeeded();
                Some(gcra.charge(debt, allowed == 1))
            }
            Ok(Err(_)) | Err(_) => {
                attempt.failed();
                None
            }
        }
    }

    /// How many uses weren't counted.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}
