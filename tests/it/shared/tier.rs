//! The shared cache: the lookups that it saves, and the checks of its entries, which aren't
//! trusted.

use redis::AsyncCommands;
use serde_json::json;

use crate::rig::check::Check;
use crate::rig::redis::{Redis, patient};
use crate::rig::support::{Must, until};
use crate::rig::talos::{ISSUED, Setup, Talos};

/// Starts two processes on one database and one Redis, which poll so seldom that only announcements
/// bring changes in time.
async fn two(redis: &Redis) -> (Talos, Talos) {
    let setup = patient(redis.used_by(Setup::new()))
        .set("TALOS_CONSISTENCY_LEASE", "10m")
        .set("TALOS_CONSISTENCY_POLL", "9m");
    let first = setup.start().await;
    let second = first.setup.start().await;
    (first, second)
}

async fn reads(talos: &Talos) -> f64 {
    talos.metric("talos_store_key_reads_total").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_one_process_read_is_in_redis_for_the_other() {
    needs!(Redis);
    let redis = Redis::start().await;
    let (first, second) = two(&redis).await;
    let key = first.issue(json!({ "scopes": ["read"], "metadata": { "a": [1, "ü"] } })).await;
    first.check(Check::bearer(&key.secret)).await.allowed();
    redis.until_entries(1).await;
    let before = reads(&second).await;
    let allowed = second.check(Check::bearer(&key.secret)).await.allowed();
    assert_eq!(allowed.header("x-talos-key-id").as_deref(), Some(key.id.as_str()));
    assert_eq!(second.verify(&key.secret).await, first.verify(&key.secret).await);
    assert_eq!(reads(&second).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_announced_and_its_entry_gone() {
    needs!(Redis);
    let redis = Redis::start().await;
    let (first, second) = two(&redis).await;
    let (revoked, updated) = (first.issue(json!({})).await, first.issue(json!({})).await);
    for key in [&revoked, &updated] {
        first.check(Check::bearer(&key.secret)).await.allowed();
        second.check(Check::bearer(&key.secret)).await.allowed();
    }
    redis.until_entries(2).await;
    first.revoke(&revoked).await;
    until("the other process refuses the key", async || {
        (!second.check(Check::bearer(&revoked.secret)).await.passes()).then_some(())
    })
    .await;
    first.patch(&format!("{ISSUED}/{}", updated.id), &json!({ "scopes": ["new"] })).await.expect(200);
    until("the other process knows the scope", async || {
        let ask = Check::bearer(&updated.secret).route("talos.scopes", "new");
        second.check(ask).await.passes().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_from_before_a_change_is_not_believed() {
    needs!(Redis);
    let redis = Redis::start().await;
    let (first, second) = two(&redis).await;
    let key = first.issue(json!({})).await;
    first.check(Check::bearer(&key.secret)).await.allowed();
    let entries = redis.until_entries(1).await;
    first.revoke(&key).await;
    // Somebody puts the old entry back: a slow writer, or a thief.
    let mut connection = redis.connection().await;
    let (name, value) = &entries[0];
    let put_back = async || {
        let _: () = connection.clone().set(name, value).await.must("SET");
    };
    put_back().await;
    first.check(Check::bearer(&key.secret)).await.denied(401);
    until("the other process has heard of the change", async || {
        put_back().await;
        (!second.check(Check::bearer(&key.secret)).await.passes()).then_some(())
    })
    .await;
    put_back().await;
    // Nor does a process that starts after it all.
    let third = first.setup.start().await;
    third.check(Check::bearer(&key.secret)).await.denied(401);
    drop(connection.del::<_, ()>(name).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_to_redis_can_make_no_key() {
    needs!(Redis);
    let redis = Redis::start().await;
    let (first, second) = two(&redis).await;
    let (mine, other) = (first.issue(json!({})).await, first.issue(json!({ "scopes": ["admin"] })).await);
    first.check(Check::bearer(&mine.secret)).await.allowed();
    first.check(Check::bearer(&other.secret)).await.allowed();
    let entries = redis.until_entries(2).await;
    let of = |id: &str| entries.iter().find(|(name, _)| name.contains(id)).must("an entry").clone();
    let (name, value) = of(&mine.id);
    let (_, foreign) = of(&other.id);
    let text = String::from_utf8_lossy(&value).into_owned();
    assert!(!text.contains(&mine.secret), "a secret is in Redis");
    let wider = {
        let mut wider = value.clone();
        let at = wider.windows(2).position(|pair| pair == b"[]").must("the empty list of scopes");
        wider.splice(at..at + 2, br#"[\"admin\"]"#.iter().copied());
        wider
    };
    let mut connection = redis.connection().await;
    for forged in [foreign, wider, b"".to_vec(), b"nonsense".to_vec(), vec![0; 300_000]] {
        let third = first.setup.start().await;
        let _: () = connection.set(&name, &forged).await.must("SET");
        third.check(Check::bearer(&mine.secret).route("talos.scopes", "admin")).await.denied(403);
        let allowed = third.check(Check::bearer(&mine.secret)).await.allowed();
        assert_eq!(allowed.header("x-talos-key-id").as_deref(), Some(mine.id.as_str()));
    }
    // A flood of announcements that nobody signed isn't even a reason to look.
    for _ in 0..100 {
        let _: () = connection.publish("talos:v1:changes", "nonsense").await.must("PUBLISH");
    }
    second.check(Check::bearer(&mine.secret)).await.allowed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_secret_leaves_entries_readable_or_unread_but_never_wrong() {
    needs!(Redis);
    let redis = Redis::start().await;
    let first = patient(redis.used_by(Setup::new())).start().await;
    let key = first.issue(json!({})).await;
    first.check(Check::bearer(&key.secret)).await.allowed();
    redis.until_entries(1).await;
    let new_secret = "another-hmac-secret-for-the-tests-0123456789";
    let rotated = first
        .setup
        .clone()
        .set("TALOS_SECRETS_HMAC_CURRENT", new_secret)
        .set("TALOS_SECRETS_HMAC_RETIRED", crate::rig::talos::HMAC_SECRET);
    let second = rotated.start().await;
    let before = reads(&second).await;
    second.check(Check::bearer(&key.secret)).await.allowed();
    assert_eq!(reads(&second).await, before, "the retired secret vouches for the entry");
    // Without the old secret neither the entry nor the key itself counts.
    let third = rotated.unset("TALOS_SECRETS_HMAC_RETIRED").start().await;
    third.check(Check::bearer(&key.secret)).await.denied(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_leave_nothing_in_redis() {
    needs!(Redis);
    let redis = Redis::start().await;
    let talos = redis.used_by(Setup::new()).start().await;
    for n in 0..50 {
        talos.check(Check::bearer(&format!("legacy-{n}"))).await.denied(401);
    }
    let key = talos.issue(json!({})).await;
    talos.check(Check::bearer(&key.secret)).await.allowed();
    let entries = redis.until_entries(1).await;
    let mut connection = redis.connection().await;
    let ttl: i64 = connection.pttl(&entries[0].0).await.must("PTTL");
    assert!((1..=300_000).contains(&ttl), "an entry lives for {ttl} ms");
}
