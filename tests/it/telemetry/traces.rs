//! Spans on their way to a collector.

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::json;

use super::collector::{Collector, text};
use crate::rig::check::Check;
use crate::rig::http::{Call, Version};
use crate::rig::support::Must;
use crate::rig::talos::{ISSUED, Setup};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

pub fn traced(collector: &Collector) -> Setup {
    Setup::new()
        .set("TALOS_TRACING_ENABLED", "true")
        .set("TALOS_TRACING_ENDPOINT", &format!("http://127.0.0.1:{}", collector.port))
        .set("TALOS_TRACING_SAMPLE_RATE", "1")
        .set("TALOS_TRACING_ENVIRONMENT", "test")
        .set("OTEL_BSP_SCHEDULE_DELAY", "50")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_goes_on_with_envoys_trace_and_says_where_its_answer_came_from() {
    let collector = Collector::start().await;
    let talos = traced(&collector).start().await;
    let key = talos.issue(json!({})).await;
    talos.check(Check::bearer(&key.secret).header("traceparent", parent("01"))).await.allowed();
    talos.check(Check::bearer(&key.secret)).await.allowed();
    talos.check(Check::bearer("unknown").header("traceparent", "nonsense")).await.denied(401);
    let spans = collector.until("three Checks", |spans| named(spans, "Check").len() >= 3).await;
    let ours = |span: &&&Span| hex(&span.trace_id) == TRACE;
    let checks = named(&spans, "Check");
    let check = checks.iter().find(ours).must("the one of Envoy's trace");
    assert_eq!(hex(&check.parent_span_id), PARENT);
    assert_eq!(text(&check.attributes, "talos.tier").as_deref(), Some("lookup"));
    assert_eq!(text(&check.attributes, "talos.decision").as_deref(), Some("allow"));
    let database = named(&spans, "database");
    let lookup = database.iter().find(ours).must("the lookup");
    assert_eq!(lookup.parent_span_id, check.span_id);
    let tiers: Vec<_> = checks.iter().filter_map(|check| text(&check.attributes, "talos.tier")).collect();
    assert!(tiers.contains(&"memory".to_owned()), "{tiers:?}");
    let failed =
        checks.iter().flat_map(|check| &check.events).find(|event| event.name == "APIKeyVerificationFailed");
    let failed = failed.must("the event of a bad credential");
    assert_eq!(text(&failed.attributes, "Reason").as_deref(), Some("VERIFICATION_ERROR_NOT_FOUND"));
    assert_eq!(collector.resource("service.name").as_deref(), Some("talos"));
    assert_eq!(collector.resource("service.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
    assert_eq!(collector.resource("deployment.environment.name").as_deref(), Some("test"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_has_its_route_and_its_events() {
    let collector = Collector::start().await;
    let talos = traced(&collector).start().await;
    let body = json!({ "name": "n", "actor_id": "alice", "metadata": { "team": "red" } });
    let call = Call::post(ISSUED).json(&body).header("traceparent", &parent("01"));
    talos.admin.send(Version::Http1, call).await.expect(201);
    // A trace that its caller doesn't sample isn't sampled here.
    let call = Call::get(ISSUED).header("traceparent", &parent("00"));
    talos.admin.send(Version::Http1, call).await.expect(200);
    talos.admin.get("/kxq7?secret=hunter2").await.expect(404);
    let spans = collector
        .until("the unknown path", |spans| {
            spans.iter().any(|span| text(&span.attributes, "http.route").as_deref() == Some("unmatched"))
        })
        .await;
    let of_route = |route: &str| {
        spans
            .iter()
            .filter(|span| text(&span.attributes, "http.route").as_deref() == Some(route))
            .collect::<Vec<_>>()
    };
    let [issue] = of_route(ISSUED)[..] else { panic!("not one span: {spans:#?}") };
    assert_eq!((hex(&issue.trace_id).as_str(), hex(&issue.parent_span_id).as_str()), (TRACE, PARENT));
    assert_eq!(issue.name, "POST");
    assert_eq!(text(&issue.attributes, "http.response.status_code").as_deref(), Some("201"));
    let [event] = &issue.events[..] else { panic!("not one event: {issue:#?}") };
    assert_eq!(event.name, "IssuedAPIKeyCreated");
    assert_eq!(text(&event.attributes, "ActorID").as_deref(), Some("alice"));
    let names: Vec<&str> = event.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
    assert!(
        !names.iter().any(|name| name.starts_with("metadata.")),
        "the key's own attributes stay out: {names:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_stops_nothing() {
    let nowhere = format!("http://127.0.0.1:{}", crate::rig::process::free_port());
    let setup = traced(&Collector::start().await).set("TALOS_TRACING_ENDPOINT", &nowhere);
    let talos = setup.start().await;
    let key = talos.issue(json!({})).await;
    for _ in 0..20 {
        talos.check(Check::bearer(&key.secret)).await.allowed();
    }
    talos.stop().await;
}
