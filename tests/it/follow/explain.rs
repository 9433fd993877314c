//! `routes:explain`: it says what a Check would, and does nothing.

use serde_json::{Value, json};

use super::call;
use crate::cli::Cli;
use crate::rig::check::Check;
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{Key, Setup, Talos};

const EXPLAIN: &str = "/v2alpha1/admin/routes:explain";

const ROUTES: &str = r#"[
    {"name": "open", "path": {"prefix": "/open"}, "mode": "off"},
    {"path": {"prefix": "/maybe"}, "mode": "optional", "any_scope": "a b"},
    {"name": "orders", "path": {"prefix": "/orders"}, "scopes": "orders:read"},
    {"path": {"template": "/orders/{id}"}, "methods": ["POST"], "scopes": "orders:read orders:write", "cost": 5},
    {"path": {"prefix": "/secret"}, "visibility": "secret"},
    {"host": "internal.example", "scopes": "internal"},
    {"path": {"prefix": "/tokens"}, "audience": "shop"}
]"#;

const REQUESTS: [(&str, &str, &str); 11] = [
    ("GET", "shop.test", "/open/1"),
    ("GET", "shop.test", "/maybe?x=1"),
    ("GET", "shop.test", "/orders"),
    ("GET", "shop.test", "/orders/7"),
    ("POST", "shop.test", "/orders/7"),
    ("POST", "shop.test:8443", "/secret"),
    ("GET", "internal.example", "/x"),
    ("GET", "Internal.Example:80", "/orders"),
    ("GET", "shop.test", "/open/../orders"),
    ("GET", "shop.test", "/tokens"),
    ("OPTIONS", "", "*"),
];

/// Keys in every state, derived tokens, and what is none.
async fn credentials(talos: &Talos) -> Vec<(&'static str, String)> {
    let of = |key: Key| key.secret;
    let scoped = |scopes: &[&str]| json!({ "scopes": scopes });
    let reader = talos.issue(scoped(&["orders:read"])).await;
    let writer = talos.issue(scoped(&["orders:*", "internal"])).await;
    let suspended = talos.issue(json!({})).await;
    call(talos, &suspended.id, "suspend", json!({})).await;
    let revoked = talos.issue(json!({})).await;
    talos.revoke(&revoked).await;
    let bound = talos.issue(json!({ "ip_restriction": { "allowed_cidrs": ["192.0.2.0/24"] } })).await;
    let public =
        talos.issue(json!({ "visibility": "KEY_VISIBILITY_PUBLIC", "scopes": ["orders:read"] })).await;
    let token = talos.derive(&writer, json!({ "algorithm": "TOKEN_ALGORITHM_JWT" })).await;
    let for_shop = json!({ "algorithm": "TOKEN_ALGORITHM_JWT", "audiences": ["shop"] });
    let for_shop = talos.derive(&writer, for_shop).await;
    let macaroon = talos.derive(&reader, json!({ "algorithm": "TOKEN_ALGORITHM_MACAROON" })).await;
    vec![
        ("reader", of(reader)),
        ("writer", of(writer)),
        ("suspended", of(suspended)),
        ("revoked", of(revoked)),
        ("bound", of(bound)),
        ("public", of(public)),
        ("imported", of(talos.import("legacy-key", scoped(&["a"])).await)),
        ("token", token),
        ("token for the shop", for_shop),
        ("macaroon", macaroon),
        ("unknown", "never-seen".to_owned()),
        ("of another key", "ory_ak_v1_5fWnKBkCkKcTjPGtTnVDfG_vfPGMCtTqgbFMTTb7".to_owned()),
        ("none", String::new()),
    ]
}

/// Decision and reason of a Check, from the metadata for Envoy.
async fn checked(talos: &Talos, ask: Check) -> (String, String) {
    let grpc = talos.grpc().await;
    // A look at the database may take longer than a Check may wait.
    let verdict = until("the Check is decided", async || {
        let verdict = grpc.check(&ask.build()).await;
        (!verdict.is(503)).then_some(verdict)
    })
    .await;
    let status =
        [200, 400, 401, 403, 404, 500, 503].into_iter().find(|status| verdict.is(*status)).must("a status");
    match status {
        200 => ("allow".to_owned(), verdict.allowed().fact("reason").as_str().must("a reason").to_owned()),
        status => {
            let reason = verdict.denied(status).fact("reason").must("a reason");
            ("deny".to_owned(), reason.as_str().must("a reason").to_owned())
        }
    }
}

async fn explained(talos: &Talos, body: &Value) -> Value {
    talos.admin.post(EXPLAIN, body).await.expect(200).json()
}

fn setup() -> Setup {
    Setup::new()
        .set("TALOS_AUTHZ_ROUTES", ROUTES)
        .set("TALOS_CREDENTIALS_API_KEYS_PREFIX_PUBLIC_CURRENT", "pub")
        .set("TALOS_USAGE_FLUSH_INTERVAL", "100ms")
        .set("TALOS_RATE_LIMIT_ENABLED", "true")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explanation_decides_as_a_check_does() {
    let talos = setup().start().await;
    let credentials = credentials(&talos).await;
    let mut reasons = std::collections::BTreeSet::new();
    for (method, host, path) in REQUESTS {
        for (name, credential) in &credentials {
            for address in ["192.0.2.7", "203.0.113.9"] {
                let ask = Check::default().method(method).host(host).path(path).from(address);
                let ask = match credential.as_str() {
                    "" => ask,
                    secret => ask.header("authorization", format!("Bearer {secret}")),
                };
                let expected = checked(&talos, ask).await;
                let body = json!({ "method": method, "host": host, "path": path, "credential": credential,
                    "client_address": address });
                let answer = explained(&talos, &body).await;
                let said = (answer.text("/decision").to_owned(), answer.text("/reason").to_owned());
                assert_eq!(said, expected, "{method} {host}{path} with {name} from {address}: {answer:#}");
                assert!(
                    credential.is_empty() || !answer.to_string().contains(credential.as_str()),
                    "{answer}"
                );
                reasons.insert(said.1);
            }
        }
    }
    for reason in [
        "ok",
        "off",
        "anonymous",
        "missing",
        "not_found",
        "suspended",
        "revoked",
        "address_not_allowed",
        "insufficient_scope",
        "publishable",
        "ambiguous_path",
        "audience_mismatch",
    ] {
        assert!(reasons.contains(reason), "no case of {reason}: {reasons:?}");
    }
    let log = talos.process.log();
    for (name, credential) in credentials.iter().filter(|(_, credential)| !credential.is_empty()) {
        assert!(!log.contains(credential.as_str()), "the log has {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explanation_names_the_rule_and_its_demand() {
    let talos = setup().start().await;
    let answer =
        explained(&talos, &json!({ "method": "POST", "host": "shop.test", "path": "/orders/7?x=1" })).await;
    assert_eq!((answer.text("/decision"), answer.text("/reason")), ("deny", "missing"));
    assert_eq!(
        answer.at("/rule"),
        &json!({ "index": 3, "methods": ["POST"], "path": "template /orders/{id}" })
    );
    let demand =
        json!({ "mode": "required", "scopes": ["orders:read", "orders:write"], "any_scope": [], "cost": 5 });
    assert_eq!(answer.at("/demand"), &demand);
    let named = explained(&talos, &json!({ "method": "GET", "path": "/orders/7" })).await;
    assert_eq!((named.at("/rule/index"), named.text("/rule/name")), (&json!(2), "orders"));
    let unmatched = explained(&talos, &json!({ "method": "GET", "path": "/elsewhere" })).await;
    assert_eq!((unmatched.pointer("/rule"), unmatched.text("/demand/mode")), (None, "required"));

    let key = talos.issue(json!({ "scopes": ["orders:read"], "actor_id": "alice" })).await;
    let mut body = json!({ "method": "POST", "path": "/orders/7", "credential": key.secret });
    let answer = explained(&talos, &body).await;
    assert_eq!((answer.text("/key_id"), answer.text("/actor_id")), (&*key.id, "alice"));
    assert_eq!(answer.texts("/missing_scopes"), ["orders:write"]);
    // Envoy's own route comes over the rules.
    body["context_extensions"] = json!({ "talos.scopes": "orders:read" });
    assert_eq!(explained(&talos, &body).await.text("/decision"), "allow");
    body["context_extensions"] = json!({ "talos.nonsense": "1" });
    assert_eq!(explained(&talos, &body).await.text("/reason"), "misconfigured");

    for wrong in [
        json!({ "path": "/" }),
        json!({ "method": "GET" }),
        json!({ "method": "GET", "path": "orders" }),
        json!({ "method": "GET", "path": "/", "client_address": "localhost" }),
        json!({ "method": "GET", "path": "/", "colour": "red" }),
        json!({ "method": "GET", "path": "/", "credential": "x".repeat(16_385) }),
    ] {
        talos.admin.post(EXPLAIN, &wrong).await.expect_bad_request();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explaining_charges_and_counts_nothing() {
    let talos = setup().start().await;
    let limit = json!({ "quota": "1", "unit": "requests", "window": "3600s" });
    let key = talos.issue(json!({ "rate_limit_policy": limit })).await;
    let body = json!({ "method": "GET", "path": "/x", "credential": key.secret });
    for _ in 0..5 {
        assert_eq!(explained(&talos, &body).await.text("/decision"), "allow");
    }
    // The one use is still there.
    talos.check(Check::bearer(&key.secret).path("/x")).await.allowed();
    talos.check(Check::bearer(&key.secret).path("/x")).await.denied(429);
    assert_eq!(explained(&talos, &body).await.text("/decision"), "allow", "limits are not looked at");
    let total = until("both are counted", async || {
        let report = talos.admin.get("/v2alpha1/admin/usage").await.expect(200).json();
        report["rows"][0]["count"].as_u64().filter(|count| *count >= 2)
    })
    .await;
    assert_eq!(total, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_explains() {
    let cli = Cli::on(setup()).await;
    let key = cli.talos.issue(json!({ "scopes": ["orders:read"] })).await;
    let line = ["routes", "explain", "POST", "https://shop.test/orders/7", "--credential", "-"];
    let shown = cli.feed(&key.secret, &line).await.ok();
    for expected in
        ["DECISION", "deny", "insufficient_scope", "template /orders/{id}", "orders:write", &key.id]
    {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    let decision = cli.run(&[&line[..5], &[key.secret.as_str(), "-q"]].concat()).await.captured();
    assert_eq!(decision, "deny");
    cli.line("routes explain GET orders:nothing --extension talos.mode").await.expect(64);
}
