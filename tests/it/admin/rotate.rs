//! Giving a key a successor.

use serde_json::{Value, json};

use crate::rig::check::Check;
use crate::rig::support::{Json, unix_now, unix_seconds, until};
use crate::rig::talos::{IMPORTED, ISSUED, Key, Setup, Talos};

async fn rotate(talos: &Talos, key: &Key, body: Value) -> Value {
    talos.admin.post(&format!("{ISSUED}/{}:rotate", key.id), &body).await.expect(201).json()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_successor_inherits_and_the_old_key_ends_at_once() {
    let talos = Talos::start().await;
    let key = talos
        .issue(json!({
            "name": "n", "scopes": ["read"], "metadata": { "team": "a" }, "ttl": "1h",
            "ip_restriction": { "allowed_cidrs": ["127.0.0.0/8"] },
            "rate_limit_policy": { "quota": "10", "window": "60s" },
        }))
        .await;
    talos.check(Check::bearer(&key.secret)).await.allowed();
    let rotated = rotate(&talos, &key, json!({})).await;
    assert_ne!(rotated.text("/issued_api_key/key_id"), key.id);
    assert_ne!(rotated.text("/secret"), key.secret);
    for field in [
        "name",
        "actor_id",
        "scopes",
        "metadata",
        "ip_restriction",
        "rate_limit_policy",
        "visibility",
        "expire_time",
    ] {
        assert_eq!(rotated["issued_api_key"][field], key.resource[field], "{field}");
        assert_eq!(rotated["old_issued_api_key"][field], key.resource[field], "{field}");
    }
    let old = rotated.at("/old_issued_api_key");
    assert_eq!(old.text("/key_id"), key.id);
    assert_eq!(old.text("/status"), "KEY_STATUS_REVOKED");
    assert_eq!(old.text("/revocation_reason"), "REVOCATION_REASON_SUPERSEDED");
    assert_eq!(talos.admin.get(&format!("{ISSUED}/{}", key.id)).await.json(), *old);
    talos.check(Check::bearer(&key.secret)).await.denied(401);
    talos.check(Check::bearer(rotated.text("/secret"))).await.allowed();
    assert_eq!(talos.verify(&key.secret).await.text("/error_code"), "VERIFICATION_ERROR_REVOKED");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_the_request_override_even_if_empty() {
    let talos = Setup::new().set("TALOS_CREDENTIALS_API_KEYS_PREFIX_PUBLIC_CURRENT", "pub").start().await;
    let key = talos.issue(json!({ "scopes": ["read"], "metadata": { "a": 1 } })).await;
    let rotated = rotate(
        &talos,
        &key,
        json!({
            "name": "new", "scopes": [], "metadata": {}, "visibility": "KEY_VISIBILITY_PUBLIC",
            "ip_restriction": { "allowed_cidrs": ["127.0.0.1/32"] },
        }),
    )
    .await;
    let successor = rotated.at("/issued_api_key");
    assert_eq!(successor.text("/name"), "new");
    assert_eq!(successor.at("/scopes"), &json!([]));
    assert_eq!(successor.at("/metadata"), &json!({}));
    assert_eq!(successor.text("/visibility"), "KEY_VISIBILITY_PUBLIC");
    assert!(rotated.text("/secret").starts_with("pub_v1_"));
    assert_eq!(talos.verify(rotated.text("/secret")).await["is_valid"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_grace_period_both_keys_work() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let began = unix_now();
    let rotated = rotate(&talos, &key, json!({ "grace_period": "1500ms" })).await;
    let old = rotated.at("/old_issued_api_key");
    assert_eq!(old.text("/status"), "KEY_STATUS_ACTIVE");
    assert_eq!(old.get("revocation_reason"), None);
    talos.check(Check::bearer(&key.secret)).await.allowed();
    talos.check(Check::bearer(rotated.text("/secret"))).await.allowed();
    until("the old key is refused", async || {
        (!talos.check(Check::bearer(&key.secret)).await.passes()).then_some(())
    })
    .await;
    assert!(unix_now() - began >= 1.5, "refused before the grace period was over");
    let old = talos.admin.get(&format!("{ISSUED}/{}", key.id)).await.json();
    assert_eq!(old.text("/status"), "KEY_STATUS_REVOKED");
    assert_eq!(old.text("/revocation_reason"), "REVOCATION_REASON_SUPERSEDED");
    assert!(unix_seconds(old.text("/update_time")) < began + 1.5);
    let listed = talos.admin.get(&format!("{ISSUED}?filter=status%3DKEY_STATUS_REVOKED")).await.json();
    assert_eq!(listed.at("/issued_api_keys").as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_active_key_without_a_successor_is_rotated() {
    let talos = Talos::start().await;
    let revoked = talos.issue(json!({})).await;
    talos.revoke(&revoked).await;
    let rotated = talos.issue(json!({})).await;
    rotate(&talos, &rotated, json!({ "grace_period": "1h" })).await;
    let expired = talos.issue(json!({ "ttl": "1s" })).await;
    until("the key has expired", async || {
        let key = talos.admin.get(&format!("{ISSUED}/{}", expired.id)).await.json();
        (key.text("/status") == "KEY_STATUS_EXPIRED").then_some(())
    })
    .await;
    for key in [revoked, rotated, expired] {
        let path = format!("{ISSUED}/{}:rotate", key.id);
        talos.admin.post(&path, &json!({})).await.expect_error(409, "FAILED_PRECONDITION");
    }
    let imported = talos.import("legacy-key", json!({})).await;
    let none = "b2a748d2-4516-456f-8781-314b6a4507d0";
    for id in [imported.id.as_str(), none, "nonsense"] {
        let path = format!("{ISSUED}/{id}:rotate");
        talos.admin.post(&path, &json!({})).await.expect_error(404, "API_KEY_NOT_FOUND");
    }
    let path = format!("{IMPORTED}/{}:rotate", imported.id);
    talos.admin.post(&path, &json!({})).await.expect_error(404, "NOT_FOUND");
    let listed = talos.admin.get(ISSUED).await.json();
    assert_eq!(listed.at("/issued_api_keys").as_array().unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_rotates_nothing() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let path = format!("{ISSUED}/{}:rotate", key.id);
    for (body, field) in [
        (json!({ "nonesuch": 1 }), "nonesuch"),
        (json!({ "name": "" }), "name"),
        (json!({ "scopes": ["a b"] }), "scopes[0]"),
        (json!({ "lifetime": "1h" }), "lifetime"),
        (json!({ "grace_period": "-1s" }), "grace_period"),
        (json!({ "grace_period": "soon" }), "grace_period"),
        (json!({ "grace_period": "11y" }), "grace_period"),
        (json!({ "visibility": "PUBLIC" }), "visibility"),
        (json!({ "visibility": "KEY_VISIBILITY_PUBLIC" }), "visibility"),
        (json!({ "rate_limit_policy": { "quota": "x" } }), "rate_limit_policy.quota"),
        (json!({ "ip_restriction": { "allowed_cidrs": ["x"] } }), "ip_restriction.allowed_cidrs[0]"),
    ] {
        let message = talos.admin.post(&path, &body).await.expect_bad_request();
        assert!(message.contains(field), "{body}: {message}");
    }
    assert_eq!(talos.verify(&key.secret).await["is_valid"], true);
    let listed = talos.admin.get(ISSUED).await.json();
    assert_eq!(listed.at("/issued_api_keys").as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_grace_period_is_returned_and_may_be_sent_back() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    assert_eq!(key.resource.get("supersede_time"), None);
    let old = rotate(&talos, &key, json!({ "grace_period": "1h" })).await["old_issued_api_key"].take();
    let left = unix_seconds(old.text("/supersede_time")) - unix_seconds(old.text("/update_time"));
    assert_eq!(left.round(), 3600.0, "{old:#}");
    let path = format!("{ISSUED}/{}", key.id);
    let patched = talos.patch(&path, &old).await.expect(200).json();
    assert_eq!(patched["supersede_time"], old["supersede_time"]);
    let refused = talos.patch(&format!("{path}?update_mask=supersede_time"), &old).await;
    assert!(refused.expect_bad_request().contains("supersede_time can't be updated"));
}
