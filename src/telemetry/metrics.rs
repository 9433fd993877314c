//! Prometheus metrics. No key, actor or tenant is ever a label.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use super::connections::Connections;
use super::histogram::Histogram;
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
    /// Requests of the HTTP planes.
    pub requests: Requests,
    /// Requests refused before anything of them was done.
    pub refusals: Refusals,
    /// Whether the deny file is gone or was refused.
    deny_file_is_bad: AtomicBool,
}

/// Decisions by outcome and reason, and how long they took.
pub struct Checks {
    all: Family<Labels, Counter>,
    /// Looked up once: allowing must not take the family's lock.
    allowed: Counter,
    /// By tier, in the order of [`Tier`].
    durations: [Histogram; 3],
}

/// Where the answer to a Check came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tier {
    /// No key was looked for: none was shown, or a token, or what can't be a key.
    #[default]
    None,
    /// L1.
    Memory,
    /// L2 or the database.
    Lookup,
}

impl Tier {
    const ALL: [Self; 3] = [Self::None, Self::Memory, Self::Lookup];

    /// Its name in labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Memory => "memory",
            Self::Lookup => "lookup",
        }
    }
}

impl From<CacheResult> for Tier {
    fn from(result: CacheResult) -> Self {
        match result {
            CacheResult::Hit => Self::Memory,
            CacheResult::Miss => Self::Lookup,
            CacheResult::Skip => Self::None,
        }
    }
}

impl Default for Checks {
    fn default() -> Self {
        let all = Family::<Labels, Counter>::default();
        let allowed = all.get_or_create(&[("decision", "allow"), ("reason", "ok")]).clone();
        Self { all, allowed, durations: Default::default() }
    }
}

impl Checks {
    /// Counts how long a decision took.
    pub fn took(&self, tier: Tier, duration: Duration) {
        self.durations[tier as usize].observe(duration);
    }

    /// Counts a request that was let through.
    pub fn allowed(&self) {
        self.allowed.inc();
    }

    /// Counts one that wasn't.
    pub fn refused(&self, reason: &'static str) {
        self.all.get_or_create(&[("decision", "deny"), ("reason", reason)]).inc();
    }
}

type Request = [(&'static str, Cow<'static, str>); 4];
type Timed = [(&'static str, Cow<'static, str>); 3];

/// Requests of the HTTP planes, by the routes as they are described.
#[derive(Default)]
pub struct Requests {
    all: Family<Request, Counter>,
    durations: Family<Timed, Histogram>,
}

impl Requests {
    /// Counts one.
    pub fn count(
        &self,
        plane: &'static str,
        route: Cow<'static, str>,
        method: &'static str,
        status: u16,
        took: Duration,
    ) {
        let timed = [("plane", plane.into()), ("route", route), ("method", method.into())];
        let [plane, route, method] = timed.clone();
        self.all.get_or_create(&[plane, route, method, ("status", status.to_string().into())]).inc();
        self.durations.get_or_create(&timed).observe(took);
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

    /// Everything there is to know now.
    pub fn render(&self, service: &Service, status: Status, format: Format) -> String {
        let mut registry = Registry::with_prefix("talos");
        let Self {
            checks,
            lookups,
            tokens_minted,
            reloads,
            log_trimmed,
            connections,
            requests,
            refusals,
            deny_file_is_bad: _,
        } = self;
        registry.register("checks", "Decisions of the authz plane", checks.all.clone());
        registry.register_collector(Box::new(Durations(checks.durations.clone())));
        registry.register("http_requests", "Requests of the HTTP planes", requests.all.clone());
        registry.register(
            "http_request_duration_seconds",
            "How long requests of the HTTP planes took",
            requests.durations.clone(),
        );
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
        match format {
            Format::OpenMetrics => text,
            Format::Text => classic(&text),
        }
    }
}

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's text format.
    Text,
    /// OpenMetrics.
    OpenMetrics,
}

impl Format {
    /// Its name on the wire.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// OpenMetrics as Prometheus's text format: there the family of a counter has the name of its samples.
fn classic(open_metrics: &str) -> String {
    let counters: HashSet<&str> = open_metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(open_metrics.len() + 1_024);
    for line in open_metrics.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        let about = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        match about.and_then(|about| about.split_once(' ')) {
            Some((name, rest)) if counters.contains(name) => {
                text.extend([&line[..7], name, "_total ", rest]);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

/// How long Checks took.
#[derive(Debug)]
struct Durations([Histogram; 3]);

impl Collector for Durations {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "How long Checks took, by where their answer came from";
        let mut family =
            encoder.encode_descriptor("check_duration_seconds", help, None, MetricType::Histogram)?;
        Tier::ALL.iter().zip(&self.0).try_for_each(|(tier, durations)| {
            durations.encode(family.encode_family(&[("tier", tier.name())])?)
        })
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
            "lease_lapses",
            "Times that the lease had run out and the log of changes could not be polled",
            status.lease.lapses,
        )?;
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
        if status.breaker != "none" {
            encode_breaker(&mut encoder, status.breaker)?;
        }
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

/// One sample a state: 1 for the one in force.
fn encode_breaker(encoder: &mut DescriptorEncoder<'_>, in_force: &str) -> Result<(), std::fmt::Error> {
    let help = "Whether Redis is asked: 1 for the state of its breaker in force";
    let mut family = encoder.encode_descriptor("redis_breaker", help, None, MetricType::Gauge)?;
    for state in ["closed", "half-open", "open"] {
        let value = i64::from(state == in_force);
        family.encode_family(&[("state", state)])?.encode_gauge(&value)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_the_name_of_their_samples() {
        let open = "# HELP a A.\n# TYPE a counter\na_total 1\n# HELP b B.\n# TYPE b gauge\nb 2\n# EOF\n";
        let text = "# HELP a_total A.\n# TYPE a_total counter\na_total 1\n# HELP b B.\n# TYPE b gauge\nb 2\n";
        assert_eq!(classic(open), text);
    }
}
