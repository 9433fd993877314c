//! Prometheus metrics. No key, actor or tenant is ever a label.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::service::Service;
use crate::service::verify::CacheResult;

type Labels = [(&'static str, &'static str); 2];

/// The counters that the planes count up.
#[derive(Default)]
pub struct Metrics {
    /// Decisions of the authz plane.
    pub checks: Checks,
    /// Where its answers came from.
    pub lookups: Lookups,
    /// JWTs minted for upstream.
    pub tokens_minted: Counter,
}

/// Decisions by outcome and reason.
pub struct Checks {
    all: Family<Labels, Counter>,
    /// Looked up once: allowing must not take the family's lock.
    allowed: Counter,
}

impl Default for Checks {
    fn default() -> Self {
        let all = Family::<Labels, Counter>::default();
        let allowed = all.get_or_create(&[("decision", "allow"), ("reason", "ok")]).clone();
        Self { all, allowed }
    }
}

impl Checks {
    /// Counts a request that was let through.
    pub fn allowed(&self) {
        self.allowed.inc();
    }

    /// Counts one that wasn't.
    pub fn refused(&self, reason: &'static str) {
        self.all.get_or_create(&[("decision", "deny"), ("reason", reason)]).inc();
    }
}

/// Lookups by what L1 had to say.
#[derive(Default)]
pub struct Lookups {
    hits: Counter,
    misses: Counter,
    skipped: Counter,
}

impl Lookups {
    /// Counts one.
    pub fn count(&self, result: CacheResult) {
        match result {
            CacheResult::Hit => self.hits.inc(),
            CacheResult::Miss => self.misses.inc(),
            CacheResult::Skip => self.skipped.inc(),
        };
    }
}

impl Metrics {
    /// Everything there is to know now, in the OpenMetrics text format.
    pub fn render(&self, service: &Service) -> String {
        let mut registry = Registry::with_prefix("talos");
        let Self { checks, lookups, tokens_minted } = self;
        registry.register("checks", "Decisions of the authz plane", checks.all.clone());
        registry.register("cache_hits", "Checks answered by L1", lookups.hits.clone());
        registry.register("cache_misses", "Checks that L1 could not answer", lookups.misses.clone());
        registry.register("cache_skips", "Checks that concern no cached key", lookups.skipped.clone());
        registry.register("tokens_minted", "JWTs minted for upstream", tokens_minted.clone());
        let age = service.freshness.age().map_or(f64::INFINITY, |age| age.as_secs_f64());
        registry.register_collector(Box::new(Now {
            key_reads: service.store.key_reads(),
            keys_cached: service.memory.len(),
            uses_dropped: service.uses.dropped(),
            bound: service.freshness.bound().as_secs_f64(),
            age,
        }));
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }
}

/// Readings that live elsewhere.
#[derive(Debug)]
struct Now {
    key_reads: u64,
    keys_cached: u64,
    uses_dropped: u64,
    bound: f64,
    age: f64,
}

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut put =
            |name: &str, help: &str, metric: &dyn EncodeReading| metric.put(&mut encoder, name, help);
        put("store_key_reads", "Key rows asked of the database", &ConstCounter::new(self.key_reads))?;
        put(
            "last_used_dropped",
            "Uses of keys that found last_used.queue_size of them waiting to be noted",
            &ConstCounter::new(self.uses_dropped),
        )?;
        put("cache_keys", "Keys held by L1", &ConstGauge::new(self.keys_cached as i64))?;
        put(
            "consistency_bound_seconds",
            "How long after its revocation a key may still be allowed, as things stand",
            &ConstGauge::new(self.bound),
        )?;
        put(
            "consistency_age_seconds",
            "Age of this instance's knowledge of changes",
            &ConstGauge::new(self.age),
        )
    }
}

trait EncodeReading {
    fn put(&self, encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str)
    -> Result<(), std::fmt::Error>;
}

impl<M: EncodeMetric> EncodeReading for M {
    fn put(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
    ) -> Result<(), std::fmt::Error> {
        self.encode(encoder.encode_descriptor(name, help, None, self.metric_type())?)
    }
}
