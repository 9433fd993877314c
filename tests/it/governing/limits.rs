//! `max_keys_per_actor`: right under concurrency, and only for keys that count.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::violations;
use crate::rig::http::{Call, Version};
use crate::rig::support::{Json, until};
use crate::rig::talos::{IMPORTED, ISSUED, Setup, Talos};

fn limited(most: u32) -> Setup {
    let policies = json!([
        { "name": "few", "match": { "actor_prefix": "user:" }, "max_keys_per_actor": most, "name_pattern": "[a-z]+" },
        { "name": "public", "match": { "visibility": "public" }, "max_keys_per_actor": 1 },
    ]);
    Setup::new()
        .set("TALOS_ISSUANCE_POLICIES", &policies.to_string())
        .set("TALOS_CREDENTIALS_API_KEYS_PREFIX_PUBLIC_CURRENT", "pub")
}

fn body(actor: &str, more: &Value) -> Value {
    let mut body = json!({ "name": "n", "actor_id": actor });
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    body
}

async fn issue(talos: &Talos, actor: &str, more: Value) -> u16 {
    let reply = talos.admin.post(ISSUED, &body(actor, &more)).await;
    let status = reply.status;
    if status != 201 {
        assert_eq!(violations(reply), ["actor_id"]);
    }
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_as_allowed_are_made_whoever_asks_at_once() {
    let first = limited(5).start().await;
    let second = first.setup.start().await;
    let requests = (0..40).map(|number| {
        let talos = if number % 2 == 0 { &first } else { &second };
        async move {
            match number % 4 {
                0 | 1 => issue(talos, "user:1", json!({})).await,
                _ => {
                    let import = body("user:1", &json!({ "raw_key": format!("legacy-key-{number}") }));
                    talos.admin.post(IMPORTED, &import).await.status
                }
            }
        }
    });
    let statuses = join_all(requests).await;
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 5, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 400).count(), 35, "{statuses:?}");

    let requests: Vec<Value> =
        (0..10).map(|number| body("user:2", &json!({ "raw_key": format!("of-a-batch-{number}") }))).collect();
    let path = format!("{IMPORTED}:batchCreate");
    let batch = first.admin.post(&path, &json!({ "requests": requests })).await.expect(200).json();
    assert_eq!((&batch["success_count"], &batch["failure_count"]), (&json!(5), &json!(5)), "{batch:#}");
    // Other actors have no limit, and what is wrong besides is listed, too.
    for _ in 0..8 {
        assert_eq!(issue(&second, "service:1", json!({})).await, 201);
    }
    let reply = first.admin.post(ISSUED, &body("user:1", &json!({ "name": "N1" }))).await;
    assert_eq!(violations(reply), ["name", "actor_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_full_limit_is_listed_and_equal_ones_count_a_key_once() {
    let policies = json!([
        { "name": "few", "match": { "actor_prefix": "user:" }, "max_keys_per_actor": 2 },
        { "name": "all", "max_keys_per_actor": 2 },
        { "name": "secret", "match": { "visibility": "secret" }, "max_keys_per_actor": 1 },
        { "name": "many", "max_keys_per_actor": 9 },
    ]);
    let setup = Setup::new().set("TALOS_ISSUANCE_POLICIES", &policies.to_string());
    let talos = setup.set("TALOS_CREDENTIALS_API_KEYS_PREFIX_PUBLIC_CURRENT", "pub").start().await;
    let public = json!({ "visibility": "KEY_VISIBILITY_PUBLIC" });
    assert_eq!(issue(&talos, "user:1", json!({})).await, 201);
    let reply = talos.admin.post(ISSUED, &body("user:1", &json!({}))).await;
    assert_eq!(violations(reply), ["actor_id"]);
    assert_eq!(issue(&talos, "user:1", public.clone()).await, 201);
    let reply = talos.admin.post(ISSUED, &body("user:1", &json!({}))).await;
    let error = reply.json().text("/error/message").to_owned();
    assert_eq!(violations(reply), ["actor_id"; 3]);
    for policy in ["few", "all", "secret"] {
        assert!(error.contains(&format!("issuance policy {policy}:")), "{policy}: {error}");
    }
    let reply = talos.admin.post(ISSUED, &body("user:1", &public)).await;
    assert_eq!(violations(reply), ["actor_id"; 2]);

    let requests: Vec<Value> = (0..3)
        .map(|number| {
            let mut request = body("user:2", &public);
            request["raw_key"] = format!("of-a-batch-{number}").into();
            request
        })
        .collect();
    let path = format!("{IMPORTED}:batchCreate");
    let batch = talos.admin.post(&path, &json!({ "requests": requests })).await.expect(200).json();
    assert_eq!((&batch["success_count"], &batch["failure_count"]), (&json!(2), &json!(1)), "{batch:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_have_ended_make_room_and_a_rotation_needs_it_only_with_grace() {
    let talos = limited(2).start().await;
    let key = talos.issue(body("user:1", &json!({}))).await;
    assert_eq!(issue(&talos, "user:1", json!({ "ttl": "1s" })).await, 201);
    until("a key expires", async || (issue(&talos, "user:1", json!({})).await == 201).then_some(())).await;
    let expired =
        talos.admin.get(&format!("{ISSUED}?filter=status=KEY_STATUS_EXPIRED")).await.expect(200).json();
    let expired = expired.text("/issued_api_keys/0/key_id").to_owned();
    // Prolonging it would make it a third one.
    let prolong = Call::new("PATCH", &format!("{ISSUED}/{expired}?update_mask=ttl"));
    let prolong = prolong.json(&json!({ "ttl": "1h" }));
    assert_eq!(violations(talos.admin.send(Version::Http1, prolong.clone()).await), ["actor_id"]);
    let rotate = format!("{ISSUED}/{}:rotate", key.id);
    assert_eq!(violations(talos.admin.post(&rotate, &json!({ "grace_period": "1h" })).await), ["actor_id"]);
    let rotated = talos.admin.post(&rotate, &json!({})).await.expect(201).json();
    assert_eq!(issue(&talos, "user:1", json!({})).await, 400);
    let path = format!("{ISSUED}/{}:revoke", rotated.text("/issued_api_key/key_id"));
    talos.admin.post(&path, &json!({})).await.expect(204);
    talos.admin.send(Version::Http1, prolong).await.expect(200);
    assert_eq!(issue(&talos, "user:1", json!({})).await, 400);

    // Only the keys that the policy is for count.
    let public = json!({ "visibility": "KEY_VISIBILITY_PUBLIC" });
    assert_eq!(issue(&talos, "other", json!({})).await, 201);
    assert_eq!(issue(&talos, "other", public.clone()).await, 201);
    assert_eq!(issue(&talos, "other", public).await, 400);
    assert_eq!(issue(&talos, "other", json!({})).await, 201);
}
