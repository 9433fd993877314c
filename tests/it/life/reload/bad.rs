//! A configuration that is no good changes nothing, and is told by its keys.

use serde_json::json;

use super::load::Load;
use super::{FIRST, Live, SECOND};
use crate::rig::check::Check;
use crate::rig::support::{Json, Must, claims, until};
use crate::rig::talos::ISSUER;

/// Number of bad configurations; `TALOS_TEST_RELOADS` overrides it.
const RELOADS: usize = 30;

fn good() -> String {
    format!("secrets: {{hmac: {{current: {FIRST}}}}}\ncredentials: {{issuer: '{ISSUER}'}}\n")
}

/// The contents of each bad file beside another secret, and the words of its refusal.
const BAD: [(&str, &[&str]); 12] = [
    ("cache: {ttl: banana}", &["cache.ttl"]),
    ("cache: {tll: 5m}", &["cache.tll", "unknown key"]),
    ("serve: {http: {trusted_network: maybe}}", &["serve.http.trusted_network"]),
    ("secrets: {hmac: {current: hunter2}}", &["secrets.hmac.current", "32"]),
    ("secrets: {hmac: {current: ''}}", &["project has no HMAC key configured"]),
    ("credentials: {api_keys: {prefix: {current: 'a b'}}}", &["credentials.api_keys.prefix.current"]),
    (
        "credentials: {derived_tokens: {jwt: {signing_keys: {urls: ['file:///nonesuch.json']}}}}",
        &["signing_keys.urls[0]", "No such file"],
    ),
    (
        "credentials: {derived_tokens: {jwt: {signing_keys: {urls: ['http://127.0.0.1/keys']}}}}",
        &["signing_keys.urls[0]", "https://"],
    ),
    (
        "authz: {token_ttl: 1m}\ncredentials: {derived_tokens: {max_ttl: 1m, default_ttl: 1m}}",
        &["authz.token_ttl", "only a restart changes"],
    ),
    (
        "multitenancy: {enabled: true, networks: [{hostname: a, id: one}]}",
        &["multitenancy.networks[0].id", "UUID"],
    ),
    ("{", &["talos.yaml", "not YAML"]),
    ("just a text", &["talos.yaml", "mapping"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn bad_configurations_under_load_change_nothing_and_are_reported() {
    let rounds =
        std::env::var("TALOS_TEST_RELOADS").map_or(RELOADS, |text| text.parse().must("TALOS_TEST_RELOADS"));
    let live = Live::start(&good()).await;
    let key = live.talos.issue(json!({})).await;
    let load = Load::without_derive(&live.talos, &key.secret).await;
    let generation = live.generation().await;
    for round in 0..rounds {
        let (bad, words) = BAD[round % BAD.len()];
        // No two files are the same.
        let secrets = format!("secrets: {{hmac: {{current: {SECOND}}}}}\n");
        let secrets = if bad.contains(": {") && !bad.starts_with("secrets") { &secrets } else { "" };
        live.put_config(&format!("# {round}\n{secrets}{bad}\n"));
        let refused = (round + 1) as f64;
        until(bad, async || (live.reloads("refused").await == refused).then_some(())).await;
        live.logs(words).await;
        assert_eq!(live.generation().await, generation, "{bad}");
        load.goes_on(5).await;
    }
    assert_eq!(live.reloads("applied").await, 0.0);
    assert_eq!(live.talos.metric("talos_config_last_reload_successful").await, 0.0);
    let status = live.talos.metrics.get("/status").await.expect(200).json();
    assert!(status.texts("/problems")[0].contains("was refused when it was last read"), "{status:#}");
    let log = live.talos.process.log();
    assert!(!log.contains("panicked"), "{log}");
    assert!(!log.contains("hunter2") && !log.contains(SECOND), "a secret is in the log: {log}");
    let answered = load.end().await;
    println!("{rounds} bad configurations, {answered} requests answered meanwhile, none refused");

    // The next good one is taken up as if nothing had been.
    let changed = good().replace(FIRST, SECOND);
    live.change(&changed).await;
    assert_eq!(live.talos.metric("talos_config_last_reload_successful").await, 1.0);
    assert!(!live.is_valid(&key.secret).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_need_a_restart_are_named_and_keep_their_value() {
    let keys = super::key_set("a").to_string();
    let dir = tempfile::tempdir().must("a directory");
    let file = dir.path().join("keys.json");
    std::fs::write(&file, keys).must("writing a key set");
    let jwks = format!(
        "credentials: {{derived_tokens: {{jwt: {{signing_keys: {{urls: ['file://{}']}}}}}}}}\n",
        file.display()
    );
    let secrets = format!("secrets: {{hmac: {{current: {FIRST}}}}}\n");
    let live = Live::start(&format!("{secrets}{jwks}authz: {{token_ttl: 4m}}\n")).await;
    let key = live.talos.issue(json!({})).await;
    // With credentials.clock_skew, by which tokens are dated back.
    let life = async || {
        let token = live.talos.check(Check::bearer(&key.secret)).await.allowed().token();
        let claims = claims(&token);
        claims.at("/exp").as_i64().must("exp") - claims.at("/iat").as_i64().must("iat")
    };
    assert_eq!(life().await, 540);
    live.change(&format!(
        "{secrets}{jwks}authz: {{token_ttl: 3m, realm: hunter2}}\ncache: {{ttl: 1m, negative_ttl: 1s}}\n"
    ))
    .await;
    live.logs(&["need a restart", "authz.token_ttl", "authz.realm", "cache.negative_ttl"]).await;
    live.logs(&["in force", "cache.ttl"]).await;
    assert_eq!(life().await, 540);
    let log = live.talos.process.log();
    assert_eq!(log.matches("need a restart").count(), 1, "{log}");
    assert!(!log.contains("hunter2"), "{log}");
}
