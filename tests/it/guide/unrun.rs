//! Blocks of the pages that no test runs: each is listed with the reason, so that a new one is a
//! decision. And the blocks of JSON, which are bodies.

use serde_json::{Value, json};

use super::{blocks, page, pages};
use crate::rig::support::Must;
use crate::rig::talos::{ISSUED, Talos};

/// Blocks of plain text: the page, the beginning of the block, and what running it would need.
const TEXT: [(&str, &str, &str); 28] = [
    ("accelerator.md", "mode: sidecar", "values of the chart; tests/helm/check.py renders these"),
    ("accelerator.md", "FROM busybox", "Docker"),
    ("deploy.md", "CREATE ROLE talos", "the tests' server has its own users"),
    ("deploy.md", "export DATABASE=", "the test sets its own addresses"),
    ("deploy.md", "sudo useradd", "changes the users of the machine"),
    ("deploy.md", "talos doctor envoy.yaml", "run by guide/envoy.rs on the whole file"),
    ("doctor.md", "talos doctor http", "the port of a running Envoy; doctor's tests ask their own"),
    ("envoy-gateway.md", "metadata:", "a part of a Kubernetes object"),
    ("envoy-gateway.md", "egctl config", "a cluster with Envoy Gateway"),
    ("envoy.md", "talos doctor http", "the port of a running Envoy; doctor's tests ask their own"),
    ("how-we-know.md", "cargo test --test sim", "the tests themselves"),
    ("istio.md", "istioctl proxy-config", "a cluster with Istio"),
    ("migrate-from-authorino.md", "kubectl get secrets", "a cluster with Authorino"),
    ("migrate-from-envoy-gateway.md", "kubectl get securitypolicies", "a cluster with Envoy Gateway"),
    ("migrate-from-kong.md", "deck gateway dump", "a Kong"),
    ("migrate-from-unkey.md", "curl -s https://api.unkey.com", "an account"),
    ("packages.md", "sha256sum", "the files of a release"),
    ("packages.md", "sudo systemctl", "systemd; tests/packages.py starts what the unit starts"),
    ("packages.md", "cargo install", "the repository's address"),
    ("rate-limits.md", "talos actors update", "an actor of the reader's; limit/actors.rs sets limits so"),
    ("rate-limits.md", "limit_NAME", "a form, not a value"),
    ("rate-limits.md", "apiVersion: gateway.envoyproxy.io", "a cluster with Envoy Gateway"),
    ("rate-limits.md", "ACL SETUSER", "shared/degraded.rs has a user with these rights"),
    ("start.md", "envoy/demo", "a step of tests/run"),
    ("start.md", "docker build", "Docker"),
    ("upgrade.md", "pg_dump", "renames databases of the tests' server"),
    ("upgrade.md", "mariadb-dump", "replaces tables of the tests' server"),
    ("usage.md", "GET /v2alpha1/usage:self", "a request by its text; usage/report.rs sends it"),
];

#[test]
fn each_block_that_no_test_runs_is_known() {
    let mut found: Vec<(String, String)> = vec![];
    for (name, page) in pages() {
        let starts =
            blocks(&page, "text").into_iter().map(|block| block.lines().next().unwrap_or("").to_owned());
        found.extend(starts.map(|start| (name.clone(), start)));
    }
    let listed: Vec<(&str, &str)> = TEXT.iter().map(|(name, start, _)| (*name, *start)).collect();
    for (name, start) in &found {
        let known = listed.iter().any(|(page, begin)| page == name && start.starts_with(begin));
        assert!(known, "{name}: nothing runs the block that begins with {start:?}");
    }
    for (name, begin) in listed {
        let there = found.iter().any(|(page, start)| page == name && start.starts_with(begin));
        assert!(there, "{name}: there is no block of text that begins with {begin:?} any more");
    }
}

#[test]
fn blocks_of_json_are_json() {
    let mut count = 0;
    for (name, page) in pages() {
        for block in blocks(&page, "json") {
            let parsed: Result<Value, _> = serde_json::from_str(&block);
            assert!(parsed.is_ok(), "{name}: {parsed:?}\n{block}");
            count += 1;
        }
    }
    assert!(count >= 5, "{count}");
}

/// Limits and credits as the page writes them are those of a key.
#[tokio::test(flavor = "multi_thread")]
async fn limits_and_credits_are_set_as_the_page_says() {
    let talos = Talos::start().await;
    let found = blocks(&page("rate-limits.md"), "json");
    assert_eq!(found.len(), 2, "{found:?}");
    for block in found {
        let mut body: Value = serde_json::from_str(&block).must(&block);
        let fields = body.as_object_mut().must(&block);
        let names: Vec<String> = fields.keys().cloned().collect();
        fields.insert("name".to_owned(), json!("n"));
        fields.insert("actor_id".to_owned(), json!("a"));
        let key = talos.admin.post(ISSUED, &body).await.expect(201).json();
        for name in names {
            assert!(
                key["issued_api_key"][&name].is_object() || key["issued_api_key"][&name].is_array(),
                "{key}"
            );
        }
    }
}
