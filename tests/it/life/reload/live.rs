//! Settings other than secrets that apply at once.

use serde_json::json;

use super::{FIRST, Live};
use crate::rig::check::Check;
use crate::rig::http::{Call, Version};
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{ISSUED, VERIFY};

fn config(more: &str) -> String {
    format!("secrets: {{hmac: {{current: {FIRST}}}}}\n{more}\n")
}

/// Returns the cache that answered a verification.
async fn cache(live: &Live, credential: &str) -> String {
    let answer = live.talos.admin.post(VERIFY, &json!({ "credential": credential })).await.expect(200);
    assert_eq!(answer.json()["is_valid"], true);
    answer.header("ory-talos-cache").unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_can_be_shortened_and_turned_off() {
    let live = Live::start(&config("cache: {ttl: 1h}")).await;
    let key = live.talos.issue(json!({})).await;
    assert_eq!(cache(&live, &key.secret).await, "MISS");
    assert_eq!(cache(&live, &key.secret).await, "HIT");
    live.change(&config("cache: {ttl: 1s}")).await;
    // A key that was cached for an hour is read again after a second.
    until("the shorter ttl ends", async || (cache(&live, &key.secret).await == "MISS").then_some(())).await;
    live.change(&config("cache: {enabled: false}")).await;
    assert_eq!(cache(&live, &key.secret).await, "SKIP");
    live.change(&config("cache: {enabled: true}")).await;
    assert_ne!(cache(&live, &key.secret).await, "SKIP");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_of_addresses_the_lives_of_keys_and_the_quota_can_be_changed() {
    let live = Live::start(&config("")).await;
    let restricted = json!({ "ip_restriction": { "allowed_cidrs": ["192.0.2.0/24"] } });
    let key = live.talos.issue(restricted).await;
    let verify =
        || Call::post(VERIFY).json(&json!({ "credential": key.secret })).header("x-real-ip", "192.0.2.7");
    let is_valid = async || live.talos.admin.send(Version::Http1, verify()).await.json()["is_valid"] == true;
    assert!(!is_valid().await);
    live.change(&config("serve: {http: {client_ip_source: CLIENT_IP_SOURCE_X_REAL_IP}}")).await;
    assert!(is_valid().await);

    let issue = json!({ "name": "n", "actor_id": "a", "ttl": "100h" });
    live.talos.admin.post(ISSUED, &issue).await.expect(201);
    live.change(&config("credentials: {api_keys: {max_ttl: 99h, default_ttl: 1h}}")).await;
    let output = live.talos.admin.post(ISSUED, &issue).await.expect_bad_request();
    assert!(output.contains("356400s"), "{output}");
    let key = live.talos.issue(json!({})).await;
    assert!(!key.resource.text("/expire_time").is_empty());

    let issue = json!({ "name": "n", "actor_id": "a" });
    live.change(&config("quota: {api_keys_max: 1}")).await;
    live.talos.admin.post(ISSUED, &issue).await.expect_error(402, "API_KEY_QUOTA_EXCEEDED");
    live.change(&config("quota: {api_keys_max: 100}")).await;
    live.talos.admin.post(ISSUED, &issue).await.expect(201);
}

/// Returns how long derived tokens stay valid according to `talos status`, in seconds.
async fn derived_exposure(live: &Live) -> f64 {
    let status = live.talos.metrics.get("/status").await.expect(200).json();
    let seconds = status.at("/exposure/derived_token_seconds").as_f64().must("seconds");
    let metric = live.talos.metric("talos_exposure_derived_token_seconds").await;
    assert!((seconds - 30.0..=seconds).contains(&metric), "{metric} {status:#}");
    seconds
}

/// A verifier without Talos accepts a token until its `exp`, so that is counted down; Talos itself
/// accepts it no longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_life_of_tokens_holds_for_those_that_are_out() {
    let dir = tempfile::tempdir().must("a directory");
    let keys = dir.path().join("keys.json");
    std::fs::write(&keys, super::key_set("a").to_string()).must("writing a key set");
    let with = |lives: &str| {
        config(&format!(
            "authz: {{token_ttl: 1s}}\ncredentials: {{derived_tokens: {{jwt: {{signing_keys: {{urls: ['file://{}']}}}}, \
             {lives}}}}}",
            keys.display()
        ))
    };
    let live = Live::start(&with("max_ttl: 2h")).await;
    let key = live.talos.issue(json!({})).await;
    let derive = async |algorithm: &str, ttl: &str| {
        live.talos.derive(&key, json!({ "algorithm": algorithm, "ttl": ttl })).await
    };
    let old = [derive("TOKEN_ALGORITHM_JWT", "1h").await, derive("TOKEN_ALGORITHM_MACAROON", "1h").await];
    for token in &old {
        assert!(live.is_valid(token).await);
        live.talos.check(Check::bearer(token)).await.allowed();
    }
    assert_eq!(derived_exposure(&live).await, 7_205.0);

    live.change(&with("default_ttl: 1s, max_ttl: 2s")).await;
    for token in &old {
        until("it is too old", async || (!live.is_valid(token).await).then_some(())).await;
        let verified = live.talos.verify(token).await;
        assert_eq!(verified.text("/error_code"), "VERIFICATION_ERROR_EXPIRED", "{verified:#}");
        let verdict = live.talos.check(Check::bearer(token)).await;
        assert!(verdict.is(401), "{verdict:?}");
    }
    let left = derived_exposure(&live).await;
    assert!(
        (3_600.0..7_205.0).contains(&left),
        "{left}: tokens of two hours may be out, from another instance, too"
    );
    until("it is counted down", async || (derived_exposure(&live).await < left - 1.0).then_some(())).await;

    for algorithm in ["TOKEN_ALGORITHM_JWT", "TOKEN_ALGORITHM_MACAROON"] {
        let token = derive(algorithm, "2s").await;
        let answer = live.talos.verify(&token).await;
        assert!(answer["is_valid"] == true || answer.text("/error_code") == "VERIFICATION_ERROR_EXPIRED");
    }
    // By the setting in force, whatever others were.
    live.change(&with("max_ttl: 3h")).await;
    for token in &old {
        assert!(live.is_valid(token).await, "it is younger than three hours");
    }
    assert_eq!(derived_exposure(&live).await, 10_805.0);
}
