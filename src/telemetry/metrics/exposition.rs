//! Writes all metrics as a page: counters of the planes, and readings of the process's state.

mod usage;

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use usage::UsageReading;

use super::{Metrics, Tier};
use crate::cache::freshness::Mode;
use crate::redis::CauseKind;
use crate::service::Service;
use crate::telemetry::histogram::Histogram;
use crate::telemetry::status::{AuditLog, Status};

impl Metrics {
    /// Writes the page.
    pub fn render(&self, service: &Service, status: Status, format: Format) -> String {
        let mut all = Registry::default();
        let registry = all.sub_registry_with_prefix("talos");
        self.register(registry);
        registry.register_collector(Box::new(Readings {
            status,
            uses_dropped: service.uses.dropped(),
            usage: UsageReading::of(service),
            uncounted_uses: service.limiter.failures(),
            credit_failures: service.credit_failures(),
            credential_failures: service.audit.failures(),
        }));
        if let Some(ory) = &self.ory {
            ory.register(&mut all);
        }
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &all);
        match format {
            Format::OpenMetrics => text,
            Format::Text => to_prometheus_text(&text),
        }
    }

    /// Adds the counters of the planes to a registry.
    fn register(&self, registry: &mut Registry) {
        let Self { checks, lookups, tokens_minted, reloads, log_trimmed, .. } = self;
        let Self { connections, requests, refused_requests, deny_file, .. } = self;
        registry.register("checks", "Checks, by decision and reason", checks.all.clone());
        registry.register_collector(Box::new(CheckDurations(checks.durations.clone())));
        registry.register("http_requests", "Requests to the HTTP planes", requests.all.clone());
        registry.register(
            "http_request_duration_seconds",
            "Duration of requests to the HTTP planes",
            requests.durations.clone(),
        );
        registry.register("cache_hits", "Checks answered from memory", lookups.hits.clone());
        registry.register("cache_misses", "Checks that memory could not answer", lookups.misses.clone());
        registry.register(
            "cache_skips",
            "Checks that need no cache: without a credential, or with a token",
            lookups.skipped.clone(),
        );
        registry.register("tokens_minted", "JWTs minted for upstream", tokens_minted.clone());
        registry.register("config_reloads", "Reloads of the configuration, by outcome", reloads.all.clone());
        registry.register(
            "config_last_reload_successful",
            "1 if everything that was last read of the configuration is in force",
            reloads.successful.clone(),
        );
        registry.register(
            "config_key_set_fetches",
            "Rounds of fetching key sets from servers, by outcome",
            reloads.fetches.clone(),
        );
        registry.register(
            "log_trimmed",
            "Old entries of the mutation log that this process deleted",
            log_trimmed.clone(),
        );
        registry.register(
            "deny_list_lifted",
            "Keys that were removed from consistency.deny_file and are no longer refused by it",
            deny_file.lifted.clone(),
        );
        connections.register(registry);
        refused_requests.register(registry);
        self.edge.register(registry);
    }
}

/// Text format of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's text format.
    Text,
    /// OpenMetrics.
    OpenMetrics,
}

impl Format {
    /// Value of the `Content-Type` header.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Converts OpenMetrics to Prometheus's text format, in which a counter's family has the name of
/// its samples.
fn to_prometheus_text(open_metrics: &str) -> String {
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

/// Durations of Checks, by tier.
#[derive(Debug)]
struct CheckDurations([Histogram; 3]);

impl Collector for CheckDurations {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Duration of Checks, by the tier that answered";
        let mut family =
            encoder.encode_descriptor("check_duration_seconds", help, None, MetricType::Histogram)?;
        Tier::ALL.iter().zip(&self.0).try_for_each(|(tier, durations)| {
            durations.encode(family.encode_family(&[("tier", tier.name())])?)
        })
    }
}

/// State of the process when the page was asked for.
#[derive(Debug)]
struct Readings {
    status: Status,
    uses_dropped: u64,
    usage: UsageReading,
    uncounted_uses: u64,
    credit_failures: u64,
    /// All refused credentials, and those that the audit log only counts.
    credential_failures: (u64, u64),
}

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let page = &mut Page(&mut encoder);
        self.encode_database(page)?;
        self.usage.encode(page)?;
        self.encode_cache(page)?;
        self.encode_polls(page)?;
        self.encode_consistency(page)?;
        self.encode_deny_list(page)?;
        self.encode_audit(page)?;
        self.encode_signing(page)?;
        self.encode_process(page)
    }
}

impl Readings {
    fn encode_database(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let database = &self.status.database;
        page.counter("store_key_reads", "Rows of keys read from the database", database.key_reads)?;
        page.counter(
            "guesses_refused",
            "Lookups of credentials never seen before that were refused because too many others waited",
            database.guesses_refused,
        )?;
        page.counter(
            "last_used_dropped",
            "Uses of keys that were not recorded because last_used.queue_size others waited",
            self.uses_dropped,
        )?;
        page.counter(
            "rate_limiter_failures",
            "Uses of keys that were not counted against a rate limit because Redis gave no answer",
            self.uncounted_uses,
        )?;
        page.counter(
            "credit_failures",
            "Uses of keys that were refused because the database did not say in time that their credits were spent",
            self.credit_failures,
        )?;
        page.gauge("database_connections", "Open connections to the database", database.connections.into())?;
        page.gauge(
            "database_connections_idle",
            "Open connections to the database that are not in use",
            database.idle_connections.into(),
        )?;
        page.gauge(
            "database_connections_max",
            "Maximum number of connections to the database",
            database.max_connections.into(),
        )?;
        page.gauge(
            "database_clock_skew_seconds",
            "Time by which this process's clock is ahead of the database's; NaN for SQLite and before the first poll",
            database.clock_skew_seconds.unwrap_or(f64::NAN),
        )
    }

    fn encode_cache(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let cache = &self.status.cache;
        page.counter("redis_hits", "Lookups answered from Redis", cache.redis_hits)?;
        page.counter("redis_misses", "Lookups that Redis could not answer", cache.redis_misses)?;
        page.gauge("cache_keys", "Keys in memory", cache.keys as f64)?;
        page.gauge("cache_unknown_keys", "Unknown key ids in memory", cache.unknown_keys as f64)?;
        self.encode_dependencies(page)?;
        if self.status.breaker == "none" {
            return Ok(());
        }
        let help = "State of the circuit breaker in front of Redis: 1 for the current one";
        page.states("redis_breaker", help, "state", ["closed", "half-open", "open"], self.status.breaker)
    }

    /// Redis and the collector of traces. Without them there is nothing to write.
    fn encode_dependencies(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let Status { redis, traces, .. } = &self.status;
        if !redis.is_empty() {
            let help = "1 for the cause for which Redis can't be used, by client";
            let mut causes = page.0.encode_descriptor("redis_degraded", help, None, MetricType::Gauge)?;
            for client in redis {
                for cause in CauseKind::ALL.map(CauseKind::name) {
                    let value = i64::from(client.cause == Some(cause));
                    causes
                        .encode_family(&[("client", client.client), ("cause", cause)])?
                        .encode_gauge(&value)?;
                }
            }
            let help = "Attempts to connect to Redis that failed, by client";
            let kind = MetricType::Counter;
            let mut failures = page.0.encode_descriptor("redis_connection_failures", help, None, kind)?;
            for client in redis {
                failures
                    .encode_family(&[("client", client.client)])?
                    .encode_counter::<NoLabelSet, _, u64>(&client.connection_failures, None)?;
            }
        }
        if let Some(traces) = traces {
            page.counter("trace_exports", "Batches of spans that the collector took", traces.batches)?;
            page.counter("trace_export_failures", "Batches of spans that were lost", traces.failures)?;
        }
        Ok(())
    }

    fn encode_polls(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let Status { poll, log, epoch, .. } = &self.status;
        page.counter(
            "poll_failures",
            "Polls of the mutation log that failed, or whose answer can't be relied on",
            poll.failures,
        )?;
        page.gauge("poll_seconds", "Duration of the last poll of the mutation log", poll.seconds)?;
        page.gauge(
            "poll_server_age_seconds",
            "Time for which polls have been answered by the same database server",
            poll.server_age_seconds.unwrap_or(f64::NAN),
        )?;
        page.flag(
            "database_reconnects",
            "1 if new connections to the database can be made for polls",
            poll.reconnect_error.is_none(),
        )?;
        page.counter(
            "log_rewritten",
            "Times that the mutation log was found rewritten (a restore, a failover) and the cache was dropped",
            log.rewritten,
        )?;
        page.gauge(
            "epoch",
            "Number in the mutation log up to which this process knows every change",
            *epoch as f64,
        )?;
        page.gauge(
            "log_lag",
            "Changes in the log that this process does not know yet; NaN while the database does not answer",
            log.lag.map_or(f64::NAN, |lag| lag as f64),
        )
    }

    fn encode_consistency(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let Status { lease, relay, exposure, mode, bound_seconds, .. } = &self.status;
        page.states(
            "mode",
            "Mode in which this process answers: 1 for the current one",
            "mode",
            Mode::ALL.map(Mode::name),
            mode,
        )?;
        page.counter(
            "lease_lapses",
            "Times that the lease ran out because the mutation log was not polled in time",
            lease.lapses,
        )?;
        page.counter(
            "outages",
            "Times that the lease had run out and no new connection to the database could be made",
            lease.outages,
        )?;
        page.counter(
            "relay_answers",
            "Answers sent through Redis to instances that can't reach the database",
            relay.answers,
        )?;
        page.gauge(
            "consistency_bound_seconds",
            "Time after its revocation for which a key may still be allowed, at present",
            *bound_seconds,
        )?;
        page.gauge(
            "exposure_upstream_token_seconds",
            "Time after its key's revocation for which a token that was sent upstream may still be accepted there",
            exposure.upstream_token_seconds,
        )?;
        page.gauge(
            "exposure_derived_token_seconds",
            "Time after its key's revocation for which a derived token may be accepted where it is verified without Talos",
            exposure.derived_token_seconds,
        )?;
        page.gauge(
            "consistency_age_seconds",
            "Age of what this process knows of the mutation log",
            lease.age_seconds.unwrap_or(f64::INFINITY),
        )?;
        page.gauge(
            "relay_age_seconds",
            "Age of what another instance last relayed of the mutation log",
            relay.age_seconds.unwrap_or(f64::INFINITY),
        )
    }

    fn encode_deny_list(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let deny_list = &self.status.deny_list;
        page.gauge("deny_list_entries", "Keys refused by consistency.deny_file", deny_list.keys as f64)?;
        page.flag(
            "deny_list_current",
            "1 if the content of consistency.deny_file is in force; 0 if it is missing, was refused or waits",
            deny_list.current,
        )?;
        page.gauge(
            "deny_list_held",
            "Keys still refused although consistency.deny_file no longer names them, until it has stood unchanged",
            deny_list.held.unwrap_or(0) as f64,
        )
    }

    fn encode_audit(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let (all, throttled) = self.credential_failures;
        page.counter("credential_failures", "Refused credentials, on all planes", all)?;
        page.counter(
            "credential_failures_throttled",
            "Refused credentials that the audit log only counts",
            throttled,
        )?;
        if let Some(audit) = &self.status.audit {
            page.counter("audit_lines", "Lines written to the audit log", audit.lines)?;
            page.counter("audit_write_failures", "Failed writes to the audit log", audit.failures)?;
            let help = "1 if the audit log can be written; 0 while changes are refused because it can't";
            page.flag("audit_writable", help, audit.writable)?;
        }
        // There without an audit log as well, so that alerts can be tried anywhere.
        let none = AuditLog::no_outside_changes();
        let changes = self.status.audit.as_ref().map_or(&none, |audit| &audit.outside_changes);
        let help = "Times that somebody else changed the file of the audit log, by change";
        page.counters("audit_file_changes", help, "change", changes)?;
        let lacks = self.status.audit.as_ref().and_then(|audit| audit.database_lacks.as_ref());
        page.gauge(
            "audit_changes_database_lacks",
            "Revocations and deletions in the audit log that the database lacks, as after a restore",
            lacks.map_or(0, |lacks| lacks.revocations + lacks.deletions) as f64,
        )
    }

    fn encode_signing(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let signing = self.status.signing.as_ref();
        let secrets = signing.into_iter().flat_map(|signing| &signing.secrets);
        let prefixes = signing.into_iter().flat_map(|signing| &signing.prefixes);
        page.by_signer(
            "hmac_secret_keys",
            "Active keys that need an HMAC secret, by the id and state of the secret",
            "secret_id",
            secrets.map(|secret| (secret.secret_id.as_deref(), secret.state, secret.keys)),
        )?;
        page.by_signer(
            "key_prefix_keys",
            "Active keys of a prefix, by the prefix and its state",
            "prefix",
            prefixes.map(|prefix| (prefix.prefix.as_deref(), prefix.state, prefix.keys)),
        )
    }

    fn encode_process(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        page.gauge(
            "config_generation",
            "Number of the settings in force, counted from the start",
            self.status.settings.generation as f64,
        )?;
        page.gauge("uptime_seconds", "Time since the process began to serve", self.status.uptime_seconds)
    }
}

/// Writes single samples.
struct Page<'a, 'e>(&'a mut DescriptorEncoder<'e>);

impl Page<'_, '_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        counter.encode(self.0.encode_descriptor(name, help, None, counter.metric_type())?)
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let gauge = ConstGauge::new(value);
        gauge.encode(self.0.encode_descriptor(name, help, None, gauge.metric_type())?)
    }

    /// A gauge that is 1 or 0.
    fn flag(&mut self, name: &str, help: &str, value: bool) -> fmt::Result {
        self.gauge(name, help, f64::from(u8::from(value)))
    }

    /// One counter per value of a label.
    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: &BTreeMap<&'static str, u64>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, count) in values {
            family.encode_family(&[(label, *value)])?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
        }
        Ok(())
    }

    /// One gauge per signer: the number of its keys.
    fn by_signer<'s>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        signers: impl Iterator<Item = (Option<&'s str>, &'static str, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (signer, state, keys) in signers {
            let labels = [(label, signer.unwrap_or_default()), ("state", state)];
            family.encode_family(&labels)?.encode_gauge(&i64::try_from(keys).unwrap_or(i64::MAX))?;
        }
        Ok(())
    }

    /// One gauge per state: 1 for the current one, 0 for the others.
    fn states<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        states: [&str; N],
        current: &str,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for state in states {
            family.encode_family(&[(label, state)])?.encode_gauge(&i64::from(state == current))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_the_name_of_their_samples() {
        let open = "# HELP a A.\n# TYPE a counter\na_total 1\n# HELP b B.\n# TYPE b gauge\nb 2\n# EOF\n";
        let text = "# HELP a_total A.\n# TYPE a_total counter\na_total 1\n# HELP b B.\n# TYPE b gauge\nb 2\n";
        assert_eq!(to_prometheus_text(open), text);
    }
}
