//! Moving the end of a key, ending a grace period early, and what is recorded of who did it.

use serde_json::{Value, json};

use crate::rig::authority::{Authority, uri};
use crate::rig::check::Check;
use crate::rig::http::{Call, Reply, Version};
use crate::rig::support::{Json, unix_now, unix_seconds, until};
use crate::rig::talos::{ISSUED, Key, Setup, Talos};
use crate::rig::tls::{Client, NAME};

async fn patch(talos: &Talos, key: &Key, mask: &str, body: Value) -> Reply {
    let path = format!("{ISSUED}/{}?update_mask={mask}", key.id);
    talos.admin.send(Version::Http1, Call::new("PATCH", &path).json(&body)).await
}

async fn passes(talos: &Talos, key: &Key) -> bool {
    talos.check(Check::bearer(&key.secret)).await.passes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_prolonged_even_when_it_has_expired() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({ "ttl": "1s" })).await;
    assert!(passes(&talos, &key).await);
    until("the key expires", async || (!passes(&talos, &key).await).then_some(())).await;
    let list = |status: &str| format!("{ISSUED}?filter=status%20%3D%20KEY_STATUS_{status}");
    let count = async |status| {
        let page = talos.admin.get(&list(status)).await.expect(200).json();
        page["issued_api_keys"].as_array().map_or(0, Vec::len)
    };
    assert_eq!((count("ACTIVE").await, count("EXPIRED").await), (0, 1));
    let prolonged = patch(&talos, &key, "ttl", json!({ "ttl": "1h" })).await.expect(200).json();
    let left = unix_seconds(prolonged.text("/expire_time")) - unix_now();
    assert!((3_500.0..=3_601.0).contains(&left), "{left}");
    assert!(passes(&talos, &key).await);
    assert_eq!((count("ACTIVE").await, count("EXPIRED").await), (1, 0));
    let end = (time::OffsetDateTime::now_utc() + time::Duration::days(30)).date();
    let end = format!("{end}T00:00:00Z");
    let moved = patch(&talos, &key, "expire_time,name", json!({ "expire_time": end, "name": "b" })).await;
    let moved = moved.expect(200).json();
    assert_eq!((moved.text("/expire_time"), moved.text("/name")), (&*end, "b"));
    // A key that is sent back after it was read, and the mask for everything, leave the end alone.
    for (mask, created) in [("", json!("2026-01-01T00:00:00Z")), ("*", json!(null))] {
        let body = json!({ "expire_time": "2034-01-01T00:00:00Z", "name": "c", "create_time": created });
        assert_eq!(patch(&talos, &key, mask, body).await.expect(200).json().text("/expire_time"), end);
    }
    // Without a mask, what the body sets counts.
    let moved = patch(&talos, &key, "", json!({ "ttl": "2h" })).await.expect(200).json();
    let left = unix_seconds(moved.text("/expire_time")) - unix_now();
    assert!((7_100.0..=7_201.0).contains(&left), "{left}");
    let moved = patch(&talos, &key, "", json!({ "expire_time": end })).await.expect(200).json();
    assert_eq!(moved.text("/expire_time"), end);
    let both = json!({ "expire_time": end, "ttl": "2h" });
    patch(&talos, &key, "", both).await.expect_bad_request();
    talos.revoke(&key).await;
    let late = patch(&talos, &key, "ttl", json!({ "ttl": "2h" })).await;
    late.expect_error(409, "FAILED_PRECONDITION");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_issuing_hold() {
    let talos = Setup::new().set("TALOS_CREDENTIALS_API_KEYS_MAX_TTL", "24h").start().await;
    let key = talos.issue(json!({ "ttl": "1h" })).await;
    for (mask, body) in [
        ("ttl", json!({ "ttl": "25h" })),
        ("ttl", json!({ "ttl": "10ms" })),
        ("ttl", json!({})),
        ("ttl", json!({ "ttl": "0s" })),
        ("expire_time", json!({})),
        ("expire_time", json!({ "expire_time": "2020-01-01T00:00:00Z" })),
        ("expire_time", json!({ "expire_time": "2035-01-01T00:00:00Z" })),
        ("expire_time", json!({ "expire_time": "soon" })),
        ("expire_time,ttl", json!({ "ttl": "1h", "expire_time": "2035-01-01T00:00:00Z" })),
    ] {
        patch(&talos, &key, mask, body).await.expect_bad_request();
    }
    patch(&talos, &key, "ttl", json!({ "ttl": "23h" })).await.expect(200);
    let rotate = format!("{ISSUED}/{}:rotate", key.id);
    talos.admin.post(&rotate, &json!({ "ttl": "25h" })).await.expect_bad_request();
    let rotated = talos.admin.post(&rotate, &json!({ "ttl": "2h" })).await.expect(201).json();
    let left = unix_seconds(rotated.text("/issued_api_key/expire_time")) - unix_now();
    assert!((7_100.0..=7_201.0).contains(&left), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grace_period_ends_early() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let finish = format!("{ISSUED}/{}:finish", key.id);
    talos.admin.post(&finish, &json!({})).await.expect_error(409, "FAILED_PRECONDITION");
    let rotate = format!("{ISSUED}/{}:rotate", key.id);
    let rotated = talos.admin.post(&rotate, &json!({ "grace_period": "1h" })).await.expect(201).json();
    let (old, new) = (rotated.at("/old_issued_api_key"), rotated.at("/issued_api_key"));
    assert_eq!((old.text("/replaced_by"), new.text("/replaces")), (new.text("/key_id"), &*key.id));
    assert!(passes(&talos, &key).await);
    let finished = talos.admin.post(&finish, &json!({})).await.expect(200).json();
    assert_eq!(finished.text("/status"), "KEY_STATUS_REVOKED");
    assert_eq!(finished.text("/revocation_reason"), "REVOCATION_REASON_SUPERSEDED");
    assert!(unix_seconds(finished.text("/supersede_time")) < unix_now() + 60.0, "{finished}");
    assert!(!passes(&talos, &key).await);
    let again = talos.admin.post(&finish, &json!({})).await.expect(200).json();
    let got = talos.admin.get(&format!("{ISSUED}/{}", key.id)).await.expect(200).json();
    for member in ["status", "update_time", "supersede_time", "replaced_by"] {
        assert_eq!((&again[member], &got[member]), (&finished[member], &finished[member]), "{member}");
    }
}

/// A use from before the end may be recorded only later, when the operator was told of the end.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_a_late_use_can_put_off_is_made_final() {
    let talos = Talos::start().await;
    let (now, hour) = (unix_now() as i64 * 1_000_000, 3_600_000_000_i64);
    for latest in [now + 24 * hour, now - 1_000_000] {
        let key = talos.issue(json!({})).await;
        let path = format!("{ISSUED}/{}", key.id);
        talos.admin.post(&format!("{path}:rotate"), &json!({ "until_unused": "1h" })).await.expect(201);
        let update = |columns: &str, and: &str| {
            talos.setup.sql(&format!("UPDATE api_keys SET {columns} WHERE key_id = '{}'{and}", key.id));
        };
        update(&format!("superseded_at = {}, grace_limit_at = {latest}", now - 1_000_000), "");
        let before = talos.admin.get(&path).await.expect(200).json();
        assert_eq!(before.text("/status"), "KEY_STATUS_REVOKED");
        let finished = talos.admin.post(&format!("{path}:finish"), &json!({})).await.expect(200).json();
        assert_eq!(finished.text("/status"), "KEY_STATUS_REVOKED");
        assert_ne!(finished["update_time"], before["update_time"]);
        // As the use is recorded: only of keys that aren't revoked, and not beyond the latest end.
        let late = format!("superseded_at = {}", now + hour);
        update(&late, " AND revocation_reason IS NULL AND superseded_at < grace_limit_at");
        let after = talos.admin.get(&path).await.expect(200).json();
        assert_eq!(after.text("/status"), "KEY_STATUS_REVOKED", "{after}");
        assert!(!passes(&talos, &key).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_stays_as_long_as_it_is_used() {
    let talos = Setup::new().set("TALOS_LAST_USED_FLUSH_INTERVAL", "50ms").start().await;
    let key = talos.issue(json!({})).await;
    let path = format!("{ISSUED}/{}", key.id);
    let rotate = format!("{path}:rotate");
    for body in [json!({ "until_unused": "59m" }), json!({ "until_unused": "366d" })] {
        let problem = talos.admin.post(&rotate, &body).await.expect_bad_request();
        assert!(problem.starts_with("until_unused"), "{problem}");
    }
    let rotated = talos.admin.post(&rotate, &json!({ "until_unused": "24h" })).await.expect(201).json();
    let left = |key: &Value| unix_seconds(key.text("/supersede_time")) - unix_now();
    let old = rotated.at("/old_issued_api_key");
    assert!(
        (86_000.0..=86_401.0).contains(&left(old)) && old.text("/status") == "KEY_STATUS_ACTIVE",
        "{old}"
    );
    // Makes the rotation 23 hours old.
    let hour = 3_600_000_000_i64;
    talos.setup.sql(&format!(
        "UPDATE api_keys SET superseded_at = superseded_at - {} WHERE key_id = '{}'",
        23 * hour,
        key.id
    ));
    assert!(left(&talos.admin.get(&path).await.expect(200).json()) < 3_601.0);
    assert!(passes(&talos, &key).await);
    until("the use puts the end off", async || {
        (left(&talos.admin.get(&path).await.expect(200).json()) > 86_000.0).then_some(())
    })
    .await;
    // Not beyond the latest end,
    let now = unix_now() as i64 * 1_000_000;
    let late =
        format!("grace_limit_at = {}, superseded_at = {}, last_used_at = NULL", now + 2 * hour, now + hour);
    talos.setup.sql(&format!("UPDATE api_keys SET {late} WHERE key_id = '{}'", key.id));
    let other = talos.setup.start().await;
    until("the key is used there", async || passes(&other, &key).await.then_some(())).await;
    until("the use puts the end off once more", async || {
        let left = left(&talos.admin.get(&path).await.expect(200).json());
        assert!(left < 7_201.0, "{left}");
        (left > 7_000.0).then_some(())
    })
    .await;
    // and what has ended stays ended.
    talos.setup.sql(&format!(
        "UPDATE api_keys SET superseded_at = {} WHERE key_id = '{}'",
        now - hour,
        key.id
    ));
    let third = talos.setup.start().await;
    assert!(!passes(&third, &key).await);
    let ended = third.admin.get(&path).await.expect(200).json();
    assert_eq!(ended.text("/status"), "KEY_STATUS_REVOKED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_revocation_says_that_the_first_one_stays() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let revoke = format!("{ISSUED}/{}:revoke", key.id);
    let reason = |name: &str| json!({ "reason": format!("REVOCATION_REASON_{name}") });
    for (name, is_warned) in [("SUPERSEDED", false), ("SUPERSEDED", false), ("KEY_COMPROMISE", true)] {
        let reply = talos.admin.post(&revoke, &reason(name)).await.expect(204);
        let warning = reply.header("warning");
        assert_eq!(warning.is_some(), is_warned, "{name}: {warning:?}");
        assert!(warning.is_none_or(|text| text.contains("REVOCATION_REASON_SUPERSEDED")), "{warning:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_actors_tell_who_changed_them() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let setup = Setup::new()
        .tls("HTTP", &authority.issue(NAME, 2100))
        .client_ca("HTTP", &clients)
        .set("TALOS_SERVE_HTTP_AUTH_MODE", "mtls")
        .set("TALOS_SERVE_HTTP_AUTH_ROLES_ADMIN", "spiffe://test/ada,spiffe://test/bob");
    let is_ready = async |talos: &Talos| {
        let ready = talos.metrics.try_send(Version::Http1, Call::get("/health/ready")).await;
        ready.is_ok_and(|reply| reply.status == 200)
    };
    let talos = setup.start_until(is_ready).await;
    let client = |name| Client::showing(&authority, &clients.client(vec![uri(name)], 2100));
    let (ada, bob) = (client("spiffe://test/ada"), client("spiffe://test/bob"));
    let send = async |client: &Client, call: Call| client.send(talos.admin, Version::Http1, call).await;
    let new = json!({ "name": "n", "actor_id": "customer:7" });
    let issued = send(&ada, Call::post(ISSUED).json(&new)).await.expect(201).json();
    assert_eq!(issued.text("/issued_api_key/created_by"), "spiffe://test/ada");
    assert_eq!(issued["issued_api_key"].get("updated_by"), None);
    let path = format!("{ISSUED}/{}", issued.text("/issued_api_key/key_id"));
    let post = |verb: &str, body: Value| Call::post(&format!("{path}:{verb}")).json(&body);
    let suspended = send(&bob, post("suspend", json!({}))).await.expect(200).json();
    assert_eq!(suspended.text("/suspension/suspended_by"), "spiffe://test/bob");
    let names = ["/created_by", "/updated_by"].map(|name| suspended.text(name));
    assert_eq!(names, ["spiffe://test/ada", "spiffe://test/bob"]);
    let rotated = send(&bob, post("rotate", json!({}))).await.expect(201).json();
    assert_eq!(rotated.text("/issued_api_key/created_by"), "spiffe://test/bob");
    assert_eq!(rotated.text("/old_issued_api_key/revoked_by"), "spiffe://test/bob");
    let actor = "/v2alpha1/admin/actors/customer:7";
    let suspend = Call::post(&format!("{actor}:suspend")).json(&json!({ "reason": "unpaid" }));
    let suspended = send(&ada, suspend).await.expect(200).json();
    let names = ["/suspension/suspended_by", "/updated_by"].map(|name| suspended.text(name));
    assert_eq!(names, ["spiffe://test/ada"; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn verified_callers_are_recorded_and_others_are_not() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    talos.revoke(&key).await;
    let shown = talos.admin.get(&format!("{ISSUED}/{}", key.id)).await.expect(200).json();
    for name in ["created_by", "updated_by", "revoked_by", "replaces", "replaced_by", "suspension"] {
        assert_eq!(shown.get(name), None, "{name}: {shown}");
    }
}
