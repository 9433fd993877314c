//! `Talos-Epoch` on what changed, `Talos-Min-Epoch` on who asks.

use serde_json::{Value, json};

use crate::rig::http::{Call, Reply, Version};
use crate::rig::support::{Json, Must};
use crate::rig::talos::{DERIVE, IMPORTED, ISSUED, Talos, VERIFY};

const BATCH_VERIFY: &str = "/v2alpha1/admin/apiKeys:batchVerify";

#[track_caller]
fn epoch(reply: &Reply) -> u64 {
    reply.header("talos-epoch").must("Talos-Epoch").parse().must("a number")
}

async fn verify(talos: &Talos, credential: &str, min_epoch: &str) -> Reply {
    let body = json!({ "credential": credential });
    talos
        .admin
        .send(Version::Http1, Call::post(VERIFY).json(&body).header("talos-min-epoch", min_epoch))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_says_its_number_and_what_changes_nothing_says_none() {
    let talos = Talos::start().await;
    let admin = talos.admin;
    let import = |raw_key: &str| json!({ "raw_key": raw_key, "name": "n", "actor_id": "a" });
    // Issuing takes a number, too, but nobody needs to wait for it.
    let next = |number: u64, what: &str, reply: Reply| {
        assert_eq!(epoch(&reply), number, "{what}");
        reply
    };

    let issued = admin.post(ISSUED, &json!({ "name": "n", "actor_id": "a" })).await.expect(201);
    assert_eq!(issued.header("talos-epoch"), None, "nobody can have asked for it before");
    let issued = issued.json();
    let path = format!("{ISSUED}/{}", issued.text("/issued_api_key/key_id"));
    assert_eq!(admin.get(&path).await.expect(200).header("talos-epoch"), None);

    let imported = next(2, "import", admin.post(IMPORTED, &import("legacy-1")).await.expect(201)).json();
    let imported = format!("{IMPORTED}/{}", imported.text("/key_id"));
    let patch = |path: &str, body: Value| Call::new("PATCH", &format!("{path}?update_mask=name")).json(&body);
    for (number, path) in [(3, &path), (4, &imported)] {
        let updated = admin.send(Version::Http1, patch(path, json!({ "name": "m" }))).await;
        next(number, "update", updated.expect(200));
    }
    let rotated = admin.post(&format!("{path}:rotate"), &json!({})).await.expect(201);
    let rotated = next(5, "rotate", rotated).json();
    let successor = format!("{ISSUED}/{}", rotated.text("/issued_api_key/key_id"));
    next(6, "revoke", admin.post(&format!("{successor}:revoke"), &json!({})).await.expect(204));
    next(7, "delete", admin.send(Version::Http1, Call::new("DELETE", &imported)).await.expect(204));
    let own = talos.issue(json!({})).await;
    next(9, "self-revoke", talos.self_revoke(&own.secret).await.expect(200));

    let batch = json!({ "requests": [import("legacy-2"), import("legacy-3"), import("legacy-2")] });
    let batch = admin.post(&format!("{IMPORTED}:batchCreate"), &batch).await.expect(200);
    assert_eq!(epoch(&batch), 11, "the highest of a batch");

    // A repeated change returns the number of the first.
    let again = admin.post(&format!("{successor}:revoke"), &json!({})).await.expect(204);
    assert_eq!(epoch(&again), 6, "the number under which it was revoked");
    let refused = admin.post(IMPORTED, &import("legacy-3")).await.expect(409);
    assert_eq!(refused.header("talos-epoch"), None);
}

/// Whoever asks another process with that number gets no answer from before the import.
#[tokio::test(flavor = "multi_thread")]
async fn what_changes_nothing_of_an_imported_key_says_the_number_of_its_import() {
    let talos = Talos::start().await;
    let import = json!({ "raw_key": "legacy-1", "name": "n", "actor_id": "a", "request_id": "one" });
    let imported = talos.admin.post(IMPORTED, &import).await.expect(201);
    let number = epoch(&imported);
    talos.import("legacy-2", json!({})).await;
    let path = format!("{IMPORTED}/{}?update_mask=name", imported.json().text("/key_id"));
    let unchanged = Call::new("PATCH", &path).json(&json!({ "name": "n" }));
    assert_eq!(epoch(&talos.admin.send(Version::Http1, unchanged).await.expect(200)), number);
    let repeated = talos.admin.post(IMPORTED, &import).await.expect(201);
    assert!((number..=number + 1).contains(&epoch(&repeated)), "that of the import, or a later one");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_is_not_known_yet_is_503() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let token = talos.derive(&key, json!({})).await;
    let other = talos.import("legacy-1", json!({})).await;
    assert_eq!(other.secret, "legacy-1");
    for credential in [key.secret.as_str(), &token, "legacy-1"] {
        for known in ["0", "2"] {
            let verified = verify(&talos, credential, known).await.expect(200).json();
            assert_eq!(verified["is_valid"], true, "{known}: {verified:#}");
        }
        for unknown in ["3", "18446744073709551615"] {
            verify(&talos, credential, unknown).await.expect_error(503, "SERVICE_UNAVAILABLE");
        }
    }
    talos.revoke(&key).await;
    assert_eq!(verify(&talos, &key.secret, "3").await.expect(200).json()["is_valid"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_is_no_number_is_named() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let body = json!({ "credential": key.secret });
    let batch = json!({ "requests": [body.clone()] });
    for (path, body) in [(VERIFY, &body), (BATCH_VERIFY, &batch)] {
        for bad in ["", "-1", "+1", "1.0", "0x1", "one", "1, 2", "18446744073709551616"] {
            let call = Call::post(path).json(body).header("talos-min-epoch", bad);
            let message = talos.admin.send(Version::Http1, call).await.expect_bad_request();
            assert!(message.starts_with("Talos-Min-Epoch: "), "{bad:?}: {message}");
        }
        let twice = Call::post(path).json(body).header("talos-min-epoch", "0").header("talos-min-epoch", "0");
        talos.admin.send(Version::Http1, twice).await.expect_bad_request();
        let high = Call::post(path).json(body).header("talos-min-epoch", "2");
        talos.admin.send(Version::Http1, high).await.expect_error(503, "SERVICE_UNAVAILABLE");
    }
    // Only verifying reads talos-min-epoch.
    let call = Call::post(DERIVE).json(&body).header("talos-min-epoch", "one");
    talos.admin.send(Version::Http1, call).await.expect(200);
}
