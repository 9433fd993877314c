//! Suspending and resuming keys and actors.

use serde_json::{Value, json};

use crate::rig::check::Check;
use crate::rig::http::{Call, Reply, Version};
use crate::rig::redis::{Redis, patient};
use crate::rig::support::{Json, until};
use crate::rig::talos::{DERIVE, IMPORTED, ISSUED, Key, Setup, Talos};

const ACTORS: &str = "/v2alpha1/admin/actors";

async fn post(talos: &Talos, path: &str, body: Value) -> Value {
    talos.admin.post(path, &body).await.expect(200).json()
}

async fn get(talos: &Talos, path: &str) -> Value {
    timeless(talos.admin.get(path).await.expect(200).json())
}

/// Removes the last use, which is written when it suits.
fn timeless(mut resource: Value) -> Value {
    if let Some(members) = resource.as_object_mut() {
        members.remove("last_used_time");
    }
    resource
}

async fn patch(talos: &Talos, path: &str, body: Value) -> Reply {
    talos.admin.send(Version::Http1, Call::new("PATCH", path).json(&body)).await
}

async fn passes(talos: &Talos, key: &Key) -> bool {
    talos.check(Check::bearer(&key.secret)).await.passes()
}

/// Asserts that a key is refused as a suspended one, by a Check and by verify.
async fn is_suspended(talos: &Talos, key: &Key) {
    let denied = talos.check(Check::bearer(&key.secret)).await.denied(401);
    assert_eq!(denied.fact("reason"), Some(json!("suspended")));
    let verified = talos.verify(&key.secret).await;
    assert_eq!((&verified["is_valid"], verified.text("/error_message")), (&json!(false), "suspended"));
    assert_eq!(verified.text("/error_code"), "VERIFICATION_ERROR_REVOKED");
    assert_eq!((verified.text("/status"), verified.text("/key_id")), ("KEY_STATUS_ACTIVE", &*key.id));
}

/// Returns the time that is `millis` milliseconds from now.
fn soon(millis: i64) -> String {
    let now = time::OffsetDateTime::now_utc() + time::Duration::milliseconds(millis);
    now.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_suspended_and_resumed_of_either_kind() {
    let talos = Talos::start().await;
    let issued = talos.issue(json!({})).await;
    let imported = talos.import("legacy-key-0123456789", json!({})).await;
    for (key, kind) in [(&issued, ISSUED), (&imported, IMPORTED)] {
        assert!(passes(&talos, key).await);
        let path = format!("{kind}/{}", key.id);
        let suspend = format!("{path}:suspend");
        let until = "2036-01-01T00:00:00Z";
        let reply =
            talos.admin.post(&suspend, &json!({ "reason": "unpaid", "until": until })).await.expect(200);
        let epoch = reply.header("talos-epoch").map(str::to_owned);
        let suspended = timeless(reply.json());
        assert_eq!(suspended.text("/status"), "KEY_STATUS_ACTIVE");
        assert_eq!(
            (suspended.text("/suspension/reason"), suspended.text("/suspension/until")),
            ("unpaid", until)
        );
        assert_eq!(suspended.at("/suspension").get("suspended_by"), None, "nobody proved who it was");
        is_suspended(&talos, key).await;
        assert_eq!(get(&talos, &path).await, suspended);
        // Once more changes nothing, another reason does.
        let again =
            talos.admin.post(&suspend, &json!({ "reason": "unpaid", "until": until })).await.expect(200);
        assert_eq!(
            (again.header("talos-epoch"), timeless(again.json())),
            (epoch.as_deref(), suspended.clone())
        );
        let other = post(&talos, &suspend, json!({ "reason": "theft" })).await;
        assert_eq!((other.text("/suspension/reason"), other.at("/suspension").get("until")), ("theft", None));
        // A resource that is sent back as it came is accepted.
        let renamed = patch(&talos, &path, other.clone()).await.expect(200).json();
        assert_eq!(renamed["suspension"], other["suspension"]);

        let resumed = post(&talos, &format!("{path}:resume"), json!({})).await;
        assert_eq!(resumed.get("suspension"), None);
        assert!(passes(&talos, key).await);
        post(&talos, &format!("{path}:resume"), json!({})).await;
        assert_eq!(talos.verify(&key.secret).await["is_valid"], true);
    }
    assert!(talos.metric("talos_checks_total{decision=\"deny\",reason=\"suspended\"}").await >= 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_ends_by_itself_on_a_cached_entry_too() {
    let talos = Setup::new().set("TALOS_CACHE_TTL", "1h").start().await;
    let (own, of_actor) = (talos.issue(json!({})).await, talos.issue(json!({ "actor_id": "late" })).await);
    let until_time = soon(3_000);
    post(&talos, &format!("{ISSUED}/{}:suspend", own.id), json!({ "until": until_time })).await;
    post(&talos, &format!("{ACTORS}/late:suspend"), json!({ "until": until_time })).await;
    for key in [&own, &of_actor] {
        is_suspended(&talos, key).await;
    }
    let reads = talos.metric("talos_store_key_reads_total").await;
    until("the suspensions end", async || {
        (passes(&talos, &own).await && passes(&talos, &of_actor).await).then_some(())
    })
    .await;
    assert_eq!(talos.metric("talos_store_key_reads_total").await, reads, "from memory");
    assert_eq!(get(&talos, &format!("{ISSUED}/{}", own.id)).await.get("suspension"), None);
    assert_eq!(get(&talos, &format!("{ACTORS}/late")).await.get("suspension"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_suspensions_are_refused() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let path = format!("{ISSUED}/{}:suspend", key.id);
    for (body, field) in [
        (json!({ "until": "2020-01-01T00:00:00Z" }), "until"),
        (json!({ "until": "2099-01-01T00:00:00Z" }), "until"),
        (json!({ "until": "monday" }), "until"),
        (json!({ "reason": "a\u{0}" }), "reason"),
        (json!({ "reason": "x".repeat(1_025) }), "reason"),
        (json!({ "cause": "x" }), "cause"),
    ] {
        for path in [path.clone(), format!("{ACTORS}/a:suspend")] {
            let problem = talos.admin.post(&path, &body).await.expect_bad_request();
            assert!(problem.starts_with(field), "{body}: {problem}");
        }
    }
    talos.revoke(&key).await;
    talos.admin.post(&path, &json!({})).await.expect_error(409, "FAILED_PRECONDITION");
    let nobody = format!("{ISSUED}/{}:suspend", uuid::Uuid::nil());
    talos.admin.post(&nobody, &json!({})).await.expect_error(404, "API_KEY_NOT_FOUND");
    talos.admin.post(&format!("{ACTORS}/%20a:suspend"), &json!({})).await.expect_bad_request();
    talos.admin.post(&format!("{ACTORS}/user:42"), &json!({})).await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_inherits_it_and_no_token_is_derived() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    post(&talos, &format!("{ISSUED}/{}:suspend", key.id), json!({ "reason": "unpaid" })).await;
    let derive = talos.admin.post(DERIVE, &json!({ "credential": key.secret })).await;
    assert!(derive.expect_error(401, "API_KEY_REVOKED").contains("suspended"));
    let rotated =
        talos.admin.post(&format!("{ISSUED}/{}:rotate", key.id), &json!({ "grace_period": "1h" })).await;
    let rotated = rotated.expect(201).json();
    assert_eq!(rotated.text("/issued_api_key/suspension/reason"), "unpaid");
    let resource = rotated.at("/issued_api_key").clone();
    let successor =
        Key { id: resource.text("/key_id").to_owned(), secret: rotated.text("/secret").to_owned(), resource };
    is_suspended(&talos, &key).await;
    is_suspended(&talos, &successor).await;
    post(&talos, &format!("{ISSUED}/{}:resume", successor.id), json!({})).await;
    assert!(passes(&talos, &successor).await);
    is_suspended(&talos, &key).await;
    // Whoever holds a suspended key may still end it.
    talos.self_revoke(&key.secret).await.expect(200);
    assert_eq!(talos.verify(&key.secret).await.text("/error_message"), "the credential has been revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_needs_no_row_and_has_a_name_and_metadata() {
    let talos = Talos::start().await;
    let path = format!("{ACTORS}/user:42");
    let nobody = json!({
        "actor_id": "user:42", "issued_api_key_count": 0, "imported_api_key_count": 0, "has_more": false
    });
    assert_eq!(get(&talos, &path).await, nobody);
    assert_eq!(post(&talos, &format!("{path}:resume"), json!({})).await, nobody);
    talos.issue(json!({ "actor_id": "user:42" })).await;
    talos.import("legacy-key-0123456789", json!({ "actor_id": "user:42" })).await;
    let body = json!({ "display_name": "Ada", "metadata": { "plan": "gold" } });
    let updated = patch(&talos, &path, body).await.expect(200).json();
    assert_eq!((updated.text("/display_name"), updated.text("/metadata/plan")), ("Ada", "gold"));
    assert_eq!(
        (&updated["issued_api_key_count"], &updated["imported_api_key_count"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(get(&talos, &path).await, updated);
    let masked = format!("{path}?update_mask=metadata");
    let cleared = patch(&talos, &masked, updated.clone()).await.expect(200).json();
    assert_eq!(cleared["metadata"], updated["metadata"]);
    let cleared = patch(&talos, &masked, json!({})).await.expect(200).json();
    assert_eq!((cleared.get("metadata"), cleared.text("/display_name")), (None, "Ada"));
    patch(&talos, &format!("{path}?update_mask=suspension"), json!({})).await.expect_bad_request();
    patch(&talos, &path, json!({ "display_name": "x".repeat(256) })).await.expect_bad_request();
    // An id may look like one with a verb.
    let odd = format!("{ACTORS}/a%3Asuspend");
    assert_eq!(
        patch(&talos, &odd, json!({ "display_name": "odd" })).await.expect(200).json()["actor_id"],
        "a:suspend"
    );
    assert_eq!(post(&talos, &format!("{ACTORS}/a:suspend:suspend"), json!({})).await["display_name"], "odd");
    assert_eq!(get(&talos, &format!("{ACTORS}/a")).await.get("suspension"), None);
}

/// Suspending an actor is one change, whatever the number of its keys, and reaches every instance
/// by polls alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_actor_is_suspended_with_all_its_keys_by_one_change() {
    let setup = Setup::new().set("TALOS_CONSISTENCY_POLL", "100ms").set("TALOS_CONSISTENCY_LEASE", "1s");
    let first = setup.set("TALOS_CACHE_TTL", "1h").start().await;
    let second = first.setup.start().await;
    let mut keys = vec![first.import("legacy-key-0123456789", json!({ "actor_id": "customer:7" })).await];
    for _ in 0..20 {
        keys.push(first.issue(json!({ "actor_id": "customer:7" })).await);
    }
    let other = first.issue(json!({ "actor_id": "customer:8" })).await;
    for key in keys.iter().chain([&other]) {
        assert!(passes(&first, key).await && passes(&second, key).await);
    }
    let path = format!("{ACTORS}/customer:7");
    let began = first.admin.post(&format!("{ISSUED}/{}:suspend", other.id), &json!({})).await;
    let began: u64 = began.header("talos-epoch").unwrap_or_default().parse().unwrap_or_default();
    post(&first, &format!("{ISSUED}/{}:resume", other.id), json!({})).await;
    let reply =
        first.admin.post(&format!("{path}:suspend"), &json!({ "reason": "unpaid" })).await.expect(200);
    let epoch: u64 = reply.header("talos-epoch").unwrap_or_default().parse().unwrap_or_default();
    assert_eq!(epoch, began + 2, "one entry of the log for {} keys", keys.len());
    for key in &keys {
        is_suspended(&first, key).await;
    }
    until("the other instance knows", async || (!passes(&second, &keys[1]).await).then_some(())).await;
    for key in &keys {
        is_suspended(&second, key).await;
    }
    assert!(passes(&first, &other).await && passes(&second, &other).await);
    let shown = get(&second, &format!("{ISSUED}/{}", keys[1].id)).await;
    assert_eq!(
        (shown.text("/actor_suspension/reason"), shown.text("/status")),
        ("unpaid", "KEY_STATUS_ACTIVE")
    );
    // A key that is issued now is suspended, too.
    let late = second.issue(json!({ "actor_id": "customer:7" })).await;
    is_suspended(&second, &late).await;
    is_suspended(&first, &late).await;
    // The key's own suspension outlasts that of the actor.
    post(&second, &format!("{ISSUED}/{}:suspend", late.id), json!({})).await;
    post(&second, &format!("{path}:resume"), json!({})).await;
    assert!(passes(&second, &keys[0]).await, "at once where it was made");
    until("the other instance knows", async || passes(&first, &keys[1]).await.then_some(())).await;
    for key in &keys {
        assert!(passes(&first, key).await && passes(&second, key).await);
    }
    is_suspended(&first, &late).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_in_redis_do_not_hide_it() {
    needs!(Redis);
    let redis = Redis::start().await;
    let setup = patient(redis.used_by(Setup::new()));
    let first = setup.set("TALOS_CONSISTENCY_LEASE", "10m").set("TALOS_CONSISTENCY_POLL", "9m").start().await;
    let second = first.setup.start().await;
    let key = first.issue(json!({ "actor_id": "customer:7" })).await;
    assert!(passes(&first, &key).await);
    redis.until_entries(1).await;
    assert!(passes(&second, &key).await);
    for (verb, is_allowed) in [("suspend", false), ("resume", true)] {
        post(&first, &format!("{ACTORS}/customer:7:{verb}"), json!({})).await;
        assert_eq!(passes(&first, &key).await, is_allowed);
        let what = format!("{verb} is announced");
        until(&what, async || (passes(&second, &key).await == is_allowed).then_some(())).await;
        // Whoever starts now, with the entry that is there.
        let third = first.setup.start().await;
        assert_eq!(passes(&third, &key).await, is_allowed);
    }
}

/// A key that is made for a suspended or limited actor is shown as `get` shows it.
#[tokio::test(flavor = "multi_thread")]
async fn new_keys_are_shown_with_the_state_of_their_actor() {
    let talos = Setup::new().set("TALOS_RATE_LIMIT_ENABLED", "false").start().await;
    let path = format!("{ACTORS}/busy");
    let limits = json!({ "rate_limit_policies": [{ "name": "day", "quota": "5", "window": "86400s" }] });
    patch(&talos, &path, limits).await.expect(200);
    post(&talos, &format!("{path}:suspend"), json!({ "reason": "unpaid" })).await;
    let new = json!({ "name": "a", "actor_id": "busy" });
    let issued = talos.admin.post(ISSUED, &new).await.expect(201);
    let mut made = vec![(ISSUED, issued.json().at("/issued_api_key").clone())];
    let import = |key: &str| json!({ "name": "a", "actor_id": "busy", "raw_key": key });
    made.push((IMPORTED, talos.admin.post(IMPORTED, &import("legacy-one")).await.expect(201).json()));
    let batch = json!({ "requests": [import("legacy-two")] });
    let batch = talos.admin.post(&format!("{IMPORTED}:batchCreate"), &batch).await.expect(200).json();
    made.push((IMPORTED, batch.at("/results/0/imported_api_key").clone()));
    for (collection, key) in made {
        assert_eq!(key.text("/actor_suspension/reason"), "unpaid", "{key:#}");
        assert_eq!(key.text("/actor_rate_limit_policies/0/name"), "day");
        assert!(key.text("/warnings/0").starts_with("rate_limit.enabled is false"), "{key:#}");
        let shown = get(&talos, &format!("{collection}/{}", key.text("/key_id"))).await;
        assert_eq!(shown, key);
    }
    assert!(issued.header("warning").is_some_and(|text| text.contains("rate_limit.enabled")), "{issued:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_actor_leaves_no_row() {
    let talos = Talos::start().await;
    let path = format!("{ACTORS}/gone");
    let body = json!({ "display_name": "Ada", "metadata": { "mail": "ada@example.com" } });
    patch(&talos, &path, body).await.expect(200);
    post(&talos, &format!("{path}:suspend"), json!({})).await;
    let key = talos.issue(json!({ "actor_id": "gone" })).await;
    is_suspended(&talos, &key).await;
    let delete = Call::new("DELETE", &format!("{path}?force=true"));
    let erased = talos.admin.send(Version::Http1, delete.clone()).await.expect(200).json();
    assert_eq!(erased["issued_api_key_count"], 1);
    let left = get(&talos, &path).await;
    assert_eq!((left.get("display_name"), left.get("metadata"), left.get("suspension")), (None, None, None));
    let anew = talos.issue(json!({ "actor_id": "gone" })).await;
    assert!(passes(&talos, &anew).await);
    talos.admin.send(Version::Http1, delete.clone()).await.expect(200);
    // An actor without keys can be erased, too.
    patch(&talos, &path, json!({ "display_name": "Ada" })).await.expect(200);
    talos.admin.send(Version::Http1, delete.clone()).await.expect(200);
    talos.admin.send(Version::Http1, delete).await.expect(404);
}

/// Some databases ignore spaces at the end of a text when they compare it with another.
#[tokio::test(flavor = "multi_thread")]
async fn an_actor_is_not_erased_by_its_id_with_a_space_at_the_end() {
    let talos = Talos::start().await;
    let path = format!("{ACTORS}/acme");
    let key = talos.issue(json!({ "actor_id": "acme" })).await;
    post(&talos, &format!("{path}:suspend"), json!({ "reason": "unpaid" })).await;
    is_suspended(&talos, &key).await;
    let suspended = get(&talos, &path).await;
    for query in ["", "?force=true"] {
        let delete = Call::new("DELETE", &format!("{path}%20{query}"));
        talos.admin.send(Version::Http1, delete).await.expect_error(404, "API_KEY_NOT_FOUND");
    }
    assert_eq!(get(&talos, &path).await, suspended);
    is_suspended(&talos, &key).await;
    // An instance whose caches are empty reads the row.
    let other = talos.setup.start().await;
    is_suspended(&other, &key).await;
}
