//! Quotas: the number of keys that a project may have.

use serde_json::json;

use crate::rig::http::{Call, Version};
use crate::rig::talos::{IMPORTED, ISSUED, Setup, Talos};

async fn try_issue(talos: &Talos) -> u16 {
    let reply = talos.admin.post(ISSUED, &json!({ "name": "n", "actor_id": "a" })).await;
    if reply.status == 402 {
        let message = reply.expect_error(402, "API_KEY_QUOTA_EXCEEDED");
        assert!(message.contains("api_key_quota_exceeded"), "{message}");
        return 402;
    }
    reply.status
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_superseded_and_deleted_keys_make_room() {
    let talos = Setup::new().set("TALOS_QUOTA_API_KEYS_MAX", "2").start().await;
    let first = talos.issue(json!({})).await;
    let imported = talos.import("legacy-key", json!({})).await;
    assert_eq!(try_issue(&talos).await, 402);
    let body = json!({ "raw_key": "other", "name": "n", "actor_id": "a" });
    talos.admin.post(IMPORTED, &body).await.expect_error(402, "API_KEY_QUOTA_EXCEEDED");

    talos.revoke(&first).await;
    assert_eq!(try_issue(&talos).await, 201);
    assert_eq!(try_issue(&talos).await, 402);
    let path = format!("{IMPORTED}/{}", imported.id);
    talos.admin.send(Version::Http1, Call::new("DELETE", &path)).await.expect(204);
    assert_eq!(try_issue(&talos).await, 201);
    assert_eq!(try_issue(&talos).await, 402);
}

#[tokio::test(flavor = "multi_thread")]
async fn rotating_needs_room_only_while_both_keys_are_valid() {
    let talos = Setup::new().set("TALOS_QUOTA_API_KEYS_MAX", "1").start().await;
    let key = talos.issue(json!({})).await;
    let path = format!("{ISSUED}/{}:rotate", key.id);
    let reply = talos.admin.post(&path, &json!({ "grace_period": "1h" })).await;
    reply.expect_error(402, "API_KEY_QUOTA_EXCEEDED");
    assert_eq!(talos.verify(&key.secret).await["is_valid"], true);
    talos.admin.post(&path, &json!({})).await.expect(201);
    assert_eq!(try_issue(&talos).await, 402);
}
