//! Deleting an imported key.

use serde_json::json;

use crate::rig::check::Check;
use crate::rig::http::{Call, Reply, Version};
use crate::rig::talos::{IMPORTED, ISSUED, Talos};

async fn delete(talos: &Talos, path: &str) -> Reply {
    talos.admin.send(Version::Http1, Call::new("DELETE", path)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_key_is_gone_at_once_and_can_come_back() {
    let talos = Talos::start().await;
    let key = talos.import("legacy-key", json!({ "scopes": ["read"] })).await;
    let path = format!("{IMPORTED}/{}", key.id);
    talos.check(Check::bearer("legacy-key")).await.allowed();
    assert_eq!(delete(&talos, &path).await.expect(204).text(), "");
    talos.check(Check::bearer("legacy-key")).await.denied(401);
    talos.admin.get(&path).await.expect_error(404, "API_KEY_NOT_FOUND");
    delete(&talos, &path).await.expect_error(404, "API_KEY_NOT_FOUND");
    talos.import("legacy-key", json!({})).await;
    // As it is now, not as it was remembered.
    talos.check(Check::bearer("legacy-key")).await.allowed();
    talos.check(Check::bearer("legacy-key").route("talos.scopes", "read")).await.denied(403);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_imported_keys_can_be_deleted() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    delete(&talos, &format!("{IMPORTED}/{}", key.id)).await.expect_error(404, "API_KEY_NOT_FOUND");
    delete(&talos, &format!("{ISSUED}/{}", key.id)).await.expect_error(405, "METHOD_NOT_ALLOWED");
    talos.check(Check::bearer(&key.secret)).await.allowed();
}
