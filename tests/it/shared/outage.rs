//! Redis gone, frozen, flushed: a Check is answered all the same, and what comes back is not wrong.

use serde_json::json;

use crate::rig::check::Check;
use crate::rig::redis::Redis;
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{Setup, Talos};

async fn all_answer(talos: &Talos) {
    let (good, revoked) = (talos.issue(json!({})).await, talos.issue(json!({})).await);
    talos.check(Check::bearer(&good.secret)).await.allowed();
    talos.check(Check::bearer(&revoked.secret)).await.allowed();
    talos.revoke(&revoked).await;
    talos.check(Check::bearer(&revoked.secret)).await.denied(401);
    talos.check(Check::bearer("legacy-unknown")).await.denied(401);
}

/// Waits, asking about keys that aren't known yet, until the breaker is in one of these states.
async fn until_breaker(talos: &Talos, states: &[&str]) {
    until("the breaker changes", async || {
        let key = talos.issue(json!({})).await;
        talos.check(Check::bearer(&key.secret)).await.allowed();
        let status = talos.metrics.get("/status").await.expect(200).json();
        states.contains(&status.text("/breaker")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_comes_and_goes() {
    needs!(Redis);
    let mut redis = Redis::start().await;
    let talos = redis.used_by(Setup::new()).start().await;
    all_answer(&talos).await;
    redis.kill();
    all_answer(&talos).await;
    redis.start_again().await;
    let key = talos.issue(json!({})).await;
    until("entries are written again", async || {
        // Another key each time: what L1 knows needs no L2.
        let key = talos.issue(json!({})).await;
        talos.check(Check::bearer(&key.secret)).await.allowed();
        (!redis.entries().await.is_empty()).then_some(())
    })
    .await;
    talos.check(Check::bearer(&key.secret)).await.allowed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_needs_no_redis() {
    needs!(Redis);
    let mut redis = Redis::start().await;
    redis.kill();
    let talos = redis.used_by(Setup::new()).start().await;
    all_answer(&talos).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_holds_nobody_up() {
    needs!(Redis);
    let redis = Redis::start().await;
    let talos = redis.used_by(Setup::new()).start().await;
    all_answer(&talos).await;
    redis.freeze();
    // Each first Check of a key would ask Redis: within the miss budget all are answered, and
    // rightly.
    for _ in 0..20 {
        all_answer(&talos).await;
    }
    until_breaker(&talos, &["open", "half-open"]).await;
    redis.thaw();
    // The breaker closes after a probe, and the entries that Redis still has aren't wrong.
    until_breaker(&talos, &["closed"]).await;
    all_answer(&talos).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_redis_is_filled_again() {
    needs!(Redis);
    let redis = Redis::start().await;
    let first = redis.used_by(Setup::new()).start().await;
    let second = first.setup.start().await;
    let key = first.issue(json!({})).await;
    first.check(Check::bearer(&key.secret)).await.allowed();
    redis.until_entries(1).await;
    let mut connection = redis.connection().await;
    let _: () = redis::cmd("FLUSHALL").query_async(&mut connection).await.must("FLUSHALL");
    second.check(Check::bearer(&key.secret)).await.allowed();
    redis.until_entries(1).await;
}
