//! The metrics page, as Prometheus and its tools read it; and the dashboards and alerts made of it.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::rig::check::Check;
use crate::rig::http::{Call, Version};
use crate::rig::needs::variable;
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{ISSUED, Setup, Talos};

/// A process in which everything happened at least once.
async fn busy() -> Talos {
    let setup = Setup::new();
    std::fs::create_dir(setup.path("audit")).must("a directory");
    let file = setup.path("audit/audit.jsonl").display().to_string();
    let talos = setup.set("TALOS_AUDIT_FILE", &file).start().await;
    let key = talos.issue(json!({})).await;
    for _ in 0..3 {
        talos.check(Check::bearer(&key.secret)).await.allowed();
    }
    talos.check(Check::bearer("unknown")).await.denied(401);
    talos.verify("unknown").await;
    talos.public.get("/kxq7").await.expect(404);
    talos.admin.send(Version::Http1, Call::new("BREW", ISSUED)).await;
    talos
}

fn promtool(arguments: &[&str], input: &str) {
    let monitoring = concat!(env!("CARGO_MANIFEST_DIR"), "/helm/monitoring");
    let mut command = Command::new(variable("TALOS_TEST_PROMTOOL"));
    command.args(arguments).current_dir(monitoring);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .must("starting promtool");
    child.stdin.take().must("its input").write_all(input.as_bytes()).must("writing to promtool");
    let output = child.wait_with_output().must("waiting for promtool");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && !said.contains("FAILED"), "promtool {arguments:?}: {said}\n{input}");
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_has_nothing_to_say() {
    needs!(Promtool);
    let talos = busy().await;
    let reply = talos.metrics.get("/metrics").await.expect(200);
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    promtool(&["check", "metrics"], &reply.text());
    let call = Call::get("/metrics").header("accept", "application/openmetrics-text; version=1.0.0");
    let reply = talos.metrics.send(Version::Http1, call).await.expect(200);
    assert!(reply.header("content-type").must("a type").starts_with("application/openmetrics-text"));
    assert!(reply.text().ends_with("# EOF\n"));
}

#[test]
fn the_alerts_fire_when_they_should() {
    needs!(Promtool);
    promtool(&["check", "rules", "../talos/alerts.yaml"], "");
    promtool(&["test", "rules", "alerts_test.yaml"], "");
}

/// The names of our metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let is_name = |character: char| character.is_ascii_lowercase() || character == '_';
    text.split(|character: char| !is_name(character))
        .filter(|word| word.starts_with("talos_"))
        .map(|word| word.trim_end_matches('_').to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_metric_of_dashboard_and_alerts_exists() {
    let talos = busy().await;
    let page = talos.metrics.get("/metrics").await.expect(200).text();
    let there = names(&page);
    // Metrics of parts that this process lacks: Redis, TLS, traces.
    let elsewhere = [
        "talos_redis_breaker",
        "talos_redis_degraded",
        "talos_tls_certificate_expiry_timestamp_seconds",
        "talos_trace_export_failures_total",
    ];
    for text in [
        include_str!("../../../helm/monitoring/dashboard.json"),
        include_str!("../../../helm/talos/alerts.yaml"),
        include_str!("../../../helm/monitoring/alerts_test.yaml"),
    ] {
        let wanted = names(text);
        assert!(wanted.len() > 10, "{wanted:?}");
        for name in wanted {
            assert!(there.contains(&name) || elsewhere.contains(&&*name), "no metric {name} in\n{page}");
        }
    }
}

/// Panels say what their curves mean, and the alerts that they name are there.
#[test]
fn each_panel_of_the_dashboard_has_a_description() {
    let dashboard = include_str!("../../../helm/monitoring/dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_str(dashboard).must("the dashboard");
    assert!(!dashboard.text("/description").is_empty());
    let panels = dashboard.at("/panels").as_array().must("panels");
    assert!(panels.len() >= 21, "{}", panels.len());
    let alerts = include_str!("../../../helm/talos/alerts.yaml");
    for panel in panels {
        let (title, description) = (panel.text("/title"), panel.text("/description"));
        assert!(description.len() > 30 && description.ends_with('.'), "{title}: {description:?}");
        for word in description.split(|character: char| !character.is_alphanumeric()) {
            let is_alert = word.starts_with("Talos") && word.len() > "Talos".len();
            assert!(!is_alert || alerts.contains(&format!("alert: {word}\n")), "{title}: there is no {word}");
        }
    }
}

/// The queries that Ory's pages show have an answer.
#[tokio::test(flavor = "multi_thread")]
async fn ory_metrics_are_served_if_they_are_wanted() {
    needs!(Promtool);
    let without = busy().await.metrics.get("/metrics").await.expect(200).text();
    assert!(!without.contains("\nhttp_"), "{without}");
    let talos = Setup::new().set("TALOS_METRICS_COMPAT", "ory").start().await;
    let key = talos.issue(json!({})).await;
    talos.admin.get(&format!("{ISSUED}/{}", key.id)).await.expect(200);
    talos.public.get("/kxq7").await.expect(404);
    let page = until("the requests are counted", async || {
        let page = talos.metrics.get("/metrics").await.expect(200).text();
        page.contains("code=\"404\"").then_some(page)
    })
    .await;
    for sample in [
        "\nhttp_requests_total{method=\"post\",code=\"201\",endpoint=\"/v2alpha1/admin/issuedApiKeys\"} 1\n",
        "\nhttp_requests_total{method=\"get\",code=\"200\",endpoint=\"/v2alpha1/admin/issuedApiKeys/{key_id}\"} 1\n",
        "\nhttp_request_duration_seconds_count{method=\"get\",code=\"404\",endpoint=\"unmatched\"} 1\n",
        "\nhttp_request_size_bytes_count{method=\"post\",code=\"201\"} 1\n",
        "\nhttp_response_size_bytes_count{method=\"get\",code=\"200\"} ",
        "\nhttp_requests_in_flight 0\n",
    ] {
        assert!(page.contains(sample), "{sample} in\n{page}");
    }
    assert!(!page.contains(&key.id), "{page}");
    promtool(&["check", "metrics"], &page);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_route_and_no_label_names_a_key() {
    let talos = busy().await;
    let key = talos.issue(json!({ "actor_id": "actor-hunter2" })).await;
    talos.admin.get(&format!("{ISSUED}/{}", key.id)).await.expect(200);
    let page = until("the request is counted", async || {
        let page = talos.metrics.get("/metrics").await.expect(200).text();
        page.contains("route=\"/v2alpha1/admin/issuedApiKeys/{key_id}\"").then_some(page)
    })
    .await;
    for sample in [
        "talos_http_requests_total{plane=\"admin\",route=\"/v2alpha1/admin/issuedApiKeys\",method=\"POST\",status=\"201\"} 2",
        "talos_http_requests_total{plane=\"public\",route=\"unmatched\",method=\"GET\",status=\"404\"} 1",
        "method=\"other\",status=\"405\"} 1",
        "talos_check_duration_seconds_count{tier=\"memory\"} 2",
        "talos_check_duration_seconds_count{tier=\"lookup\"} 2",
        "talos_credential_failures_total 2",
        "talos_checks_total{decision=\"allow\",reason=\"ok\"} 3",
    ] {
        assert!(page.contains(sample), "{sample} in\n{page}");
    }
    for secret in [&*key.id, &*key.secret, "hunter2"] {
        assert!(!page.contains(secret), "{secret} in\n{page}");
    }
}
