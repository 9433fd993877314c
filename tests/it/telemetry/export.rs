//! The way of spans to a collector over TLS, and what is said when they don't arrive.

use serde_json::json;

use super::collector::Collector;
use super::traces::traced;
use crate::rig::authority::Authority;
use crate::rig::check::Check;
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{Setup, Talos};

fn traced_over_tls(collector: &Collector) -> Setup {
    traced(collector).set("TALOS_TRACING_ENDPOINT", &format!("https://127.0.0.1:{}", collector.port))
}

async fn checks(talos: &Talos) {
    let key = talos.issue(json!({})).await;
    talos.check(Check::bearer(&key.secret)).await.allowed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_over_tls_is_trusted_by_the_systems_issuers() {
    let authority = Authority::new();
    let collector = Collector::start_tls(authority.issue("127.0.0.1", 2100)).await;
    let setup = traced_over_tls(&collector);
    let file = setup.path("issuers.pem");
    std::fs::write(&file, authority.pem()).must("writing issuers");
    let talos = setup
        .set("SSL_CERT_FILE", &file.display().to_string())
        .set("OTEL_SERVICE_NAME", "edge-keys")
        .set("OTEL_RESOURCE_ATTRIBUTES", "service.version=7.8.9,team=platform")
        .start()
        .await;
    checks(&talos).await;
    collector.until("spans", |spans| !spans.is_empty()).await;
    assert_eq!(collector.resource("service.name").as_deref(), Some("edge-keys"));
    assert_eq!(collector.resource("service.version").as_deref(), Some("7.8.9"));
    assert_eq!(collector.resource("team").as_deref(), Some("platform"));
    // The collector has the spans before its answer is counted.
    until("the export is counted", async || {
        (talos.metric("talos_trace_exports_total").await >= 1.0).then_some(())
    })
    .await;
    assert_eq!(talos.metric("talos_trace_export_failures_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_that_are_lost_are_counted_and_said_once() {
    let authority = Authority::new();
    let collector = Collector::start_tls(authority.issue("127.0.0.1", 2100)).await;
    let setup = traced_over_tls(&collector);
    let file = setup.path("issuers.pem");
    std::fs::write(&file, Authority::new().pem()).must("writing issuers");
    let talos = setup.set("SSL_CERT_FILE", &file.display().to_string()).start().await;
    until("several exports have failed", async || {
        checks(&talos).await;
        (talos.metric("talos_trace_export_failures_total").await >= 3.0).then_some(())
    })
    .await;
    let log = talos.process.log();
    assert_eq!(log.matches("traces can't be exported").count(), 1, "{log}");
    let status = talos.metrics.get("/status").await.expect(200).json();
    assert!(status.text("/traces/failing").to_lowercase().contains("certificate"), "{status}");
    assert!(status.at("/problems").to_string().contains("tracing.endpoint"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_the_standards_variables_name_are_checked_before_the_start() {
    let setup = Setup::new()
        .set("TALOS_TRACING_ENABLED", "true")
        .set("TALOS_TRACING_ENDPOINT", "https://127.0.0.1:4317");
    let key = setup.path("client.key");
    std::fs::write(&key, "a key").must("writing a key");
    for (variable, file, named) in [
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/none.pem".to_owned(), "OTEL_EXPORTER_OTLP_CERTIFICATE"),
        (
            "OTEL_EXPORTER_OTLP_CLIENT_KEY",
            key.display().to_string(),
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE: is needed beside",
        ),
    ] {
        let setup = setup.clone().set(variable, &file);
        let checked = setup.run(&["config", "check"]).await;
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(checked.status.code() == Some(64) && said.contains(named), "{said}");
        assert!(setup.refused().await.contains(named));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_standards_variable_turns_traces_off() {
    let collector = Collector::start().await;
    let talos = traced(&collector).set("OTEL_SDK_DISABLED", "true").start().await;
    checks(&talos).await;
    assert!(talos.process.log().contains("OTEL_SDK_DISABLED"), "{}", talos.process.log());
    assert!(talos.metrics.get("/status").await.expect(200).json().get("traces").is_none());
    assert!(collector.bytes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_of_traces_alone_replaces_the_general_one() {
    let collector = Collector::start().await;
    let general = traced(&collector)
        .set("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .set("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip");
    let replaced = general
        .clone()
        .set("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")
        .set("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none");
    let talos = replaced.start().await;
    assert!(!talos.process.log().contains("all the same"), "{}", talos.process.log());
    // Both write to one log.
    let warned = general.start().await.process.log();
    for what in ["exported by grpc all the same", "exported without compression all the same"] {
        assert_eq!(warned.matches(what).count(), 1, "{what}: {warned}");
    }
}
