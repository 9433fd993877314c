//! `talos policy check`: which keys would break.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::list;
use crate::cli::Cli;
use crate::rig::http::{Call, Version};
use crate::rig::support::{Json, Must};
use crate::rig::talos::{Setup, Talos};

const CHECK: &str = "/v2alpha1/admin/policies:check";

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_would_break_are_listed_by_actor_and_last_use() {
    let policies = json!([{ "name": "in-force", "max_keys_per_actor": 100, "require_ip_restriction": true,
        "from": "2100-01-01T00:00:00Z" }]);
    let cli = Cli::on(Setup::new().set("TALOS_ISSUANCE_POLICIES", &policies.to_string())).await;
    let talos = &cli.talos;
    let b = talos.issue(json!({ "actor_id": "b", "name": "wide", "scopes": ["admin"], "ttl": "24h" })).await;
    let a = [
        talos.issue(json!({ "actor_id": "a", "name": "used long ago", "ttl": "2000h" })).await,
        talos
            .issue(json!({ "actor_id": "a", "name": "used now", "scopes": ["admin"], "ttl": "2000h" }))
            .await,
    ];
    let imported = talos.import("legacy-key", json!({ "actor_id": "c", "name": "endless" })).await;
    let good = talos.issue(json!({ "actor_id": "a", "scopes": ["orders:read"], "ttl": "24h" })).await;
    let revoked = talos.issue(json!({ "actor_id": "a", "scopes": ["admin"] })).await;
    talos.revoke(&revoked).await;
    for (key, hours) in [(&a[0], 50_i64), (&a[1], 1), (&b, 10)] {
        let ago = hours * 3_600_000_000;
        let set = "UPDATE api_keys SET last_used_at = created_at - ";
        talos.setup.sql(&format!("{set}{ago} WHERE key_id = '{}'", key.id));
    }
    let file = cli.setup.path("new.yaml");
    let candidates = "issuance_policies:\n  - {name: scopes, allowed_scopes: [orders:*]}\n  \
                      - {name: short, max_ttl: 720h, apply: all, from: 2100-01-01T00:00:00Z}\n";
    std::fs::write(&file, candidates).must("writing policies");
    let file = file.display().to_string();
    let by_actor = cli.line(&format!("policy check --config {file} --format json")).await.json();
    let found: Vec<(&str, &str, usize)> = list(&by_actor, "/rows")
        .iter()
        .map(|row| (row.text("/actor_id"), row.text("/key_id"), list(row, "/violations").len()))
        .collect();
    assert_eq!(found, [("a", &*a[1].id, 2), ("a", &*a[0].id, 1), ("b", &*b.id, 1), ("c", &*imported.id, 1)]);
    assert_eq!(by_actor["scanned_count"], 5);
    assert_eq!(list(&by_actor, "/rows")[3].text("/policy_end_time"), "2100-01-01T00:00:00Z");
    assert_eq!(list(&by_actor, "/rows")[3].text("/ended_by_policy"), "short");
    let by_use = cli.line(&format!("policy check --config {file} --by last-used --format csv")).await.ok();
    let ids: Vec<&str> = by_use.lines().skip(1).map(|line| line.split(',').nth(1).must("an id")).collect();
    assert_eq!(ids, [&a[1].id, &b.id, &a[0].id, &imported.id]);
    let table = cli.line(&format!("policy check --config {file}")).await.expect(0);
    assert!(table.stdout.contains("scopes: scopes,short: ttl"), "{}", table.stdout);
    assert!(table.stderr.contains("4 of 5 active keys break a policy"), "{}", table.stderr);

    // Without a file, the policies in force.
    let in_force = cli.line("policy check --format json").await.json();
    assert_eq!(list(&in_force, "/rows").len(), 5, "{in_force:#}");
    assert!(list(&in_force, "/rows").iter().any(|row| row.text("/key_id") == good.id));
    // Nothing was changed.
    assert_eq!(talos.verify(&a[1].secret).await["is_valid"], true);
    std::fs::write(cli.setup.path("new.yaml"), "issuance_policies: [{name: a}]").must("writing policies");
    let refused = cli.line(&format!("policy check --config {file}")).await.expect(64);
    assert!(refused.stderr.contains("issuance_policies[0]: has no rule"), "{}", refused.stderr);
}

async fn check(talos: &Talos, body: &Value) -> Value {
    talos.admin.post(CHECK, body).await.expect(200).json()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_over_both_kinds() {
    let talos = Setup::new().start().await;
    for number in 0..5 {
        talos.issue(json!({ "name": format!("n{number}") })).await;
        talos.import(&format!("legacy-key-{number}"), json!({})).await;
    }
    let policies = json!([{ "name": "a", "required_metadata": ["team"] }]);
    let (mut seen, mut token, mut pages) = (vec![], String::new(), 0);
    loop {
        let body = json!({ "issuance_policies": policies, "page_size": 3, "page_token": token });
        let page = check(&talos, &body).await;
        seen.extend(list(&page, "/keys").iter().map(|key| key.text("/key_id").to_owned()));
        token = page.text("/next_page_token").to_owned();
        pages += 1;
        if token.is_empty() {
            break;
        }
        // A token is that of its policies.
        let other = json!({ "page_token": token });
        let refused = talos.admin.post(CHECK, &other).await.expect_bad_request();
        assert!(refused.starts_with("page_token: "), "{refused}");
    }
    seen.sort();
    seen.dedup();
    assert_eq!((seen.len(), pages), (10, 4));
    for (body, field) in [
        (json!({ "issuance_policies": [{ "name": "a" }] }), "issuance_policies[0]: has no rule"),
        (
            json!({ "issuance_policies": [{ "name": "a", "max_ttl": "soon" }] }),
            "issuance_policies[0].max_ttl",
        ),
        (json!({ "policies": [] }), "policies"),
    ] {
        let problem = talos.admin.post(CHECK, &body).await.expect_bad_request();
        assert!(problem.starts_with(field), "{body}: {problem}");
    }
    // Unset members may be left out or null, as in the configuration.
    let nulls = json!({ "issuance_policies": [{ "name": "a", "require_ttl": true, "max_ttl": null }] });
    assert_eq!(list(&check(&talos, &nulls).await, "/keys").len(), 10);
    let get = talos.admin.send(Version::Http1, Call::get(CHECK)).await;
    get.expect(405);
}

#[tokio::test(flavor = "multi_thread")]
async fn candidates_are_counted_before_their_patterns_are_compiled() {
    let talos = Setup::new().start().await;
    talos.issue(json!({ "name": "svc-a" })).await;
    let candidates = |count: usize, pattern: &str| {
        let policy = |number: usize| json!({ "name": format!("p{number}"), "name_pattern": pattern });
        json!({ "issuance_policies": (0..count).map(policy).collect::<Vec<_>>() })
    };
    for count in [65, 20_000] {
        let problem = talos.admin.post(CHECK, &candidates(count, "(")).await.expect_bad_request();
        assert_eq!(problem, "issuance_policies: must be 64 policies at most");
    }
    let problem = talos.admin.post(CHECK, &candidates(64, "(")).await.expect_bad_request();
    assert!(problem.starts_with("issuance_policies[0].name_pattern: "), "{problem}");
    // More than are checked at once: each gets its turn, also after those that were refused.
    let most = candidates(64, "(x|y)+[a-z]{2,40}");
    let checks = join_all((0..6).map(|_| check(&talos, &most))).await;
    for found in checks {
        let violations = list(&list(&found, "/keys")[0], "/violations");
        assert_eq!(violations.len(), 64, "{found}");
    }
}
