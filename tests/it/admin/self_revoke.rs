//! Revocation of a key by its holder.

use serde_json::json;

use crate::rig::support::{Json, unix_now, unix_seconds, until};
use crate::rig::talos::{ISSUED, SELF_REVOKE, Talos};

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_revokes_its_key_and_may_say_so_twice() {
    let talos = Talos::start().await;
    let issued = talos.issue(json!({})).await;
    let imported = talos.import("legacy-0123456789", json!({})).await;
    for key in [&issued, &imported] {
        for _ in 0..2 {
            let reply = talos.self_revoke(&key.secret).await.expect(200);
            assert_eq!(reply.json(), json!({}));
        }
        assert_eq!(talos.verify(&key.secret).await.text("/error_code"), "VERIFICATION_ERROR_REVOKED");
    }
    // One that the admin revoked is an already revoked one, too.
    let key = talos.issue(json!({})).await;
    talos.revoke(&key).await;
    talos.self_revoke(&key.secret).await.expect(200);
    let resource = talos.admin.get(&format!("{ISSUED}/{}", key.id)).await.json();
    assert_eq!(resource.text("/revocation_reason"), "REVOCATION_REASON_KEY_COMPROMISE");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_credential_gets_one_constant_answer() {
    let talos = Talos::start().await;
    let expired = talos.issue(json!({ "ttl": "1s" })).await;
    let end = unix_seconds(expired.resource.text("/expire_time"));
    let known = talos.issue(json!({})).await;
    let forged = format!("{}2222", &known.secret[..known.secret.len() - 4]);
    until("the key expires", async || (unix_now() > end).then_some(())).await;
    let mut answers = Vec::new();
    for credential in ["never-imported", &forged, &expired.secret, "ory_ak_v1_x_y", "\u{1}", "ключ"] {
        let reply = talos.self_revoke(credential).await;
        answers.push((credential.to_owned(), reply.body.clone()));
        reply.expect_error(400, "UNKNOWN_CREDENTIAL");
    }
    for (credential, body) in &answers {
        assert_eq!(*body, answers[0].1, "{credential}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_derived_token_is_not_revocable() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let token = talos.derive(&key, json!({})).await;
    let refused = talos.self_revoke(&token).await;
    assert_eq!(refused.json().at("/error/details/0/metadata/field"), "credential");
    refused.expect_error(400, "DERIVED_TOKEN_NOT_REVOCABLE");
    assert_eq!(talos.verify(&key.secret).await["is_valid"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_gives_a_reason_of_its_own_only() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let body = |reason: &str| json!({ "credential": key.secret, "reason": reason });
    let refused = talos.public.post(SELF_REVOKE, &body("REVOCATION_REASON_PRIVILEGE_WITHDRAWN")).await;
    refused.expect_bad_request();
    assert_eq!(talos.verify(&key.secret).await["is_valid"], true);

    talos.public.post(SELF_REVOKE, &body("REVOCATION_REASON_KEY_COMPROMISE")).await.expect(200);
    let resource = talos.admin.get(&format!("{ISSUED}/{}", key.id)).await.json();
    assert_eq!(resource.text("/revocation_reason"), "REVOCATION_REASON_KEY_COMPROMISE");

    let other = talos.issue(json!({})).await;
    let body = json!({ "credential": other.secret, "reason": "REVOCATION_REASON_UNSPECIFIED" });
    talos.public.post(SELF_REVOKE, &body).await.expect(200);
}
