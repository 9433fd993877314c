//! Keys of which only a hash is imported: they work from their first use on, and are like any
//! imported key after it.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512, Sha512_256};

use crate::rig::check::Check;
use crate::rig::database::number;
use crate::rig::http::{Call, Version};
use crate::rig::redis::Redis;
use crate::rig::support::{Json, Must, assert_no_null, until};
use crate::rig::talos::{IMPORTED, NETWORK, Setup, Talos};

const BATCH: &str = "/v2alpha1/admin/importedApiKeys:batchCreate";

fn sha256(raw_key: &str) -> String {
    hex::encode(Sha256::digest(raw_key))
}

fn body(hash: Value) -> Value {
    json!({ "hash": hash, "name": "legacy", "actor_id": "bob", "scopes": ["orders:read"] })
}

fn plain(raw_key: &str) -> Value {
    body(json!({ "algorithm": "sha256", "encoding": "hex", "value": sha256(raw_key) }))
}

async fn import(talos: &Talos, raw_key: &str) -> String {
    talos.admin.post(IMPORTED, &plain(raw_key)).await.expect(201).json().text("/key_id").to_owned()
}

async fn get(talos: &Talos, id: &str) -> Value {
    talos.admin.get(&format!("{IMPORTED}/{id}")).await.expect(200).json()
}

/// Waits until a key has the id of an imported key. A first use doesn't wait long for it.
async fn upgraded(talos: &Talos, id: &str, native: &str) {
    until("the key has its new id", async || {
        let reply = talos.admin.get(&format!("{IMPORTED}/{id}")).await;
        (reply.status == 200 && reply.json().text("/key_id") == native).then_some(())
    })
    .await;
}

/// Id of an imported key: SHA-512/256 over the network's text, a zero byte and the raw key.
fn native_id(raw_key: &str) -> String {
    hex::encode(Sha512_256::new().chain_update(NETWORK).chain_update([0]).chain_update(raw_key).finalize())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_is_verified_on_first_use_and_native_after_it() {
    let talos = Talos::start().await;
    let (digest256, digest512) = (Sha256::digest("k-256"), Sha512::digest("k-512"));
    for (raw_key, hash) in [
        ("k-256", json!({ "algorithm": "sha256", "encoding": "hex", "value": hex::encode(digest256) })),
        (
            "k-512",
            json!({ "algorithm": "sha512", "encoding": "base64", "value": STANDARD.encode(digest512) }),
        ),
        ("k-prefixed", json!({ "value": format!("sha256:{}", sha256("k-prefixed")) })),
        (
            "k-url",
            json!({ "algorithm": "SHA-512", "value": URL_SAFE_NO_PAD.encode(Sha512::digest("k-url")) }),
        ),
    ] {
        let imported = talos.admin.post(IMPORTED, &body(hash)).await.expect(201).json();
        assert_no_null(&imported);
        let pending = imported.text("/key_id");
        assert_eq!(imported.text("/status"), "KEY_STATUS_ACTIVE");
        let allowed = talos.check(Check::bearer(raw_key)).await.allowed();
        assert_eq!(allowed.header("x-talos-actor-id").as_deref(), Some("bob"), "{raw_key}");
        let native = native_id(raw_key);
        upgraded(&talos, pending, &native).await;
        let verdict = talos.verify(raw_key).await;
        assert_eq!((verdict.at("/is_valid"), verdict.text("/key_id")), (&json!(true), native.as_str()));
        // The row is the same, by both ids.
        let key = get(&talos, &native).await;
        assert_eq!((key.text("/key_id"), key.text("/replaces")), (native.as_str(), pending));
        assert_eq!(get(&talos, pending).await.text("/key_id"), native);
        for field in ["/name", "/actor_id", "/scopes", "/create_time", "/update_time"] {
            assert_eq!(key.at(field), imported.at(field), "{field}");
        }
        // The hash is no credential, in any form.
        for guess in [sha256(raw_key), pending.to_owned(), native.clone()] {
            assert_eq!(talos.verify(&guess).await["is_valid"], false);
        }
    }
    let listed = talos.admin.get(IMPORTED).await.expect(200).json();
    assert_eq!(listed.at("/imported_api_keys").as_array().must("a list").len(), 4);
}

/// The events of both ids name the other one.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_told_under_both_ids() {
    let talos = Talos::start().await;
    let (pending, native) = (import(&talos, "followed").await, native_id("followed"));
    until("it is used", async || talos.check(Check::bearer("followed")).await.passes().then_some(())).await;
    upgraded(&talos, &pending, &native).await;
    let events = talos.admin.get("/v2alpha1/admin/events").await.expect(200).json();
    let value = |at: usize, pointer: &str| events.at(&format!("/events/{at}{pointer}")).clone();
    for (at, subject) in [(1, &pending), (2, &native)] {
        assert_eq!(
            (value(at, "/type"), value(at, "/subject")),
            (json!("talos.key.upgraded"), json!(subject))
        );
        assert_eq!(value(at, "/data/operation"), "upgrade");
    }
    assert_eq!(value(1, "/data/replaced_by"), json!(native));
    let change = json!([{ "field": "key_id", "before": pending, "after": native }]);
    assert_eq!((value(2, "/data/actor_id"), value(2, "/data/changes")), (json!("bob"), change));

    talos.admin.send(Version::Http1, Call::new("DELETE", &format!("{IMPORTED}/{native}"))).await.expect(204);
    let events = talos.admin.get("/v2alpha1/admin/events").await.expect(200).text();
    assert!(!events.contains("bob"), "erased: {events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_by_the_first_id_hold_before_and_after_the_upgrade() {
    let talos = Talos::start().await;
    for is_used in [false, true] {
        let keys = ["suspended", "revoked", "changed", "deleted"].map(|what| format!("{what}-{is_used}"));
        let mut ids = vec![];
        for key in &keys {
            ids.push(import(&talos, key).await);
            if is_used {
                talos.check(Check::bearer(key)).await.allowed();
                upgraded(&talos, &ids[ids.len() - 1], &native_id(key)).await;
            }
        }
        let listed = talos.admin.get(&format!("{IMPORTED}?page_size=1000")).await.expect(200).text();
        assert_eq!(ids.iter().all(|id| listed.contains(&format!("\"key_id\":\"{id}\""))), !is_used);

        let suspend = |what: &str| format!("{IMPORTED}/{}:{what}", ids[0]);
        talos.admin.post(&suspend("suspend"), &json!({ "reason": "moving" })).await.expect(200);
        talos.check(Check::bearer(&keys[0])).await.denied(401);
        talos.admin.post(&suspend("resume"), &json!({})).await.expect(200);
        talos.check(Check::bearer(&keys[0])).await.allowed();

        let revoke = format!("{IMPORTED}/{}:revoke", ids[1]);
        talos.admin.post(&revoke, &json!({ "reason": "REVOCATION_REASON_SUPERSEDED" })).await.expect(204);
        talos.check(Check::bearer(&keys[1])).await.denied(401);
        let revoked = get(&talos, &ids[1]).await;
        assert_eq!(revoked.text("/revocation_reason"), "REVOCATION_REASON_SUPERSEDED");
        talos.admin.post(&revoke, &json!({})).await.expect(204);

        let path = format!("{IMPORTED}/{}", ids[2]);
        // Both the id of the path and that of the key may be sent back.
        let longer = json!({ "key_id": ids[2], "ttl": "1h", "scopes": ["orders:write"] });
        talos.patch(&path, &longer).await.expect(200);
        talos.check(Check::bearer(&keys[2]).route("talos.scopes", "orders:write")).await.allowed();

        let path = format!("{IMPORTED}/{}", ids[3]);
        talos.admin.send(Version::Http1, Call::new("DELETE", &path)).await.expect(204);
        talos.check(Check::bearer(&keys[3])).await.denied(401);
        talos.admin.get(&path).await.expect(404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_known_in_any_way_is_not_imported_again() {
    let talos = Talos::start().await;
    let raw = talos.import("known raw", json!({})).await;
    let message = talos.admin.post(IMPORTED, &plain("known raw")).await.expect_error(409, "API_KEY_EXISTS");
    assert!(message.contains(&raw.id), "{message}");

    let pending = import(&talos, "known by its hash").await;
    talos.admin.post(IMPORTED, &plain("known by its hash")).await.expect_error(409, "API_KEY_EXISTS");
    let as_raw = json!({ "raw_key": "known by its hash", "name": "n", "actor_id": "a" });
    let message = talos.admin.post(IMPORTED, &as_raw).await.expect_error(409, "API_KEY_EXISTS");
    assert!(message.contains(&pending), "{message}");
    talos.check(Check::bearer("known by its hash")).await.allowed();
    upgraded(&talos, &pending, &native_id("known by its hash")).await;
    let again = [
        plain("known by its hash"),
        as_raw,
        body(json!({ "value": format!(
        "sha512:{}", hex::encode(Sha512::digest("known by its hash")))})),
    ];
    for again in again {
        talos.admin.post(IMPORTED, &again).await.expect_error(409, "API_KEY_EXISTS");
    }
    assert_eq!(get(&talos, &pending).await.text("/actor_id"), "bob");

    let batch = [plain("new"), plain("new"), plain("known raw"), plain("other")];
    let reply = talos.admin.post(BATCH, &json!({ "requests": batch })).await.expect(200).json();
    assert_eq!((reply.at("/success_count"), reply.at("/failure_count")), (&json!(2), &json!(2)));
    let all_known = json!({ "requests": [plain("new")], "report_all": true });
    let reply = talos.admin.post(BATCH, &all_known).await.expect(200).json();
    assert!(reply.text("/results/0/error_code").ends_with("ALREADY_EXISTS"), "{reply:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_or_malformed_hashes_are_refused_with_the_reason() {
    let talos = Talos::start().await;
    let bcrypt = "$2b$12$abcdefghijklmnopqrstuuAsQ8m3nDgxM4X8rF7YkDnLQqN0vWn9q";
    for (hash, value) in [
        (json!({ "value": bcrypt }), "hash.value: is a slow, salted hash"),
        (json!({ "algorithm": "argon2id", "value": sha256("a") }), "hash.algorithm: is a slow"),
        (json!({ "algorithm": "md5", "value": sha256("a") }), "hash.algorithm: must be sha256 or sha512"),
        (json!({ "algorithm": "sha512", "value": sha256("a") }), "hash.value: must be a SHA-512 digest"),
        (json!({ "value": sha256("a") }), "hash.algorithm: is missing"),
        (json!({ "algorithm": "sha256", "encoding": "hex" }), "hash.value: must be a SHA-256 digest"),
        (json!({ "algorithm": "sha256", "salt": "x", "value": sha256("a") }), "salt"),
    ] {
        let message = talos.admin.post(IMPORTED, &body(hash)).await.expect_bad_request();
        assert!(message.contains(value), "{value}: {message}");
        assert!(!message.contains(&sha256("a")) && !message.contains("abcdefghij"), "{message}");
    }
    let mut both = plain("a");
    both["raw_key"] = json!("a");
    let message = talos.admin.post(IMPORTED, &both).await.expect_bad_request();
    assert!(message.starts_with("hash: stands beside raw_key"), "{message}");
}

/// An unknown credential is remembered as such; its import is known everywhere within the lease.
#[tokio::test(flavor = "multi_thread")]
async fn a_hash_counts_where_its_key_was_unknown_before() {
    needs!(Redis);
    let redis = Redis::start().await;
    let first = redis.used_by(Setup::new()).set("TALOS_CACHE_NEGATIVE_TTL", "10m").start().await;
    let second = first.setup.start().await;
    for raw_key in ["asked-before-the-first", "asked-before-the-second"] {
        for talos in [&first, &second] {
            talos.check(Check::bearer(raw_key)).await.denied(401);
        }
        import(&first, raw_key).await;
        let imported = Instant::now();
        first.check(Check::bearer(raw_key)).await.allowed();
        until("the other process knows the key", async || {
            second.check(Check::bearer(raw_key)).await.passes().then_some(())
        })
        .await;
        assert!(imported.elapsed() < Duration::from_secs(8), "{:?}", imported.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn first_uses_at_once_upgrade_once() {
    let first = Talos::start().await;
    let second = first.setup.start().await;
    for round in 0..5 {
        let raw_key = format!("raced {round}");
        let pending = import(&first, &raw_key).await;
        let uses = (0..16).map(|number| {
            let talos = if number % 2 == 0 { &first } else { &second };
            talos.check(Check::bearer(&raw_key))
        });
        for verdict in futures_util::future::join_all(uses).await {
            verdict.allowed();
        }
        let native = native_id(&raw_key);
        until("the row is native", async || {
            for talos in [&first, &second] {
                talos.check(Check::bearer(&raw_key)).await.allowed();
            }
            (get(&first, &pending).await.text("/key_id") == native).then_some(())
        })
        .await;
    }
    let keys = number(first.setup.dsn(), "SELECT count(*) FROM api_keys").await;
    assert_eq!(keys, 5);
    // Two entries of the log for each: one import, and one upgrade of both ids.
    let entries = number(first.setup.dsn(), "SELECT n FROM mutation_counter").await;
    assert_eq!(entries, 5 * 3);
}

/// Ids of imported hashes, like those of imported keys, don't depend on the HMAC secret.
#[tokio::test(flavor = "multi_thread")]
async fn another_secret_changes_nothing() {
    let talos = Talos::start().await;
    import(&talos, "used before").await;
    import(&talos, "used after").await;
    talos.check(Check::bearer("used before")).await.allowed();
    let setup = talos.setup.clone();
    talos.stop().await;
    let other = "another-hmac-secret-for-the-tests-only-987654321";
    let talos = setup.set("TALOS_SECRETS_HMAC_CURRENT", other).start().await;
    talos.check(Check::bearer("used before")).await.allowed();
    talos.check(Check::bearer("used after")).await.allowed();
    upgraded(&talos, &native_id("used after"), &native_id("used after")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_hashes_in_one_batch_and_unknown_credentials_beside_them() {
    let talos = Talos::start().await;
    let reads = async || talos.metric("talos_store_key_reads_total").await;
    let ask = async |round: &str| {
        let before = reads().await;
        for number in 0..50 {
            talos.check(Check::bearer(&format!("unknown {round} {number}"))).await.denied(401);
        }
        reads().await - before
    };
    let without = ask("before").await;
    let batch: Vec<Value> = (0..1_000).map(|number| plain(&format!("batch {number}"))).collect();
    let reply = talos.admin.post(BATCH, &json!({ "requests": batch })).await.expect(200).json();
    assert_eq!(reply.at("/success_count"), 1_000);
    assert_eq!(ask("after").await, without);
    for number in [0, 500, 999] {
        talos.check(Check::bearer(&format!("batch {number}"))).await.allowed();
    }
}
