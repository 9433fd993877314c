//! Changing a key by field mask.

use serde_json::{Value, json};

use crate::rig::check::Check;
use crate::rig::http::{Call, Reply, Version};
use crate::rig::support::Json;
use crate::rig::talos::{IMPORTED, ISSUED, Key, Setup, Talos};

impl Talos {
    pub async fn patch(&self, path: &str, body: &Value) -> Reply {
        self.admin.send(Version::Http1, Call::new("PATCH", path).json(body)).await
    }
}

/// A key with everything that can be changed.
async fn full_key(talos: &Talos) -> (Key, String) {
    let key = talos
        .issue(json!({
            "name": "before", "scopes": ["read"], "metadata": { "team": "a" },
            "ip_restriction": { "allowed_cidrs": ["127.0.0.0/8", "::1/128"] },
            "rate_limit_policy": { "quota": "10", "window": "60s" },
        }))
        .await;
    let path = format!("{ISSUED}/{}", key.id);
    (key, path)
}

/// The fields in which two resources differ, `update_time` left out, and `warnings`, which follow
/// from others.
fn differences(before: &Value, after: &Value) -> Vec<String> {
    let (before, after) = (before.as_object().unwrap(), after.as_object().unwrap());
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    let differ = names.into_iter().filter(|name| !["update_time", "warnings"].contains(&name.as_str()));
    let differ = differ.filter(|name| before.get(*name) != after.get(*name));
    differ.cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mask_says_what_counts_and_the_body_may_be_wrapped() {
    let talos = Talos::start().await;
    let body = json!({ "name": "after", "scopes": ["read", "write"], "metadata": { "team": "b" } });
    for (mask, changed) in [
        ("?update_mask=name", vec!["name"]),
        ("?update_mask=scopes,metadata", vec!["metadata", "scopes"]),
        ("?update_mask=name%2Cmetadata", vec!["metadata", "name"]),
        ("", vec!["metadata", "name", "scopes"]),
        ("?update_mask=", vec!["metadata", "name", "scopes"]),
        ("?update_mask=*", vec!["ip_restriction", "metadata", "name", "rate_limit_policy", "scopes"]),
        ("?update_mask=ip_restriction,rate_limit_policy", vec!["ip_restriction", "rate_limit_policy"]),
    ] {
        for wrapped in [false, true] {
            let (key, path) = full_key(&talos).await;
            let sent = if wrapped { json!({ "issued_api_key": body }) } else { body.clone() };
            let reply = talos.patch(&format!("{path}{mask}"), &sent).await.expect(200).json();
            assert_eq!(differences(&key.resource, &reply), changed, "{mask} wrapped: {wrapped}");
            assert_eq!(talos.admin.get(&path).await.json(), reply);
            assert!(reply.text("/update_time") > key.resource.text("/update_time"));
            assert_eq!(talos.verify(&key.secret).await["is_valid"], true);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_resource_can_be_sent_back() {
    let talos = Talos::start().await;
    let (key, path) = full_key(&talos).await;
    let mut resource = talos.admin.get(&path).await.json();
    resource["name"] = json!("renamed");
    let reply = talos.patch(&path, &resource).await.expect(200).json();
    assert_eq!(differences(&key.resource, &reply), ["name"]);
    // An empty update changes nothing.
    let same = talos.patch(&path, &json!({})).await.expect(200).json();
    assert_eq!(same, reply);
    assert_eq!(talos.patch(&path, &json!({ "issued_api_key": null })).await.expect(200).json(), reply);
}

#[tokio::test(flavor = "multi_thread")]
async fn immutable_fields_are_refused() {
    let talos = Talos::start().await;
    let (key, path) = full_key(&talos).await;
    let before = talos.admin.get(&path).await.json();
    for (query, body, field) in [
        ("?update_mask=actor_id", json!({ "actor_id": "mallory" }), "update_mask"),
        ("?update_mask=status", json!({ "status": "KEY_STATUS_ACTIVE" }), "update_mask"),
        ("?update_mask=expire_time", json!({}), "expire_time"),
        ("?update_mask=nonesuch", json!({}), "update_mask"),
        ("?update_mask=name,", json!({ "name": "x" }), "update_mask"),
        ("?update_mask=imported_api_key.nonesuch", json!({}), "update_mask"),
        ("?update_mask=name&update_mask=scopes", json!({ "name": "x" }), "update_mask"),
        ("?nonesuch=1", json!({ "name": "x" }), "nonesuch"),
        ("", json!({ "name": "x", "actor_id": "mallory" }), "actor_id"),
        ("", json!({ "name": "x", "visibility": "KEY_VISIBILITY_PUBLIC" }), "visibility"),
        ("", json!({ "name": "x", "key_id": "b2a748d2-4516-456f-8781-314b6a4507d0" }), "key_id"),
        ("?update_mask=name", json!({ "name": "x", "key_id": "other" }), "key_id"),
        ("?update_mask=name", json!({}), "name"),
        ("", json!({ "name": "x", "secret": "y" }), "secret"),
        ("", json!({ "imported_api_key": { "name": "x" } }), "imported_api_key"),
        ("", json!({ "issued_api_key": { "name": "x" }, "name": "y" }), "name"),
        ("", json!({ "issued_api_key": { "nmae": "x" } }), "issued_api_key.nmae"),
        ("", json!({ "scopes": ["a b"] }), "scopes[0]"),
        (
            "",
            json!({ "ip_restriction": { "allowed_cidrs": ["10.0.0.1"] } }),
            "ip_restriction.allowed_cidrs[0]",
        ),
        ("", json!({ "rate_limit_policy": { "quota": 1 } }), "rate_limit_policy"),
        ("", json!({ "metadata": { "a": "x".repeat(4096) } }), "metadata"),
    ] {
        let message = talos.patch(&format!("{path}{query}"), &body).await.expect_bad_request();
        assert!(message.contains(field), "{query} {body}: {message}");
    }
    assert_eq!(talos.admin.get(&path).await.json(), before);
    assert_eq!(talos.verify(&key.secret).await["is_valid"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_key_that_is_there_and_of_that_kind_is_changed() {
    let talos = Talos::start().await;
    let issued = talos.issue(json!({})).await;
    let imported = talos.import("legacy-key", json!({})).await;
    let body = json!({ "name": "x" });
    for path in [
        format!("{ISSUED}/{}", imported.id),
        format!("{IMPORTED}/{}", issued.id),
        format!("{ISSUED}/b2a748d2-4516-456f-8781-314b6a4507d0"),
        format!("{ISSUED}/nonsense"),
    ] {
        talos.patch(&path, &body).await.expect_error(404, "API_KEY_NOT_FOUND");
    }
    let path = format!("{IMPORTED}/{}", imported.id);
    let wrapped = json!({ "imported_api_key": { "key_id": imported.id, "name": "renamed" } });
    let reply = talos.patch(&format!("{path}?update_mask=name"), &wrapped).await.expect(200).json();
    assert_eq!(reply.text("/name"), "renamed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_request_sees_the_change_here_and_within_the_lease_elsewhere() {
    let setup = Setup::new().set("TALOS_CONSISTENCY_POLL", "100ms");
    let talos = setup.start().await;
    let key = talos.issue(json!({ "scopes": ["read"] })).await;
    let ask = || Check::bearer(&key.secret).route("talos.scopes", "write");
    talos.check(ask()).await.denied(403);
    let path = format!("{ISSUED}/{}", key.id);
    talos.patch(&path, &json!({ "scopes": ["write"] })).await.expect(200);
    let allowed = talos.check(ask()).await.allowed();
    assert_eq!(allowed.header("x-talos-scopes").as_deref(), Some("write"));
    talos.patch(&format!("{path}?update_mask=scopes"), &json!({})).await.expect(200);
    talos.check(ask()).await.denied(403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_headers_would_be_too_large_is_refused() {
    let talos = Talos::start().await;
    let (_, path) = full_key(&talos).await;
    let scopes: Vec<String> = (0..100).map(|number| format!("{number:0>120}")).collect();
    let message = talos.patch(&path, &json!({ "scopes": scopes })).await.expect_bad_request();
    assert!(message.contains("8 KiB"), "{message}");
    assert_eq!(talos.admin.get(&path).await.json().at("/scopes"), &json!(["read"]));
}
