//! Prometheus metrics. No key, actor or tenant is ever a label.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
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
    /// Reloads of the configuration.
    pub reloads: Reloads,
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

/// What came of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// Something is in force that wasn't before.
    Applied,
    /// There was nothing new.
    Unchanged,
    /// What was read is no good.
    Refused,
}

/// Reloads by what came of them, and fetches of key sets from other servers.
pub struct Reloads {
    all: Family<[(&'static str, &'static str); 1], Counter>,
    fetches: Family<[(&'static str, &'static str); 1], Counter>,
    successful: Gauge,
}

impl Default for Reloads {
    fn default() -> Self {
        let (all, fetches, successful) = (Family::default(), Family::default(), Gauge::default());
        // From the start there is something to compare later values with.
        for outcome in ["applied", "unchanged", "refused"] {
            let _: &Counter = &all.get_or_create(&[("outcome", outcome)]);
        }
        for outcome in ["ok", "failed"] {
            let _: &Counter = &fetches.get_or_create(&[("outcome", outcome)]);
        }
        successful.set(1);
        Self { all, fetches, successful }
    }
}

impl Reloads {
    /// Counts one; `all_in_force` says whether all that was read is in force now.
    pub fn count(&self, reload: Reload, all_in_force: bool) {
        let outcome = match reload {
            Reload::Applied => "applied",
            Reload::Unchanged => "unchanged",
            Reload::Refused => "refused",
        };
        self.all.get_or_create(&[("outcome", outcome)]).inc();
        self.successful.set(i64::from(all_in_force));
    }

    /// Counts a round of fetches from other servers.
    pub fn fetched(&self, ok: bool) {
        let outcome = if ok { "ok" } else { "failed" };
        self.fetches.get_or_create(&[("outcome", outcome)]).inc();
    }
}

impl Metrics {
    /// Everything there is to know now, in the OpenMetrics text format.
    pub fn render(&self, service: &Service) -> String {
        let mut registry = Registry::with_prefix("talos");
        let Self { checks, lookups, tokens_minted, reloads } = self;
        registry.register("checks", "Decisions of the authz plane", checks.all.clone());
        registry.register("cache_hits", "Checks answered by L1", lookups.hits.clone());
        registry.register("cache_misses", "Checks that L1 could not answer", lookups.misses.clone());
        registry.register("cache_skips", "Checks that concern no cached key", lookups.skipped.clone());
        registry.register("tokens_minted", "JWTs minted for upstream", tokens_minted.clone());
        registry.register("config_reloads", "Reloads of the configuration", reloads.all.clone());
        registry.register(
            "config_last_reload_successful",
            "1 when all that was read last of the configuration is in force",
            reloads.successful.clone(),
        );
        registry.register(
            "config_key_set_fetches",
            "Rounds of fetching key sets from other servers",
            reloads.fetches.clone(),
        );
        let age = service.freshness.age().map_or(f64::INFINITY, |age| age.as_secs_f64());
        registry.register_collector(Box::new(Now {
            key_reads: service.store.key_reads(),
            keys_cached: service.memory.len(),
            generation: service.snapshot().generation,
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
    generation: u64,
    uses_dropped: u64,
    bound: f64,
    age: f64,
}

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut put =
            |name: &str, help: &str, metric: &dyn EncodeReading| metric.put(&mut encoder, name, help);
        put("store_key_reads", "Key rows asked of the database", &ConstCounter::new(self.key_reads))?;
        let generation = ConstGauge::new(self.generation as i64);
        put("config_generation", "Number of the settings in force, counted from the start", &generation)?;
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
