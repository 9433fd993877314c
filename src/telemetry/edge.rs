//! Metrics of the streams to modules in Envoy.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type ByLabel = [(&'static str, &'static str); 1];

/// Results that are on the page before the first Ask, so that a rate has a beginning.
const RESULTS: [&str; 5] = ["entry", "not_cached", "check_only", "other_settings", "invalid"];
/// Reasons that are on the page before the first stream.
const REASONS: [&str; 5] = ["closed", "disabled", "silent", "user", "version"];

/// Metrics of the streams to modules in Envoy.
#[derive(Debug, Default)]
pub struct Edge {
    /// Open streams.
    pub streams: Gauge,
    asks: Family<ByLabel, Counter>,
    ended: Family<ByLabel, Counter>,
    /// Changes that were sent.
    pub changes: Counter,
    /// Requests that modules allowed.
    pub uses: Counter,
}

impl Edge {
    /// Counts an Ask by its result.
    pub fn asked(&self, result: &'static str) {
        self.asks.get_or_create(&[("result", result)]).inc();
    }

    /// Counts a stream that was refused, or ended, by its reason.
    pub fn ended(&self, reason: &'static str) {
        self.ended.get_or_create(&[("reason", reason)]).inc();
    }

    /// Adds the metrics to a registry.
    pub(super) fn register(&self, registry: &mut Registry) {
        let Self { streams, asks, ended, changes, uses } = self;
        for result in RESULTS {
            drop(asks.get_or_create(&[("result", result)]));
        }
        for reason in REASONS {
            drop(ended.get_or_create(&[("reason", reason)]));
        }
        registry.register("edge_streams", "Open streams to modules in Envoy", streams.clone());
        registry.register("edge_asks", "Questions of modules about a credential, by result", asks.clone());
        registry.register(
            "edge_streams_ended",
            "Streams to modules that were refused or have ended, by reason",
            ended.clone(),
        );
        registry.register(
            "edge_changes",
            "Changes of keys and actors that modules were sent",
            changes.clone(),
        );
        registry.register("edge_uses", "Requests that modules allowed", uses.clone());
    }
}
