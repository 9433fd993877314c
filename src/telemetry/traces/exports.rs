//! Counts exports, and reports their failures once a minute.

use std::time::Duration;

use opentelemetry_otlp::SpanExporter as OtlpExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use parking_lot::Mutex;

use crate::clock::{BootTime, Clock};

/// Time between two lines of the log about failed exports.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Longest text of a failure that is kept.
const MAX_REASON: usize = 400;

static STATE: Mutex<Option<State>> = Mutex::new(None);

struct State {
    exports: ExportState,
    /// Time of the last line about a failure, and the number of failures then.
    logged: Option<(BootTime, u64)>,
}

/// Exports to the collector since the start.
#[derive(Debug, Clone)]
pub struct ExportState {
    /// URL of the collector, without credentials.
    pub endpoint: String,
    /// Batches that the collector took.
    pub batches: u64,
    /// Batches that were lost.
    pub failures: u64,
    /// Reason of the last failure; `None` if the last batch was taken.
    pub failing: Option<String>,
}

/// Returns the state of exports; `None` if traces aren't exported.
pub fn export_state() -> Option<ExportState> {
    STATE.lock().as_ref().map(|state| state.exports.clone())
}

/// Exporter whose results are counted.
#[derive(Debug)]
pub(super) struct CountedExporter(OtlpExporter);

impl CountedExporter {
    /// Wraps an exporter to `endpoint`.
    pub(super) fn new(exporter: OtlpExporter, endpoint: &str) -> Self {
        let (scheme, rest) = endpoint.split_once("://").unwrap_or(("", endpoint));
        let endpoint = format!("{scheme}://{}", rest.rsplit('@').next().unwrap_or_default());
        let exports = ExportState { endpoint, batches: 0, failures: 0, failing: None };
        *STATE.lock() = Some(State { exports, logged: None });
        Self(exporter)
    }
}

impl SpanExporter for CountedExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.0.export(batch).await;
        if let Some(state) = STATE.lock().as_mut() {
            state.record(result.as_ref().err().map(ToString::to_string), Clock::system().boot_now());
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

impl State {
    /// Counts an export. Logs a failure unless one was logged within a minute, and the first
    /// success after a failure.
    fn record(&mut self, failure: Option<String>, now: BootTime) {
        let endpoint = &self.exports.endpoint;
        let Some(mut reason) = failure else {
            self.exports.batches += 1;
            if self.exports.failing.take().is_some() {
                tracing::info!(endpoint, "traces are exported again");
            }
            return;
        };
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
        self.exports.failures += 1;
        let is_due = self.logged.is_none_or(|(at, _)| now.since(at) >= LOG_INTERVAL);
        if is_due {
            let batches = self.exports.failures - self.logged.map_or(0, |(_, before)| before);
            tracing::warn!(
                endpoint,
                batches,
                %reason,
                cure = "check tracing.endpoint and the collector; https needs an issuer that SSL_CERT_FILE or the system trusts",
                "traces can't be exported, and are lost"
            );
            self.logged = Some((now, self.exports.failures));
        }
        self.exports.failing = Some(reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_logged_once_a_minute_and_all_counted() {
        let exports = ExportState { endpoint: String::new(), batches: 0, failures: 0, failing: None };
        let mut state = State { exports, logged: None };
        let fail = |state: &mut State, seconds: u64| {
            state.record(Some("ä".repeat(300)), BootTime::from_micros(seconds * 1_000_000));
            state.logged.map(|(_, failures)| failures)
        };
        assert_eq!(fail(&mut state, 0), Some(1));
        assert_eq!(fail(&mut state, 59), Some(1));
        assert_eq!(fail(&mut state, 60), Some(3));
        assert_eq!((state.exports.failures, state.exports.failing.as_ref().map(String::len)), (3, Some(400)));
        state.record(None, BootTime::from_micros(0));
        assert_eq!((state.exports.batches, &state.exports.failing), (1, &None));
    }
}
