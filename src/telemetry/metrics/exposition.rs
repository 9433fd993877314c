//! All metrics as they are told: those that are counted, and readings that live elsewhere.

use std::collections::HashSet;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::{Metrics, Tier};
use crate::cache::freshness::Mode;
use crate::service::Service;
use crate::telemetry::histogram::Histogram;
use crate::telemetry::status::Status;

impl Metrics {
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
            refused_requests,
            deny_file,
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
        registry.register(
            "deny_list_lifted",
            "Keys that consistency.deny_file named and no longer does, and that it no longer refuses",
            deny_file.lifted.clone(),
        );
        connections.register(&mut registry);
        refused_requests.register(&mut registry);
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
        // long: one metric after the other, in the order of the page.
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
            "Times that the lease ran out: the log of changes was not polled in time",
            status.lease.lapses,
        )?;
        counter(
            "outages",
            "Times that the lease had run out and the database could not be reached by a new connection",
            status.lease.outages,
        )?;
        counter(
            "poll_failures",
            "Polls of the log of changes that brought no answer, or none that can be relied on",
            status.poll.failures,
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
        let Status { database, cache, deny_list, log, lease, poll, relay, .. } = status;
        gauge("poll_seconds", "How long the last poll of the log of changes took", poll.seconds)?;
        gauge(
            "poll_server_age_seconds",
            "How long polls have come from the same database server",
            poll.server_age_seconds.unwrap_or(f64::NAN),
        )?;
        gauge(
            "database_reconnects",
            "1 while new connections to the database can be made for polls, 0 while they can't",
            f64::from(u8::from(poll.reconnect_error.is_none())),
        )?;
        gauge("cache_keys", "Keys held by L1", cache.keys as f64)?;
        gauge("cache_unknown_keys", "Unknown ids held by L1", cache.unknown_keys as f64)?;
        gauge(
            "consistency_bound_seconds",
            "How long after its revocation a key may still be allowed, as things stand",
            status.bound_seconds,
        )?;
        gauge(
            "exposure_upstream_token_seconds",
            "How long after its key's revocation a token that went upstream may still be believed there",
            status.exposure.upstream_token_seconds,
        )?;
        gauge(
            "exposure_derived_token_seconds",
            "How long after its key's revocation a token that was derived may still be believed by who verifies it alone",
            status.exposure.derived_token_seconds,
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
            "1 while what consistency.deny_file says is in force, 0 while it is gone, was refused or needs a second look",
            f64::from(u8::from(deny_list.current)),
        )?;
        gauge(
            "deny_list_held",
            "Keys still refused although consistency.deny_file no longer names them, until a second look",
            deny_list.held.unwrap_or(0) as f64,
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
