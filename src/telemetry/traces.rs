//! Exports traces to a collector, by OTLP over gRPC.

mod exports;
mod tls;

use std::env;
use std::time::Duration;

use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, ResourceDetector};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};

use crate::config::Tracing;
use crate::trace;
use exports::CountedExporter;
pub use exports::{ExportState, export_state};

/// Time for the collector to take the last spans, once the process stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);
/// Variables of the standard that name the protocol, the more special first.
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
/// Variables of the standard that name the compression, the more special first.
const COMPRESSIONS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"];
/// Endpoint if nothing names one, as the exporter has it.
const DEFAULT_ENDPOINT: &str = "http://localhost:4317";

/// An exporter that can't be built.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The endpoint is no URL.
    #[error("tracing.endpoint: {0}")]
    Endpoint(#[from] ExporterBuildError),
    /// A file of TLS can't be read.
    #[error("{variable}: {file}: {source}")]
    File {
        /// Environment variable that names the file.
        variable: &'static str,
        /// The file.
        file: String,
        /// Reason of the operating system.
        source: std::io::Error,
    },
    /// A certificate of the client without its key, or the other way round.
    #[error("{variable}: is needed beside the other file of the client's certificate")]
    HalfIdentity {
        /// Environment variable that is missing.
        variable: &'static str,
    },
}

/// The running exporter.
pub struct Traces(SdkTracerProvider);

/// Checks the endpoint without connecting.
///
/// # Errors
/// When it isn't a URL.
pub fn check_endpoint(config: &Tracing) -> Result<(), String> {
    let (name, endpoint) = named_endpoint(config);
    match is_collector_url(&endpoint) {
        true => Ok(()),
        false => Err(format!("{name}: must be a URL such as http://collector:4317")),
    }
}

fn is_collector_url(endpoint: &str) -> bool {
    let Ok(uri) = endpoint.parse::<http::Uri>() else { return false };
    let is_http = uri
        .scheme_str()
        .is_some_and(|scheme| ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)));
    let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty()) else {
        return false;
    };
    // A port that is out of range isn't parsed, but taken for none.
    let address = authority.as_str().rsplit('@').next().unwrap_or_default();
    let port = address.strip_prefix(authority.host()).and_then(|rest| rest.strip_prefix(':'));
    is_http && port.is_none_or(|port| port.is_empty() || port.parse::<u16>().is_ok())
}

/// Checks the files of TLS that the standard's variables name.
///
/// # Errors
/// When one of them can't be read.
pub fn check_files(config: &Tracing) -> Result<(), TracesError> {
    match has_tls(&named_endpoint(config).1) && turned_off().is_none() {
        true => tls::config().map(drop),
        false => Ok(()),
    }
}

fn has_tls(endpoint: &str) -> bool {
    endpoint.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
}

/// Returns the variable of the standard by which nothing is exported.
fn turned_off() -> Option<&'static str> {
    let off = [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")];
    off.into_iter()
        .find_map(|(variable, off)| variable_text(variable)?.eq_ignore_ascii_case(off).then_some(variable))
}

/// Starts the exporter on the current runtime; None when `tracing.enabled` is false, or the
/// environment turns OpenTelemetry off.
///
/// # Errors
/// When the endpoint isn't a URL, or a file of TLS can't be read.
pub fn start(config: &Tracing) -> Result<Option<Traces>, TracesError> {
    if !config.enabled {
        return Ok(None);
    }
    if let Some(variable) = turned_off() {
        tracing::info!(variable, "no traces are exported: the variable turns them off");
        return Ok(None);
    }
    warn_of_what_is_not_supported();
    let (_, endpoint) = named_endpoint(config);
    let mut exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint.clone());
    if has_tls(&endpoint) {
        exporter = exporter.with_tls_config(tls::config()?);
    }
    // A caller's decision counts for its own traces.
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample_rate)));
    let provider = SdkTracerProvider::builder()
        .with_resource(resource(config))
        .with_sampler(sampler)
        .with_batch_exporter(CountedExporter::new(exporter.build()?, &endpoint))
        .build();
    trace::set_tracer(BoxedTracer::new(Box::new(provider.tracer("talos"))));
    Ok(Some(Traces(provider)))
}

/// Warns of a protocol and a compression that the standard's variables ask for in vain.
fn warn_of_what_is_not_supported() {
    if let Some((variable, protocol)) = first_variable(&PROTOCOLS)
        && protocol != "grpc"
    {
        let cure = "name the collector's port for gRPC, mostly 4317, in tracing.endpoint";
        tracing::warn!(
            variable,
            protocol,
            cure,
            "traces are exported by grpc all the same, the only protocol here"
        );
    }
    if let Some((variable, compression)) = first_variable(&COMPRESSIONS)
        && !compression.eq_ignore_ascii_case("none")
    {
        tracing::warn!(variable, "traces are exported without compression all the same");
    }
}

/// Returns the first of these environment variables that isn't empty, and its value. The more
/// special one stands first: it replaces the general one.
fn first_variable(variables: &[&'static str]) -> Option<(&'static str, String)> {
    variables.iter().find_map(|variable| Some((*variable, variable_text(variable)?)))
}

/// Returns an environment variable that isn't empty.
fn variable_text(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns the URL of the collector, and what names it: the configuration, else the standard's
/// variables.
fn named_endpoint(config: &Tracing) -> (&'static str, String) {
    const CONFIGURED: &str = "tracing.endpoint";
    let of_variable = |name: &'static str| variable_text(name).map(|value| (name, value));
    let (name, value) = config
        .endpoint
        .clone()
        .map(|value| (CONFIGURED, value))
        .or_else(|| of_variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))
        .or_else(|| of_variable("OTEL_EXPORTER_OTLP_ENDPOINT"))
        .unwrap_or_else(|| (CONFIGURED, DEFAULT_ENDPOINT.to_owned()));
    match value.contains("://") {
        true => (name, value),
        // Other programs accept a host and a port alone.
        false => (name, format!("http://{value}")),
    }
}

/// Returns what is said of this process. What the configuration sets counts more than the
/// standard's variables, and those more than defaults.
fn resource(config: &Tracing) -> Resource {
    let default = Tracing::default();
    let from_environment = EnvResourceDetector::new().detect();
    let attribute = |name: &'static str| from_environment.get(&Key::new(name)).map(|value| value.to_string());
    let configured = Some(config.service_name.clone()).filter(|name| *name != default.service_name);
    let name = configured
        .or_else(|| variable_text("OTEL_SERVICE_NAME"))
        .or_else(|| attribute("service.name"))
        .unwrap_or(default.service_name);
    let version = config.service_version.clone().or_else(|| attribute("service.version"));
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
    Resource::builder().with_service_name(name).with_attributes(attributes).build()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors_are_reached_by_http_urls() {
        for (endpoint, good) in [
            ("http://collector:4317", true),
            ("HTTPS://collector", true),
            ("http://[::1]:4317/", true),
            ("http://user:pass@collector:65535", true),
            ("http://collector:65536", false),
            ("http://collector:99999/v1", false),
            ("[::1]:99999", false),
            ("collector:4317", true),
            ("collector", true),
            ("grpc://collector:4317", false),
            ("ftp://collector", false),
            ("http://", false),
            ("http://${COLLECTOR}", false),
            ("unix:///run/collector.sock", false),
        ] {
            let config = Tracing { endpoint: Some(endpoint.to_owned()), ..Tracing::default() };
            let checked = check_endpoint(&config);
            assert_eq!(checked.is_ok(), good, "{endpoint}");
            assert!(
                checked.err().is_none_or(|problem| problem.starts_with("tracing.endpoint: must be a URL"))
            );
        }
    }
}
