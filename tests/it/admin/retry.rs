//! Requests that are repeated because their answer was lost: the same caller gets the same answer,
//! for a while, and nobody else does.

use rcgen::SanType;
use serde_json::{Value, json};

use crate::rig::authority::{Authority, forwarded, uri};
use crate::rig::check::Check;
use crate::rig::http::{Call, Reply, Version};
use crate::rig::support::{Json, unix_now, until};
use crate::rig::talos::{DERIVE, HMAC_SECRET, IMPORTED, ISSUED, SELF_REVOKE, Setup, Talos};

fn rotate_path(id: &str) -> String {
    format!("{ISSUED}/{id}:rotate")
}

/// Asserts a 409 that names the successor.
fn names_the_successor(reply: Reply, successor: &str) {
    let error = reply.expect(409).json();
    assert_eq!(error.text("/error/details/0/reason"), "FAILED_PRECONDITION");
    assert_eq!(error.text("/error/details/0/metadata/replaced_by"), successor);
    assert!(error.text("/error/message").contains(successor), "{error:#}");
}

/// Request that uses a secret: its path and its body.
type Use = fn(&str) -> (&'static str, Value);

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_rotation_gets_the_same_answer_until_the_key_is_used() {
    let talos = Talos::start().await;
    for grace in ["0s", "1h"] {
        let key = talos.issue(json!({ "scopes": ["read"] })).await;
        let path = rotate_path(&key.id);
        let request =
            json!({ "request_id": format!("rotate-{grace}"), "grace_period": grace, "name": "new" });
        let first = talos.admin.post(&path, &request).await.expect(201).json();
        for _ in 0..2 {
            assert_eq!(talos.admin.post(&path, &request).await.expect(201).json(), first);
        }
        let successor = first.text("/issued_api_key/key_id");
        // Another body is another request, and without an id it is none that can be repeated.
        let other = json!({ "request_id": format!("rotate-{grace}"), "grace_period": grace });
        talos.admin.post(&path, &other).await.expect_error(409, "CONFLICT");
        names_the_successor(talos.admin.post(&path, &json!({})).await, successor);

        talos.check(Check::bearer(first.text("/secret"))).await.allowed();
        names_the_successor(talos.admin.post(&path, &request).await, successor);
        talos.admin.post(&format!("{ISSUED}/{successor}:revoke"), &json!({})).await.expect(204);
        let error = talos.admin.post(&path, &json!({})).await.expect(409).json();
        assert!(error.text("/error/message").ends_with("issue a new key"), "{error:#}");
    }
    let listed = talos.admin.get(ISSUED).await.json();
    assert_eq!(listed.at("/issued_api_keys").as_array().map(Vec::len), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_issue_gets_the_secret_until_the_key_is_used() {
    let talos = Talos::start().await;
    let uses: [(&str, Use); 2] = [
        ("verify", |secret| ("/v2alpha1/admin/apiKeys:verify", json!({ "credential": secret }))),
        ("derive", |secret| (DERIVE, json!({ "credential": secret }))),
    ];
    for (name, usage) in uses {
        let request = json!({ "name": "n", "actor_id": "a", "request_id": name });
        let first = talos.admin.post(ISSUED, &request).await.expect(201).json();
        assert_eq!(talos.admin.post(ISSUED, &request).await.expect(201).json(), first);
        let (path, body) = usage(first.text("/secret"));
        talos.admin.post(path, &body).await.expect(200);
        let again = talos.admin.post(ISSUED, &request).await.expect(201).json();
        assert_eq!(again.get("secret"), None, "{name}: {again:#}");
        assert_eq!(again.text("/issued_api_key/key_id"), first.text("/issued_api_key/key_id"));
    }
    // Nor is the secret of a revoked key of use to anybody.
    let request = json!({ "name": "n", "actor_id": "a", "request_id": "revoked" });
    let first = talos.admin.post(ISSUED, &request).await.expect(201).json();
    let id = first.text("/issued_api_key/key_id");
    talos.admin.post(&format!("{ISSUED}/{id}:revoke"), &json!({})).await.expect(204);
    assert_eq!(talos.admin.post(ISSUED, &request).await.expect(201).json().get("secret"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_window_nobody_gets_it() {
    let talos = Setup::new().set("TALOS_IDEMPOTENCY_REVEAL_FOR", "1500ms").start().await;
    let key = talos.issue(json!({})).await;
    let (path, request) = (rotate_path(&key.id), json!({ "request_id": "r" }));
    let began = unix_now();
    let first = talos.admin.post(&path, &request).await.expect(201).json();
    let refused = until("the window is over", async || {
        let reply = talos.admin.post(&path, &request).await;
        (reply.status != 201).then_some(reply)
    })
    .await;
    assert!(unix_now() - began >= 1.5, "over too early");
    names_the_successor(refused, first.text("/issued_api_key/key_id"));

    let never = Setup::new().set("TALOS_IDEMPOTENCY_REVEAL_FOR", "0").start().await;
    let key = never.issue(json!({})).await;
    let path = rotate_path(&key.id);
    let first = never.admin.post(&path, &request).await.expect(201).json();
    names_the_successor(never.admin.post(&path, &request).await, first.text("/issued_api_key/key_id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_caller_never_gets_it() {
    let authority = Authority::new();
    let certificate = |name: &str| {
        let names: Vec<SanType> = vec![uri(name)];
        forwarded(&authority.client(names, 2100).0, &format!("URI={name}"))
    };
    let talos = Setup::new()
        .set("TALOS_SERVE_HTTP_AUTH_MODE", "xfcc")
        .set("TALOS_SERVE_HTTP_AUTH_XFCC_PEERS", "127.0.0.1")
        .set("TALOS_SERVE_HTTP_AUTH_ROLES_ADMIN", "spiffe://test/a,spiffe://test/b")
        .start()
        .await;
    let (alice, bob) = (certificate("spiffe://test/a"), certificate("spiffe://test/b"));
    let send = async |caller: &str, path: &str, body: &Value| {
        let call = Call::post(path).json(body).header("x-forwarded-client-cert", caller);
        talos.admin.send(Version::Http1, call).await
    };
    let request = json!({ "name": "n", "actor_id": "a", "request_id": "issue" });
    let issued = send(&alice, ISSUED, &request).await.expect(201).json();
    let id = issued.text("/issued_api_key/key_id");
    let to_bob = send(&bob, ISSUED, &request).await.expect(201).json();
    assert_eq!((to_bob.text("/issued_api_key/key_id"), to_bob.get("secret")), (id, None));
    assert_eq!(send(&alice, ISSUED, &request).await.expect(201).json(), issued);

    let (path, request) = (rotate_path(id), json!({ "request_id": "rotate" }));
    let rotated = send(&alice, &path, &request).await.expect(201).json();
    let successor = rotated.text("/issued_api_key/key_id");
    names_the_successor(send(&bob, &path, &request).await, successor);
    assert_eq!(send(&alice, &path, &request).await.expect(201).json(), rotated);
}

/// The answer to a retry comes from the database and the secrets, not from the process.
#[tokio::test(flavor = "multi_thread")]
async fn another_instance_gives_the_same_secret_under_newer_secrets() {
    let first = Setup::new().set("TALOS_LAST_USED_FLUSH_INTERVAL", "50ms").start().await;
    let setup = first.setup.clone();
    let second = setup
        .set("TALOS_SECRETS_HMAC_CURRENT", "another-secret-for-the-tests-only-0123456789")
        .set("TALOS_SECRETS_HMAC_RETIRED", HMAC_SECRET)
        .set("TALOS_CREDENTIALS_API_KEYS_PREFIX_CURRENT", "newer")
        .set("TALOS_CREDENTIALS_API_KEYS_PREFIX_RETIRED", "ory_ak")
        .start()
        .await;
    let key = first.issue(json!({})).await;
    let (path, request) = (rotate_path(&key.id), json!({ "request_id": "r" }));
    let rotated = first.admin.post(&path, &request).await.expect(201).json();
    assert_eq!(second.admin.post(&path, &request).await.expect(201).json(), rotated);
    first.check(Check::bearer(rotated.text("/secret"))).await.allowed();
    until("the other one knows of the use", async || {
        (second.admin.post(&path, &request).await.status == 409).then_some(())
    })
    .await;
}

/// A writer to the database can make no row that shows the secret of a key.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_row_shows_no_secret() {
    let talos = Talos::start().await;
    let victim = talos.issue(json!({})).await;
    let request = json!({ "name": "a key", "actor_id": "alice", "request_id": "r" });
    let own = talos.admin.post(ISSUED, &request).await.expect(201).json();
    let own = own.text("/issued_api_key/key_id");
    let columns = "request_id, request_fingerprint, request_seal";
    for statement in [
        format!("CREATE TABLE copied AS SELECT {columns} FROM api_keys WHERE key_id = '{own}'"),
        format!("UPDATE api_keys SET request_id = NULL WHERE key_id = '{own}'"),
        format!(
            "UPDATE api_keys SET request_id = (SELECT request_id FROM copied), \
             request_fingerprint = (SELECT request_fingerprint FROM copied), \
             request_seal = (SELECT request_seal FROM copied) WHERE key_id = '{}'",
            victim.id
        ),
    ] {
        talos.setup.sql(&statement);
    }
    let forged = talos.admin.post(ISSUED, &request).await.expect(201).json();
    assert_eq!((forged.text("/issued_api_key/key_id"), forged.get("secret")), (&*victim.id, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_change_may_be_repeated() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let path = format!("{ISSUED}/{}", key.id);

    let change = json!({ "name": "new", "scopes": ["read"] });
    let updated = talos.patch(&path, &change).await.expect(200);
    let epoch = updated.header("talos-epoch").map(str::to_owned);
    let again = talos.patch(&path, &change).await.expect(200);
    assert_eq!(again.header("talos-epoch").map(str::to_owned), epoch, "nothing was written");
    assert_eq!(again.json(), updated.json());

    let reason = json!({ "reason": "REVOCATION_REASON_KEY_COMPROMISE" });
    for reason in [&reason, &reason, &json!({})] {
        talos.admin.post(&format!("{path}:revoke"), reason).await.expect(204);
    }
    let revoked = talos.admin.get(&path).await.json();
    assert_eq!(revoked.text("/revocation_reason"), "REVOCATION_REASON_KEY_COMPROMISE", "the first counts");
    for _ in 0..2 {
        talos.public.post(SELF_REVOKE, &json!({ "credential": key.secret })).await.expect(200);
    }

    let import = json!({ "raw_key": "legacy", "name": "n", "actor_id": "a" });
    let imported = talos.admin.post(IMPORTED, &import).await.expect(201).json();
    talos.admin.post(IMPORTED, &import).await.expect_error(409, "API_KEY_EXISTS");
    let mut with_id = import.clone();
    (with_id["raw_key"], with_id["request_id"]) = ("legacy-2".into(), "i".into());
    let batch = json!({ "requests": [with_id] });
    let first = talos.admin.post(&format!("{IMPORTED}:batchCreate"), &batch).await.expect(200).json();
    assert_eq!(talos.admin.post(&format!("{IMPORTED}:batchCreate"), &batch).await.expect(200).json(), first);
    assert_eq!(
        talos.admin.post(IMPORTED, &with_id).await.expect(201).json(),
        first["results"][0]["imported_api_key"]
    );

    let delete = Call::new("DELETE", &format!("{IMPORTED}/{}", imported.text("/key_id")));
    talos.admin.send(Version::Http1, delete.clone()).await.expect(204);
    talos.admin.send(Version::Http1, delete).await.expect_error(404, "API_KEY_NOT_FOUND");
}
