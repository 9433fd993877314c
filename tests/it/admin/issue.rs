//! Issuing a key and getting it back.

use serde_json::{Value, json};

use crate::rig::support::{Json, assert_no_null, unix_now, unix_seconds};
use crate::rig::talos::{ISSUED, Setup, Talos};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_everything_comes_back_with_everything() {
    let talos = Talos::start().await;
    let asked = json!({
        "name": "Everything",
        "actor_id": "user:42",
        "scopes": ["b:read", "a:*"],
        "metadata": { "team": "blue", "level": 3, "on": true, "tags": ["x"] },
        "ttl": "3600s",
        "ip_restriction": { "allowed_cidrs": ["10.0.0.0/8", "2001:db8::/32"] },
        "rate_limit_policy": { "quota": 100, "window": "60s", "unit": "content-bytes" },
        "visibility": "KEY_VISIBILITY_SECRET",
    });
    let begun = unix_now();
    let answer = talos.admin.post(ISSUED, &asked).await.expect(201).json();
    assert_no_null(&answer);
    let key = answer.at("/issued_api_key");
    for field in ["name", "actor_id", "scopes", "metadata", "ip_restriction", "visibility"] {
        assert_eq!(key[field], asked[field], "{field}");
    }
    assert_eq!(key.text("/status"), "KEY_STATUS_ACTIVE");
    assert_eq!(
        key.at("/rate_limit_policy"),
        &json!({ "quota": "100", "unit": "content-bytes", "window": "60s" })
    );
    let created = unix_seconds(key.text("/create_time"));
    assert!((begun - 1.0..=unix_now() + 1.0).contains(&created), "{key:#}");
    assert!((unix_seconds(key.text("/expire_time")) - created - 3600.0).abs() < 1.0, "{key:#}");

    let secret = answer.text("/secret");
    assert!(secret.starts_with("ory_ak_v1_"), "{secret}");
    let got = talos.admin.get(&format!("{ISSUED}/{}", key.text("/key_id"))).await.expect(200).json();
    assert_eq!(&got, key);
    assert!(!got.to_string().contains(secret), "the secret is shown again");
}

#[tokio::test(flavor = "multi_thread")]
async fn unset_members_are_absent_except_lists() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({ "name": "plain", "actor_id": "a" })).await;
    let got = talos.admin.get(&format!("{ISSUED}/{}", key.id)).await.expect(200).json();
    for answer in [&key.resource, &got] {
        assert_no_null(answer);
        assert_eq!(answer.at("/scopes"), &json!([]));
        assert_eq!(answer.text("/visibility"), "KEY_VISIBILITY_SECRET");
        let unset = [
            "metadata",
            "ip_restriction",
            "rate_limit_policy",
            "revocation_reason",
            "revocation_description",
            "last_used_time",
        ];
        for field in unset {
            assert_eq!(answer.get(field), None, "{field} in {answer:#}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn null_and_unspecified_mean_absent() {
    let talos = Talos::start().await;
    let key = talos
        .issue(json!({
            "scopes": null,
            "metadata": null,
            "ttl": null,
            "ip_restriction": null,
            "rate_limit_policy": null,
            "request_id": null,
            "visibility": "KEY_VISIBILITY_UNSPECIFIED",
        }))
        .await;
    assert_eq!(key.resource.at("/scopes"), &json!([]));
    assert_eq!(key.resource.text("/visibility"), "KEY_VISIBILITY_SECRET");
    assert_eq!(key.resource.get("metadata"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn durations_are_read_in_all_their_forms() {
    let talos = Talos::start().await;
    for (ttl, seconds) in
        [("90s", 90.0), ("1h30m", 5400.0), ("1d", 86_400.0), ("1w", 604_800.0), ("1mo", 2_592_000.0)]
    {
        let key = talos.issue(json!({ "ttl": ttl })).await.resource;
        let life = unix_seconds(key.text("/expire_time")) - unix_seconds(key.text("/create_time"));
        assert!((life - seconds).abs() < 1.0, "{ttl} gave {life} s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_gives_the_same_key_back_without_its_secret() {
    let talos = Setup::new().set("TALOS_IDEMPOTENCY_REVEAL_FOR", "0").start().await;
    let body = json!({ "name": "once", "actor_id": "a", "scopes": ["x"], "request_id": "order-66" });
    let first = talos.admin.post(ISSUED, &body).await.expect(201).json();
    let again = talos.admin.post(ISSUED, &body).await.expect(201).json();
    assert_eq!(again.text("/issued_api_key/key_id"), first.text("/issued_api_key/key_id"));
    assert_eq!(again.get("secret"), None, "{again:#}");
    assert!(talos.verify(first.text("/secret")).await["is_valid"] == true);

    let mut other = body.clone();
    other["scopes"] = json!(["y"]);
    let message = talos.admin.post(ISSUED, &other).await.expect(409).json();
    crate::rig::http::assert_envelope(&message, 409);

    let keys = talos.admin.get(ISSUED).await.expect(200).json();
    assert_eq!(keys.at("/issued_api_keys").as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn public_keys_need_a_prefix_of_their_own() {
    let public: Value = json!({ "name": "p", "actor_id": "a", "visibility": "KEY_VISIBILITY_PUBLIC" });
    let without = Talos::start().await;
    let refusal = without.admin.post(ISSUED, &public).await;
    assert!([400, 409].contains(&refusal.status), "{}: {}", refusal.status, refusal.text());

    let with = Setup::new().set("TALOS_CREDENTIALS_API_KEYS_PREFIX_PUBLIC_CURRENT", "pk").start().await;
    let key = with.issue(public).await;
    assert!(key.secret.starts_with("pk_v1_"), "{}", key.secret);
    assert_eq!(key.resource.text("/visibility"), "KEY_VISIBILITY_PUBLIC");
    assert_eq!(with.verify(&key.secret).await.text("/visibility"), "KEY_VISIBILITY_PUBLIC");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_id_is_404() {
    let talos = Talos::start().await;
    let unknown = format!("{ISSUED}/b2a748d2-4516-456f-8781-314b6a4507d0");
    talos.admin.get(&unknown).await.expect_error(404, "API_KEY_NOT_FOUND");
    let reply = talos.admin.post(&format!("{unknown}:revoke"), &json!({})).await;
    reply.expect_error(404, "API_KEY_NOT_FOUND");
}
