//! Importing a key that another system made.

use serde_json::json;

use crate::rig::support::{Json, assert_no_null};
use crate::rig::talos::{IMPORTED, Talos};

fn body(raw_key: &str) -> serde_json::Value {
    json!({ "raw_key": raw_key, "name": "legacy", "actor_id": "bob" })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_key_is_known_by_its_hash() {
    let talos = Talos::start().await;
    // SHA-512/256 over the nil UUID's text, a zero byte and the key.
    let id = "130f048ee87d96da6197a8e52867051edb7d1d317e9495e826c4e2daef2ad033";
    let imported = talos.admin.post(IMPORTED, &body("sk_live_0123456789")).await.expect(201).json();
    assert_no_null(&imported);
    assert_eq!(imported.text("/key_id"), id);
    assert_eq!(imported.text("/status"), "KEY_STATUS_ACTIVE");
    assert_eq!(imported.at("/scopes"), &json!([]));
    assert!(!imported.to_string().contains("sk_live"), "{imported:#}");
    let verdict = talos.verify("sk_live_0123456789").await;
    assert_eq!(verdict.text("/key_id"), imported.text("/key_id"));
    let again = talos.admin.post(IMPORTED, &body("sk_live_0123456789")).await;
    let exists = again.json();
    again.expect_error(409, "API_KEY_EXISTS");
    assert_eq!(exists.at("/error/details/0/metadata/key_id"), id, "{exists:#}");
    assert!(exists.text("/error/message").ends_with(&format!(", as {id}")), "{exists:#}");
    let neither = json!({ "name": "a", "actor_id": "b" });
    let refused = talos.admin.post(IMPORTED, &neither).await.expect_bad_request();
    assert!(refused.starts_with("raw_key: ") && refused.ends_with("set hash"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_asked_for_before_works_once_imported() {
    let talos = Talos::start().await;
    assert_eq!(talos.verify("sk_live_0123456789").await["is_valid"], false);
    talos.admin.post(IMPORTED, &body("sk_live_0123456789")).await.expect(201);
    assert_eq!(talos.verify("sk_live_0123456789").await["is_valid"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_keys_can_be_imported() {
    let talos = Talos::start().await;
    let long = "k".repeat(4096);
    talos.admin.post(IMPORTED, &body(&long)).await.expect(201);
    assert_eq!(talos.verify(&long).await["is_valid"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_could_never_verify_is_refused() {
    let talos = Talos::start().await;
    let issued = talos.issue(json!({})).await;
    let token = talos.derive(&issued, json!({})).await;
    let macaroon = "mc_v1_AgETaHR0cHM6Ly90YWxvcy50ZXN0";
    for raw_key in [issued.secret.as_str(), &token, macaroon, ""] {
        let message = talos.admin.post(IMPORTED, &body(raw_key)).await.expect_bad_request();
        assert!(message.contains("raw_key"), "{message}");
        assert!(raw_key.is_empty() || !message.contains(raw_key), "the key is in the error: {message}");
    }
}
