//! State of the services beside the database: Redis, and the collector of traces.

use serde::Serialize;

use crate::redis::RedisReport;
use crate::service::Service;
use crate::telemetry::traces::export_state;

/// Client of Redis.
#[derive(Debug, Serialize)]
pub struct RedisStatus {
    /// Use of the client: `cache` or `rate limits`.
    pub client: &'static str,
    /// True if it can be used.
    pub usable: bool,
    /// Address of the server or of the cluster; absent before the first connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Name of the cause for which it can't be used; absent while it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<&'static str>,
    /// Words of Redis or of the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Advice to an operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<&'static str>,
    /// Consequence meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<&'static str>,
    /// Time for which it can't be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub degraded_seconds: Option<f64>,
    /// Attempts to connect that failed.
    pub connection_failures: u64,
}

/// Export of traces.
#[derive(Debug, Serialize)]
pub struct TracesStatus {
    /// URL of the collector.
    pub endpoint: String,
    /// Batches that the collector took.
    pub batches: u64,
    /// Batches that were lost.
    pub failures: u64,
    /// Reason for which the last batch was lost; absent if it was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing: Option<String>,
}

impl RedisStatus {
    /// Reads the state of all clients.
    pub(super) fn read(service: &Service) -> Vec<Self> {
        let cache = service.shared.as_ref().map(|shared| shared.report());
        cache.into_iter().chain(service.limiter.redis_report()).map(Self::from).collect()
    }

    /// Describes the cause; `None` while there is none.
    pub(super) fn problem(&self) -> Option<String> {
        let Self { client, reason, cure, effect, .. } = self;
        let (reason, cure, effect) = (reason.as_ref()?, (*cure)?, (*effect)?);
        Some(format!("Redis ({client}) can't be used, so {effect}: {reason}; {cure}"))
    }
}

impl From<RedisReport> for RedisStatus {
    fn from(report: RedisReport) -> Self {
        let RedisReport { purpose, server, cause, degraded_for, effect, connection_failures } = report;
        let is_degraded = cause.is_some();
        Self {
            client: purpose,
            usable: !is_degraded && server.is_some(),
            server,
            cause: cause.as_ref().map(|cause| cause.kind.name()),
            cure: cause.as_ref().map(|cause| cause.kind.cure()),
            reason: cause.map(|cause| cause.reason),
            effect: is_degraded.then_some(effect),
            degraded_seconds: is_degraded.then_some(degraded_for.as_secs_f64()),
            connection_failures,
        }
    }
}

impl TracesStatus {
    /// Reads the state of the export.
    pub(super) fn read() -> Option<Self> {
        let state = export_state()?;
        let (batches, failures) = (state.batches, state.failures);
        Some(Self { endpoint: state.endpoint, batches, failures, failing: state.failing })
    }
}
