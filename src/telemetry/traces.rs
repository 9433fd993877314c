//! Exports traces to a collector, by OTLP over gRPC.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};

use crate::config::Tracing;
use crate::trace;

/// Time for the collector to take the last spans, once the process stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// An exporter that can't be built.
#[derive(Debug, thiserror::Error)]
#[error("tracing.endpoint: {0}")]
pub struct TracesError(#[from] ExporterBuildError);

/// The running exporter.
pub struct Traces(SdkTracerProvider);

/// Checks the endpoint without connecting.
///
/// # Errors
/// When it isn't a URL.
pub fn check_endpoint(config: &Tracing) -> Result<(), String> {
    let is_url = |endpoint: &str| {
        let uri = endpoint.parse::<http::Uri>();
        uri.is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()))
    };
    match &config.endpoint {
        Some(endpoint) if !is_url(endpoint) => {
            Err("tracing.endpoint: must be a URL such as http://collector:4317".to_owned())
        }
        _ => Ok(()),
    }
}

/// Starts the exporter on the current runtime; None when `tracing.enabled` is false.
///
/// # Errors
/// When the endpoint isn't a URL.
pub fn start(config: &Tracing) -> Result<Option<Traces>, TracesError> {
    if !config.enabled {
        return Ok(None);
    }
    let mut exporter = SpanExporter::builder().with_tonic();
    if let Some(endpoint) = &config.endpoint {
        let endpoint = match endpoint.contains("://") {
            true => endpoint.clone(),
            // Other programs accept a host and a port alone.
            false => format!("http://{endpoint}"),
        };
        exporter = exporter.with_endpoint(endpoint);
    }
    let version = config.service_version.clone();
    let mut attributes = vec![KeyValue::new(
        "service.version",
        version.unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
    )];
    attributes.extend(
        config
            .environment
            .clone()
            .map(|environment| KeyValue::new("deployment.environment.name", environment)),
    );
    let resource = Resource::builder()
        .with_service_name(config.service_name.clone())
        .with_attributes(attributes)
        .build();
    // A caller's decision counts for its own traces.
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample_rate)));
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_sampler(sampler)
        .with_batch_exporter(exporter.build()?)
        .build();
    trace::set_tracer(BoxedTracer::new(Box::new(provider.tracer("talos"))));
    Ok(Some(Traces(provider)))
}

impl Traces {
    /// Sends the last spans, and stops.
    pub async fn stop(self) {
        let sent = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(SHUTDOWN_TIMEOUT)).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::warn!("the last spans could not be sent to tracing.endpoint");
        }
    }
}
