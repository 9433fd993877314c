//! `authz.routes`: policies by host, method and path, for those who can't write them into Envoy's
//! routes.

use serde_json::{Value, json};

use crate::rig::check::{Check, Verdict};
use crate::rig::support::until;
use crate::rig::talos::{Setup, Talos};

/// Each rule asks for a scope that nobody has, so that the refusal tells which rule was taken.
const RULES: &str = r#"[
    {"path": {"prefix": "/public"}, "mode": "off"},
    {"path": {"prefix": "/public/private"}, "scopes": "private"},
    {"path": {"exact": "/admin"}, "scopes": "admin"},
    {"path": {"exact": "/admin/"}, "scopes": "admin-slash"},
    {"path": {"prefix": "/users"}, "scopes": "users"},
    {"path": {"template": "/users/{id}"}, "scopes": "user"},
    {"path": {"template": "/users/{id}/keys"}, "scopes": "keys"},
    {"path": {"exact": "/users/me"}, "scopes": "me"},
    {"path": {"prefix": "/users"}, "methods": ["delete"], "scopes": "delete"},
    {"path": {"exact": "/a b"}, "scopes": "space"},
    {"path": {"prefix": "/ä"}, "scopes": "umlaut"},
    {"host": "Internal.Example", "scopes": "internal"},
    {"host": "internal.example", "path": {"prefix": "/public"}, "scopes": "internal-public"},
    {"host": "::1", "path": {"prefix": "/"}, "scopes": "loopback"}
]"#;

async fn with_rules(rules: &str) -> Talos {
    Setup::new().set("TALOS_AUTHZ_ROUTES", rules).start().await
}

/// Returns the outcome of a request: `400`, the scope that a rule asked for, `off`, or `default`
/// when no rule applied.
fn decided(verdict: Verdict) -> String {
    if verdict.is(400) {
        let denied = verdict.denied(400);
        assert_eq!(denied.fact("reason"), Some(json!("ambiguous_path")));
        return "400".to_owned();
    }
    if verdict.passes() {
        return match verdict.allowed().fact("reason") {
            Value::String(reason) if reason == "ok" => "default".to_owned(),
            other => other.as_str().unwrap_or_default().to_owned(),
        };
    }
    let denied = verdict.denied(403);
    let challenge = denied.header("www-authenticate").unwrap_or_default();
    challenge.split("scope=\"").nth(1).unwrap_or_default().trim_end_matches('"').to_owned()
}

/// Ways past a rule that have worked somewhere, each with what it must come to here.
const PATHS: [(&str, &str); 70] = [
    ("/admin", "admin"),
    ("/admin/", "admin-slash"),
    ("/admin?", "admin"),
    ("/admin?x=/public", "admin"),
    ("/admin#", "admin"),
    ("/admin#/../public", "admin"),
    ("/admin?#/public", "admin"),
    ("/%61dmin", "admin"),
    ("/%61%64%6d%69%6E", "admin"),
    ("/ADMIN", "default"),
    ("/Admin", "default"),
    ("/admin.", "default"),
    ("/admin..", "default"),
    ("/admin%20", "default"),
    ("/admin%3f", "default"),
    ("/admin%23", "default"),
    ("/admin%2561", "default"),
    ("/adminx", "default"),
    ("/x/admin", "default"),
    ("//admin", "400"),
    ("///admin", "400"),
    ("/admin//", "400"),
    ("/./admin", "400"),
    ("/admin/.", "400"),
    ("/admin/./", "400"),
    ("/x/../admin", "400"),
    ("/../admin", "400"),
    ("/..", "400"),
    ("/public/../admin", "400"),
    ("/public/..", "400"),
    ("/public/..;/admin", "400"),
    ("/public;/../admin", "400"),
    ("/public/;x=y/admin", "400"),
    ("/admin;", "400"),
    ("/admin;.css", "400"),
    ("/admin%3b", "400"),
    ("/%2e/admin", "400"),
    ("/%2E%2e/admin", "400"),
    ("/public/%2e%2e/admin", "400"),
    ("/public/.%2e/admin", "400"),
    ("/public%2f..%2fadmin", "400"),
    ("/public%2F%2e%2e%2Fadmin", "400"),
    ("/%2fadmin", "400"),
    ("/public\\..\\admin", "400"),
    ("/public/..\\admin", "400"),
    ("/public%5c..%5cadmin", "400"),
    ("/\\admin", "400"),
    ("/admin%00", "400"),
    ("/admin%00.css", "400"),
    ("/admin\0", "400"),
    ("/admin%", "400"),
    ("/admin%2", "400"),
    ("/admin%zz", "400"),
    ("/public/%252e%252e/admin", "off"),
    ("/public/...", "off"),
    ("/public/.hidden", "off"),
    ("/public/a..b", "off"),
    ("/public", "off"),
    ("/public/", "off"),
    ("/publicx", "default"),
    ("/public/private/x?y", "private"),
    ("http://shop.test/admin", "admin"),
    ("HTTPS://user@shop.test:443/public", "off"),
    ("http://shop.test/public/../admin", "400"),
    ("http://shop.test\\admin", "400"),
    ("admin", "400"),
    ("", "400"),
    ("?x", "400"),
    ("/a%20b", "space"),
    ("/%C3%A4/x", "umlaut"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_way_past_a_path_is_decided_as_written() {
    let talos = with_rules(RULES).await;
    let key = talos.issue(json!({ "scopes": ["none"] })).await;
    let grpc = talos.grpc().await;
    for (path, expected) in PATHS {
        for ask in [Check::bearer(&key.secret).path(path), Check::bearer(&key.secret).path(path).raw()] {
            assert_eq!(decided(grpc.check(&ask.build()).await), expected, "{path}");
        }
        if expected == "400" {
            // Whoever has no key gets the same, and so does one whom Envoy's route would let
            // through.
            let open = Check::default().path(path).route("talos.mode", "off");
            assert_eq!(decided(grpc.check(&open.build()).await), "400", "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_most_specific_rule_is_taken() {
    let talos = with_rules(RULES).await;
    let key = talos.issue(json!({})).await;
    let cases = [
        ("GET", "shop.test", "/users", "users"),
        ("GET", "shop.test", "/users/", "users"),
        ("GET", "shop.test", "/users/7", "user"),
        ("GET", "shop.test", "/users/7/", "users"),
        ("GET", "shop.test", "/users/7/keys", "keys"),
        ("GET", "shop.test", "/users/7/keys/8", "users"),
        ("GET", "shop.test", "/users/me", "me"),
        ("DELETE", "shop.test", "/users/x/y", "delete"),
        ("delete", "shop.test", "/users", "delete"),
        ("DELETE", "shop.test", "/users/7", "user"),
        ("PURGE", "shop.test", "/users", "users"),
        ("", "shop.test", "/users", "users"),
        ("GET /public", "shop.test", "/users", "users"),
        ("GET", "internal.example", "/", "internal"),
        ("GET", "INTERNAL.example.:8443", "/users/me", "internal"),
        ("GET", "internal.example", "/public/private", "internal-public"),
        ("GET", "internal.example.evil", "/public", "off"),
        ("GET", "[::1]:8080", "/users/me", "loopback"),
        ("GET", "[0:0::1]", "/", "loopback"),
        ("GET", "[::1]junk", "/users/me", "me"),
        ("GET", "[::1]8080", "/users/me", "me"),
        ("GET", "::1", "/users/me", "me"),
        ("GET", "internal.example:80x", "/users/me", "me"),
        ("GET", "", "/users/me", "me"),
        ("OPTIONS", "shop.test", "*", "default"),
        ("OPTIONS", "internal.example", "*", "internal"),
        ("CONNECT", "internal.example:443", "", "internal"),
    ];
    for (method, host, path, expected) in cases {
        let ask = Check::bearer(&key.secret).method(method).host(host).path(path);
        assert_eq!(decided(talos.check(ask).await), expected, "{method} {host} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_envoys_route_win_key_by_key() {
    let talos = with_rules(RULES).await;
    let key = talos.issue(json!({ "scopes": ["b"] })).await;
    let ask = || Check::bearer(&key.secret).path("/admin");
    assert_eq!(decided(talos.check(ask()).await), "admin");
    assert_eq!(decided(talos.check(ask().route("talos.scopes", "b")).await), "default");
    assert_eq!(decided(talos.check(ask().route("talos.any_scope", "b")).await), "admin");
    assert_eq!(decided(talos.check(ask().route("talos.mode", "off")).await), "off");
    let own = json!({ "scopes": "c" });
    assert_eq!(decided(talos.check(ask().metadata("talos", &own)).await), "c");
    assert_eq!(
        decided(talos.check(ask().metadata("talos", &own).route("talos.scopes", "b")).await),
        "default"
    );
    assert_eq!(decided(talos.check(ask().metadata("other", &json!({ "mode": "off" }))).await), "admin");
    let gateway = |annotations: Value| json!({ "resources": [{ "kind": "HTTPRoute", "name": "r", "namespace": "n", "annotations": annotations }] });
    let annotated = |annotations| ask().metadata("envoy-gateway", &gateway(annotations));
    assert_eq!(
        decided(talos.check(annotated(json!({ "talos.scopes": "b", "foo": "bar" }))).await),
        "default"
    );
    assert_eq!(decided(talos.check(annotated(json!({ "mode": "off" }))).await), "admin");
    let before = talos.metric("talos_checks_total").await;
    for bad in [json!({ "talos.scope": "b" }), json!({ "talos.mode": "OFF" }), json!({ "talos.mode": false })]
    {
        let denied = talos.check(annotated(bad.clone())).await.denied(500);
        assert_eq!(denied.fact("reason"), Some(json!("misconfigured")), "{bad}");
        talos.check(ask().metadata("talos", &bad)).await.denied(500);
    }
    assert_eq!(talos.metric("talos_checks_total").await - before, 6.0);
    let log = talos.process.log();
    assert!(log.contains("annotation talos.scope: is not known"), "{log}");
    assert!(log.contains("metadata talos.mode: must be text, in quotes"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_rules_apply_without_a_restart() {
    let setup = Setup::new();
    let file = setup.path("talos.yaml");
    let write = |rules: &str| {
        let keys = setup.path("signing-keys.json");
        let text = format!(
            "secrets: {{hmac: {{current: {}}}}}\ncredentials: {{issuer: https://talos.test, derived_tokens: {{jwt: \
             {{signing_keys: {{urls: ['file://{}']}}}}}}}}\nauthz: {{routes: {rules}}}\n",
            crate::rig::talos::HMAC_SECRET,
            keys.display()
        );
        std::fs::write(&file, text)
    };
    write("[{path: {prefix: /a}, mode: off}]").expect("writing the configuration");
    let talos = Setup::from_file(file.clone()).start().await;
    let ask = || Check::default().path("/a/b");
    assert_eq!(decided(talos.check(ask()).await), "off");
    write("[{path: {prefix: /a/b}, scopes: x}]").expect("writing the configuration");
    until("the new rules are in force", async || talos.check(ask()).await.is(401).then_some(())).await;
}
