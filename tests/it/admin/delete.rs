//! Deleting keys, and actors with all their keys.

use serde_json::json;

use crate::rig::check::Check;
use crate::rig::http::{Call, Reply, Version};
use crate::rig::support::until;
use crate::rig::talos::{IMPORTED, ISSUED, Setup, Talos};

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
    // The new key counts, not the cached one of before.
    talos.check(Check::bearer("legacy-key")).await.allowed();
    talos.check(Check::bearer("legacy-key").route("talos.scopes", "read")).await.denied(403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_issued_key_is_gone_at_once_on_every_instance() {
    let setup = Setup::new();
    let (talos, other) = tokio::join!(setup.start(), setup.start());
    let key = talos.issue(json!({ "request_id": "r-1" })).await;
    let path = format!("{ISSUED}/{}", key.id);
    for instance in [&talos, &other] {
        instance.check(Check::bearer(&key.secret)).await.allowed();
    }
    delete(&talos, &format!("{IMPORTED}/{}", key.id)).await.expect_error(404, "API_KEY_NOT_FOUND");
    let deleted = delete(&talos, &path).await.expect(204);
    assert!(deleted.header("talos-epoch").is_some_and(|n| n.parse::<u64>().is_ok()), "{deleted:?}");
    talos.check(Check::bearer(&key.secret)).await.denied(401);
    until("the other instance knows it", async || {
        (!other.check(Check::bearer(&key.secret)).await.passes()).then_some(())
    })
    .await;
    talos.admin.get(&path).await.expect_error(404, "API_KEY_NOT_FOUND");
    delete(&talos, &path).await.expect_error(404, "API_KEY_NOT_FOUND");
    talos.admin.post(&format!("{path}:revoke"), &json!({})).await.expect_error(404, "API_KEY_NOT_FOUND");
    // The request_id was deleted with the key, so the request makes a new key.
    assert_ne!(talos.issue(json!({ "request_id": "r-1" })).await.id, key.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_key_gives_its_place_back() {
    let talos = Setup::new().set("TALOS_QUOTA_API_KEYS_MAX", "1").start().await;
    let key = talos.issue(json!({})).await;
    let body = json!({ "name": "n", "actor_id": "a" });
    talos.admin.post(ISSUED, &body).await.expect_error(402, "API_KEY_QUOTA_EXCEEDED");
    delete(&talos, &format!("{ISSUED}/{}", key.id)).await.expect(204);
    talos.admin.post(ISSUED, &body).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_is_erased_with_all_its_keys() {
    let talos = Talos::start().await;
    let (actor, path) = ("team/a b%2F:7", "/v2alpha1/admin/actors/team%2Fa%20b%252F%3A7");
    let issued =
        [talos.issue(json!({ "actor_id": actor })).await, talos.issue(json!({ "actor_id": actor })).await];
    let imported = talos.import("legacy-of-the-actor", json!({ "actor_id": actor })).await;
    let others = [
        talos.issue(json!({ "actor_id": "team/a b%2F:7x" })).await,
        talos.issue(json!({ "actor_id": "team" })).await,
    ];
    talos.revoke(&issued[0]).await;
    let credentials = [&issued[1].secret, &imported.secret];
    for credential in credentials {
        talos.check(Check::bearer(credential)).await.allowed();
    }
    let refused = delete(&talos, path).await;
    refused.expect_error(409, "FAILED_PRECONDITION");
    for bad in ["?force=yes", "?force=true&force=true", "?other=1"] {
        delete(&talos, &format!("{path}{bad}")).await.expect(400);
    }
    let erased = delete(&talos, &format!("{path}?force=true")).await.expect(200);
    assert!(erased.header("talos-epoch").is_some(), "{erased:?}");
    let expected = json!({ "issued_api_key_count": 2, "imported_api_key_count": 1, "has_more": false });
    assert_eq!(erased.json(), expected);
    for credential in credentials {
        talos.check(Check::bearer(credential)).await.denied(401);
    }
    for collection in [ISSUED, IMPORTED] {
        let list = talos.admin.get(collection).await.expect(200).text();
        assert!(!list.contains("b%2F:7\""), "{list}");
    }
    for other in &others {
        talos.check(Check::bearer(&other.secret)).await.allowed();
    }
    delete(&talos, &format!("{path}?force=true")).await.expect_error(404, "API_KEY_NOT_FOUND");
    // An actor without active keys needs no force.
    talos.revoke(&others[1]).await;
    assert_eq!(
        delete(&talos, "/v2alpha1/admin/actors/team").await.expect(200).json()["issued_api_key_count"],
        1
    );
}

/// Imports keys of the actor `bulk` in one request.
async fn import_many(talos: &Talos, names: std::ops::Range<usize>) {
    let import = |key| json!({ "name": "n", "actor_id": "bulk", "raw_key": format!("legacy-{key}") });
    let (count, requests) = (names.len(), names.map(import).collect::<Vec<_>>());
    let body = json!({ "requests": requests });
    let imported = talos.admin.post(&format!("{IMPORTED}:batchCreate"), &body).await.expect(200).json();
    assert_eq!(imported["success_count"], count);
}

/// Erases the actor `bulk` in as many calls as the counts of issued and imported keys that each
/// erases.
async fn is_erased_in_parts(talos: &Talos, parts: &[(usize, usize)]) {
    let path = "/v2alpha1/admin/actors/bulk?force=true";
    for (place, (issued, imported)) in parts.iter().enumerate() {
        let erased = delete(talos, path).await.expect(200).json();
        let has_more = place + 1 < parts.len();
        let expected = json!({
            "issued_api_key_count": issued, "imported_api_key_count": imported, "has_more": has_more,
        });
        assert_eq!(erased, expected);
    }
    delete(talos, path).await.expect_error(404, "API_KEY_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_with_many_keys_is_erased_in_parts() {
    let talos = Talos::start().await;
    import_many(&talos, 0..600).await;
    import_many(&talos, 600..1_200).await;
    is_erased_in_parts(&talos, &[(0, 1_000), (0, 200)]).await;
}

/// The actor stays suspended while keys of the second kind are left.
#[tokio::test(flavor = "multi_thread")]
async fn as_many_issued_keys_as_one_call_erases_hide_no_imported_one() {
    let talos = Talos::start().await;
    let imported = talos.import("legacy-0", json!({ "actor_id": "bulk" })).await;
    let suspend = talos.admin.post("/v2alpha1/admin/actors/bulk:suspend", &json!({})).await;
    suspend.expect(200);
    let mut issuing = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let admin = talos.admin;
        issuing.spawn(async move {
            for _ in 0..125 {
                admin.post(ISSUED, &json!({ "name": "n", "actor_id": "bulk" })).await.expect(201);
            }
        });
    }
    issuing.join_all().await;
    let path = "/v2alpha1/admin/actors/bulk?force=true";
    let erased = delete(&talos, path).await.expect(200).json();
    let expected = json!({ "issued_api_key_count": 1_000, "imported_api_key_count": 0, "has_more": true });
    assert_eq!(erased, expected);
    talos.check(Check::bearer(&imported.secret)).await.denied(401);
    is_erased_in_parts(&talos, &[(0, 1)]).await;
}
