//! Prometheus metrics. No key, actor or tenant is ever a label.

use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use super::connections::Connections;
use super::refusals::Refusals;
use super::status::Status;
use crate::cache::freshness::Mode;
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
    /// Old entries of the log that were deleted.
    pub log_trimmed: Counter,
    /// Connections and certificates.
    pub connections: Connections,
    /// Requests refused before anything of them was done.
    pub refusals: Refusals,
    /// Whether the deny file is gone or was refused.
    deny_file_is_bad: AtomicBool,
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

    /// How many there were that L1 answered, and that it couldn't answer.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.get(), self.misses.get())
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

    /// Whether all that was read last is in force.
    pub fn was_last_successful(&self) -> bool {
        self.successful.get() == 1
    }

    /// Counts a round of fetches from other servers.
    pub fn fetched(&self, ok: bool) {
        let outcome = if ok { "ok" } else { "failed" };
        self.fetches.get_or_create(&[("outcome", outcome)]).inc();
    }
}

impl Metrics {
    /// Notes whether the deny file is there and what it says is in force.
    pub fn deny_file_is_good(&self, is_good: bool) {
        self.deny_file_is_bad.store(!is_good, Ordering::Relaxed);
    }

    /// What was noted of the deny file; true without one.
    pub fn is_deny_file_good(&self) -> bool {
        !self.deny_file_is_bad.load(Ordering::Relaxed)
    }

    /// Everything there is to know now, in the OpenMetrics text format.
    pub fn render(&self, service: &Service, status: Status) -> String {
        let mut registry = Registry::with_prefix("talos");
        let Self {
            checks,
            lookups,
            tokens_minted,
            reloads,
            log_trimmed,
            connections,
            refusals,
            deny_file_is_bad: _,
        } = self;
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
        registry.register(
            "log_trimmed",
            "Old entries of the log of changes deleted here",
            log_trimmed.clone(),
        );
        connections.register(&mut registry);
        refusals.register(&mut registry);
        registry.register_collector(Box::new(Now {
            status,
            uses_dropped: service.uses.dropped(),
            uses_not_counted: service.limiter.failures(),
            failures: service.audit.failures(),
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
    status: Status,
    uses_dropped: u64,
    uses_not_counted: u64,
    /// All failures of credentials, and those that were not told of one by one.
    failures: (u64, u64),
}

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Self { status, uses_dropped, uses_not_counted, failures } = self;
        let mut counter =
            |name: &str, help: &str, value: u64| ConstCounter::new(value).put(&mut encoder, name, help);
        counter("store_key_reads", "Key rows asked of the database", status.database.key_reads)?;
        counter(
            "last_used_dropped",
            "Uses of keys that found last_used.queue_size of them waiting to be noted",
            *uses_dropped,
        )?;
        counter(
            "rate_limiter_failures",
            "Uses of keys that weren't counted, as Redis gave no answer",
            *uses_not_counted,
        )?;
        counter(
            "guesses_refused",
            "Lookups of credentials never seen before that found too many others waiting",
            status.database.guesses_refused,
        )?;
        counter("redis_hits", "Lookups that Redis answered", status.cache.redis_hits)?;
        counter("redis_misses", "Lookups that Redis could not answer", status.cache.redis_misses)?;
        counter(
            "relay_answers",
            "Answers given through Redis to instances that cannot reach the database",
            status.relay.answers,
        )?;
        counter(
            "log_rewritten",
            "Times that the log of changes was found rewritten (a restore, a failover) and all cached was dropped",
            status.log.rewritten,
        )?;
        counter("credential_failures", "Credentials that were refused, on all planes", failures.0)?;
        counter(
            "credential_failures_throttled",
            "Those of them of which the audit log tells only how many there were",
            failures.1,
        )?;
        if let Some(audit) = &status.audit {
            counter("audit_lines", "Lines written to the audit log", audit.lines)?;
            counter("audit_write_failures", "Times that the audit log could not be written", audit.failures)?;
        }
        encode_mode(&mut encoder, status.mode)?;
        let mut gauge =
            |name: &str, help: &str, value: f64| ConstGauge::new(value).put(&mut encoder, name, help);
        let Status { database, cache, deny_list, log, lease, relay, .. } = status;
        gauge("cache_keys", "Keys held by L1", cache.keys as f64)?;
        gauge("cache_unknown_keys", "Unknown ids held by L1", cache.unknown_keys as f64)?;
        gauge(
            "consistency_bound_seconds",
            "How long after its revocation a key may still be allowed, as things stand",
            status.bound_seconds,
        )?;
        gauge(
            "consistency_age_seconds",
            "Age of this instance's knowledge of changes",
            lease.age_seconds.unwrap_or(f64::INFINITY),
        )?;
        gauge(
            "relay_age_seconds",
            "Age of what another instance relayed of the log last",
            relay.age_seconds.unwrap_or(f64::INFINITY),
        )?;
        gauge("epoch", "Number of the log up to which every change is known here", status.epoch as f64)?;
        gauge(
            "log_lag",
            "Changes in the log that are not known here yet; NaN while the database does not say",
            log.lag.map_or(f64::NAN, |lag| lag as f64),
        )?;
        gauge("deny_list_entries", "Keys refused by consistency.deny_file", deny_list.keys as f64)?;
        gauge(
            "deny_list_current",
            "1 while what consistency.deny_file says is in force, 0 while it is gone or was refused",
            f64::from(u8::from(deny_list.current)),
        )?;
        gauge("database_connections", "Open connections to the database", database.connections.into())?;
        gauge("database_connections_idle", "Those that nobody uses", database.idle_connections.into())?;
        gauge("database_connections_max", "Most that there may be", database.max_connections.into())?;
        gauge(
            "config_generation",
            "Number of the settings in force, counted from the start",
            status.settings.generation as f64,
        )?;
        if let Some(audit) = &status.audit {
            let help = "1 while the audit log can be written, 0 while changes are refused for want of it";
            gauge("audit_writable", help, f64::from(u8::from(audit.writable)))?;
        }
        gauge("uptime_seconds", "Since the process began to serve", status.uptime_seconds)
    }
}

/// One sample a mode: 1 for the one in force.
fn encode_mode(encoder: &mut DescriptorEncoder<'_>, in_force: &str) -> Result<(), std::fmt::Error> {
    let help = "How this instance may answer: 1 for the mode in force";
    let mut family = encoder.encode_descriptor("mode", help, None, MetricType::Gauge)?;
    for mode in Mode::ALL {
        let value = i64::from(mode.name() == in_force);
        family.encode_family(&[("mode", mode.name())])?.encode_gauge(&value)?;
    }
    Ok(())
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
