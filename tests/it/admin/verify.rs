//! Verifying a credential: always 200 with a verdict.

use serde_json::{Value, json};

use crate::rig::http::{Call, Version};
use crate::rig::support::{Json, assert_no_null, unix_now, unix_seconds, until};
use crate::rig::talos::{ISSUER, NETWORK, Talos, VERIFY};

#[track_caller]
fn assert_refused(answer: &Value, code: &str) {
    assert_no_null(answer);
    assert_eq!(answer.at("/is_valid"), false, "{answer:#}");
    assert_eq!(answer.text("/error_code"), code, "{answer:#}");
    assert!(!answer.text("/error_message").is_empty(), "{answer:#}");
    assert_eq!(answer.at("/scopes"), &json!([]), "{answer:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_valid_key_is_described() {
    let talos = Talos::start().await;
    let issued = talos.issue(json!({ "scopes": ["a", "b"], "metadata": { "n": 1 }, "ttl": "60s" })).await;
    let imported = talos
        .import("legacy-0123456789", json!({ "scopes": ["a", "b"], "metadata": { "n": 1 }, "ttl": "60s" }))
        .await;
    for key in [issued, imported] {
        let answer = talos.verify(&key.secret).await;
        assert_no_null(&answer);
        assert_eq!(answer.at("/is_valid"), true, "{answer:#}");
        assert_eq!(answer.text("/key_id"), key.id);
        assert_eq!(answer.text("/actor_id"), "alice");
        assert_eq!(answer.texts("/scopes"), ["a", "b"]);
        assert_eq!(answer.at("/metadata"), &json!({ "n": 1 }));
        assert_eq!(answer.text("/status"), "KEY_STATUS_ACTIVE");
        assert_eq!(answer.text("/visibility"), "KEY_VISIBILITY_SECRET");
        assert_eq!(answer.text("/expire_time"), key.resource.text("/expire_time"));
        for absent in ["error_code", "error_message", "rate_limit_policy", "rate_limit_remaining"] {
            assert_eq!(answer.get(absent), None, "{absent} in {answer:#}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_derived_token_is_described() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({ "scopes": ["a", "b"] })).await;
    let token = talos.derive(&key, json!({ "scopes": ["a"], "ttl": "60s" })).await;
    let answer = talos.verify(&token).await;
    assert_eq!(answer.at("/is_valid"), true, "{answer:#}");
    assert_eq!(answer.text("/key_id"), key.id);
    assert_eq!(answer.text("/issuer"), ISSUER);
    assert_eq!(answer.texts("/scopes"), ["a"]);
    assert_eq!(crate::rig::support::claims(&token).text("/nid"), NETWORK);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_credential_says_why() {
    let talos = Talos::start().await;
    let expired = talos.issue(json!({ "ttl": "1s" })).await;
    let end = unix_seconds(expired.resource.text("/expire_time"));
    let revoked = talos.issue(json!({})).await;
    talos.revoke(&revoked).await;
    let live = talos.issue(json!({})).await;
    let token = talos.derive(&live, json!({})).await;
    let (signed, signature) = token.rsplit_once('.').unwrap_or_default();
    let first = if signature.starts_with('A') { "B" } else { "A" };
    let forged = format!("{signed}.{first}{}", &signature[1..]);
    let unknown = format!("{}2222", &live.secret[..live.secret.len() - 4]);
    until("the key expires", async || (unix_now() > end).then_some(())).await;
    let cases = [
        (expired.secret.as_str(), "VERIFICATION_ERROR_EXPIRED"),
        (&revoked.secret, "VERIFICATION_ERROR_REVOKED"),
        (&unknown, "VERIFICATION_ERROR_NOT_FOUND"),
        ("never-imported", "VERIFICATION_ERROR_NOT_FOUND"),
        (&forged, "VERIFICATION_ERROR_SIGNATURE_INVALID"),
    ];
    for (credential, code) in cases {
        assert_refused(&talos.verify(credential).await, code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_list_needs_an_address_on_it() {
    let talos = Talos::start().await;
    let elsewhere = talos.issue(json!({ "ip_restriction": { "allowed_cidrs": ["192.0.2.0/24"] } })).await;
    let here = talos.issue(json!({ "ip_restriction": { "allowed_cidrs": ["127.0.0.0/8"] } })).await;
    assert_refused(&talos.verify(&elsewhere.secret).await, "VERIFICATION_ERROR_IP_NOT_ALLOWED");
    assert_eq!(talos.verify(&here.secret).await["is_valid"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_must_match_exactly() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let bound = talos.derive(&key, json!({ "audiences": ["billing", "mail"] })).await;
    let unbound = talos.derive(&key, json!({})).await;
    let cases = [
        (&bound, json!(["mail"]), true),
        (&bound, json!(["x", "billing"]), true),
        (&bound, json!([]), true),
        (&bound, json!(["bill"]), false),
        (&unbound, json!(["billing"]), false),
    ];
    for (token, expected, valid) in cases {
        let body = json!({ "credential": token, "expected_audiences": expected });
        let answer = talos.admin.post(VERIFY, &body).await.expect(200).json();
        assert_eq!(answer["is_valid"], valid, "{expected}: {answer:#}");
        if !valid {
            assert_eq!(answer.text("/error_code"), "VERIFICATION_ERROR_AUDIENCE_MISMATCH");
        }
    }
    assert_eq!(talos.verify(&bound).await.texts("/audiences"), ["billing", "mail"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_header_tells_what_the_cache_did() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let call = Call::post(VERIFY).json(&json!({ "credential": key.secret }));
    let steps = [
        (call.clone().header("cache-control", "no-store"), "SKIP"),
        (call.clone(), "MISS"),
        (call.clone(), "HIT"),
        (call.clone().header("cache-control", "no-cache"), "SKIP"),
        (call.clone().header("pragma", "no-cache"), "SKIP"),
        (call, "HIT"),
    ];
    for (number, (call, output)) in steps.into_iter().enumerate() {
        let reply = talos.admin.send(Version::Http1, call).await.expect(200);
        assert_eq!(reply.header("ory-talos-cache"), Some(output), "step {number}");
        assert_eq!(reply.json()["is_valid"], true);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_policy_is_reported() {
    let talos = Talos::start().await;
    for (policy, header) in [
        (json!({ "quota": 100, "window": "1m" }), r#""default";q=100;w=60"#),
        (
            json!({ "quota": "5", "window": "3600s", "unit": "content-bytes" }),
            r#""default";q=5;w=3600;qu="content-bytes""#,
        ),
    ] {
        let key = talos.issue(json!({ "rate_limit_policy": policy })).await;
        let reply = talos.admin.post(VERIFY, &json!({ "credential": key.secret })).await.expect(200);
        assert_eq!(reply.header("ratelimit-policy"), Some(header));
        assert_eq!(reply.json().at("/rate_limit_policy"), key.resource.at("/rate_limit_policy"));
    }
    let key = talos.issue(json!({})).await;
    let reply = talos.admin.post(VERIFY, &json!({ "credential": key.secret })).await.expect(200);
    assert_eq!(reply.header("ratelimit-policy"), None);
}
