//! Settings other than secrets that apply at once.

use serde_json::json;

use super::{FIRST, Live};
use crate::http::{Call, Version};
use crate::support::{Json, until};
use crate::talos::{ISSUED, VERIFY};

fn config(more: &str) -> String {
    format!("secrets: {{hmac: {{current: {FIRST}}}}}\n{more}\n")
}

/// Where the answer to a verification came from.
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
    // What was read for an hour is read again after a second.
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
    let told = live.talos.admin.post(ISSUED, &issue).await.expect_bad_request();
    assert!(told.contains("356400s"), "{told}");
    let key = live.talos.issue(json!({})).await;
    assert!(!key.resource.text("/expire_time").is_empty());

    let issue = json!({ "name": "n", "actor_id": "a" });
    live.change(&config("quota: {api_keys_max: 1}")).await;
    live.talos.admin.post(ISSUED, &issue).await.expect_error(402, "API_KEY_QUOTA_EXCEEDED");
    live.change(&config("quota: {api_keys_max: 100}")).await;
    live.talos.admin.post(ISSUED, &issue).await.expect(201);
}
