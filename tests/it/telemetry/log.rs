//! The request log: one line for each request, with its route and none of its content.

use serde_json::{Value, json};

use crate::rig::http::{Call, Version};
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{ISSUED, Setup, Talos};

fn requests(talos: &Talos) -> Vec<Value> {
    let log = talos.process.log();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).must(line));
    lines.filter(|line| line["fields"]["message"] == "request").map(|line| line["fields"].clone()).collect()
}

async fn logged(talos: &Talos, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    until(what, async || requests(talos).into_iter().find(|line| is_it(line))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_has_a_line() {
    let setup = Setup::new()
        .set("TALOS_LOG_FORMAT", "json")
        .set("TALOS_SERVE_HTTP_REQUEST_LOG_EXCLUDE_HEALTH_ENDPOINTS", "true");
    let talos = setup.start().await;
    let call = Call::get(&format!("{ISSUED}?page_size=1&page_token=hunter2")).header("x-request-id", "req-7");
    talos.admin.send(Version::Http1, call).await.expect(400);
    let line = logged(&talos, "the list", |line| line["request_id"] == "req-7").await;
    assert_eq!((line.text("/plane"), line.text("/method"), line.text("/route")), ("admin", "GET", ISSUED));
    assert_eq!(line["status"], 400);
    assert!(line.at("/duration_ms").as_f64().is_some_and(|took| took > 0.0), "{line:#}");

    let key = talos.issue(json!({})).await;
    talos.admin.post(&format!("{ISSUED}/{}:revoke", key.id), &json!({})).await.expect(204);
    let template = "/v2alpha1/admin/issuedApiKeys/{key_id}:revoke";
    let line = logged(&talos, "the revocation", |line| line["route"] == template).await;
    assert_eq!((&line["status"], line.text("/request_id").len()), (&json!(204), 36));

    talos.public.get("/hunter2/x?y=hunter2").await.expect(404);
    logged(&talos, "the unknown path", |line| line["route"] == "unmatched" && line["plane"] == "public")
        .await;
    // A caller's trace is named, so that its log and ours can be read together.
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let call = Call::get(ISSUED).header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-00"));
    talos.admin.send(Version::Http1, call).await.expect(200);
    until("the line of the trace", async || {
        let log = talos.process.log();
        let mut lines = log.lines().map(|line| serde_json::from_str::<Value>(line).must(line));
        lines.find(|line| line["trace_id"] == trace && line["fields"]["message"] == "request")
    })
    .await;

    let log = talos.process.log();
    assert!(!log.contains("hunter2") && !log.contains(&key.id) && !log.contains(&key.secret), "{log}");
    assert!(!log.contains("/health/"), "questions about health are left out");
}
