//! `talos scopes preview`: who would break if a route needed other scopes, against a replay.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::list;
use crate::cli::Cli;
use crate::rig::check::Check;
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{Key, Setup, Talos};

const PREVIEW: &str = "/v2alpha1/admin/scopes:preview";

/// Routes in force while traffic is recorded, and candidates. Two have a name each, one gets its
/// name from Envoy, and the rest has none.
const ROUTES: &str = "[{name: orders, path: {prefix: /orders}, scopes: orders:read}, \
                      {name: invoices, path: {prefix: /invoices}}, {path: {prefix: /}, mode: optional}]";
const CANDIDATES: &str = "[{name: orders, path: {prefix: /orders}, scopes: orders:write}, \
                          {path: {prefix: /invoices}, any_scope: 'invoices:read admin', visibility: secret}, \
                          {path: {prefix: /}, mode: optional}]";

fn setup() -> Setup {
    Setup::new()
        .set("TALOS_USAGE_FLUSH_INTERVAL", "100ms")
        .set("TALOS_CREDENTIALS_API_KEYS_PREFIX_PUBLIC_CURRENT", "pub")
}

/// Waits until the database has the expected number of Checks.
async fn counted(talos: &Talos, expected: u64) {
    until("the Checks are counted", async || {
        let report = talos.admin.get("/v2alpha1/admin/usage").await.expect(200).json();
        (report.at("/rows/0/count").as_u64() == Some(expected)).then_some(())
    })
    .await;
}

/// Sends recorded requests; returns those that were refused, by key and route.
async fn replay(talos: &Talos, traffic: &[(&Key, &str)]) -> BTreeMap<(String, String), u64> {
    let mut refused = BTreeMap::new();
    let grpc = talos.grpc().await;
    for (key, path) in traffic {
        let verdict = grpc.check(&Check::bearer(&key.secret).path(path).build()).await;
        if !verdict.passes() {
            let route = path.split('/').nth(1).must("a route").to_owned();
            *refused.entry((key.id.clone(), route)).or_default() += 1;
        }
    }
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn the_preview_names_the_keys_that_a_replay_refuses() {
    let cli = Cli::on(setup().set("TALOS_AUTHZ_ROUTES", ROUTES)).await;
    let talos = &cli.talos;
    let public = "KEY_VISIBILITY_PUBLIC";
    let keys = [
        talos.issue(json!({ "actor_id": "reader", "scopes": ["orders:read"] })).await,
        talos.issue(json!({ "actor_id": "writer", "scopes": ["orders:*", "admin"] })).await,
        talos
            .import("legacy-key", json!({ "actor_id": "old", "scopes": ["orders:read", "invoices:read"] }))
            .await,
        talos
            .issue(json!({ "actor_id": "page", "scopes": ["orders:read", "admin"], "visibility": public }))
            .await,
    ];
    let mut traffic = vec![];
    for (number, key) in keys.iter().enumerate() {
        traffic.extend(vec![(key, "/orders/1"); number + 2]);
        traffic.extend(vec![(key, "/invoices"); number + 1]);
        traffic.extend(vec![(key, "/"); 2]);
    }
    assert_eq!(replay(talos, &traffic).await, BTreeMap::new());
    let gone = talos.issue(json!({ "scopes": ["orders:read"] })).await;
    talos.check(Check::bearer(&gone.secret)).await.allowed();
    talos.revoke(&gone).await;
    talos.check(Check::default().path("/")).await.allowed();
    let named_by_envoy = Check::bearer(&keys[0].secret).path("/").route("talos.route", "by-envoy");
    talos.check(named_by_envoy).await.allowed();
    counted(talos, traffic.len() as u64 + 3).await;

    std::fs::write(cli.setup.path("new.yaml"), CANDIDATES).must("writing routes");
    let file = cli.setup.path("new.yaml").display().to_string();
    let report = cli.line(&format!("scopes preview --routes {file} --since 7d --format json")).await.json();
    let output: BTreeMap<(String, String), u64> = list(&report, "/rows")
        .iter()
        .map(|row| {
            assert_eq!(row.text("/verdict"), "refused", "{row:#}");
            let name = (row.text("/key_id").to_owned(), row.text("/route").to_owned());
            (name, row["count"].as_u64().must("a number"))
        })
        .collect();
    let candidate = setup_on(talos, CANDIDATES).start().await;
    let replayed = replay(&candidate, &traffic).await;
    assert_eq!(output, replayed);
    assert_eq!(output.len(), 5, "{output:?}");
    let of_page = list(&report, "/rows").iter().find(|row| row["reason"] == "publishable").must("a row");
    assert_eq!((of_page.text("/actor_id"), of_page.text("/route")), ("page", "invoices"));
    let untold: Vec<(&str, Option<u64>)> =
        list(&report, "/untold").iter().map(|row| (row.text("/route"), row["count"].as_u64())).collect();
    assert_eq!(untold, [("", Some(9)), ("by-envoy", Some(1))]);

    let table = cli.line(&format!("scopes preview --routes {file}")).await.expect(0);
    assert!(table.stdout.contains("orders:write") && table.stdout.starts_with("ACTOR"), "{}", table.stdout);
    let words = "nothing can be told about 1 requests of by-envoy: no candidate has the name of their route";
    assert!(table.stderr.contains(words), "{}", table.stderr);
    // The same list within a configuration.
    std::fs::write(cli.setup.path("new.yaml"), format!("authz: {{routes: {CANDIDATES}}}")).must("writing");
    let again = cli.line(&format!("scopes preview --routes {file} --format json")).await.json();
    assert_eq!(again["rows"], report["rows"]);
    std::fs::write(cli.setup.path("new.yaml"), "orders").must("writing");
    cli.line(&format!("scopes preview --routes {file}")).await.expect(64);
}

/// A process on the database of another, with other routes.
fn setup_on(talos: &Talos, routes: &str) -> Setup {
    talos.setup.clone().set("TALOS_AUTHZ_ROUTES", routes)
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_bad_requests_and_routes_of_one_name() {
    let talos = setup()
        .set("TALOS_AUTHZ_ROUTES", "[{name: a, path: {prefix: /orders}, mode: optional}]")
        .start()
        .await;
    for number in 0..5 {
        let key = talos.issue(json!({ "actor_id": format!("actor-{number}") })).await;
        for _ in 0..=number {
            talos.check(Check::bearer(&key.secret)).await.allowed();
        }
    }
    talos.check(Check::default()).await.allowed();
    counted(&talos, 16).await;
    // A request may get either of two rules with one name.
    let routes =
        json!([{ "name": "a", "scopes": "x", "methods": ["POST"] }, { "name": "a", "mode": "optional" }]);
    let (mut seen, mut token) = (vec![], String::new());
    loop {
        let body = json!({ "routes": routes, "page_size": 2, "page_token": token });
        let page: Value = talos.admin.post(PREVIEW, &body).await.expect(200).json();
        seen.extend(
            list(&page, "/rows").iter().map(|row| (row["count"].clone(), row.text("/verdict").to_owned())),
        );
        token = page.text("/next_page_token").to_owned();
        if token.is_empty() {
            break;
        }
    }
    let counts: Vec<u64> = seen.iter().filter_map(|(count, _)| count.as_u64()).collect();
    assert_eq!(counts.iter().sum::<u64>(), 16);
    assert!(seen.iter().all(|(_, verdict)| verdict == "possible"), "{seen:?}");
    for (body, field) in [
        (json!({}), "routes"),
        (json!({ "routes": [] }), "routes"),
        (json!({ "routes": [{ "scopes": "" }] }), "routes[0].scopes"),
        (json!({ "routes": [{ "scope": "a" }] }), "routes[0].scope"),
        (json!({ "routes": [{}], "start_time": "yesterday" }), "start_time"),
        (json!({ "routes": [{}], "page_token": "x" }), "page_token"),
        (
            json!({ "routes": [{}], "start_time": "2021-01-01T00:00:00Z", "end_time": "2020-01-01T00:00:00Z" }),
            "start_time",
        ),
    ] {
        let problem = talos.admin.post(PREVIEW, &body).await.expect_bad_request();
        assert!(problem.starts_with(field), "{body}: {problem}");
    }
}
