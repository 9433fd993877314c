//! TLS to Redis: who isn't who they should be is told nothing, and the service goes on without it.

use serde_json::json;

use crate::ask::Ask;
use crate::authority::Authority;
use crate::redis::Redis;
use crate::support::until;
use crate::talos::{Setup, Talos};

const NAME: &str = "redis.talos.test";

async fn uses_redis(talos: &Talos) -> bool {
    talos.process.log().contains("connected to the shared cache")
}

async fn goes_on(talos: &Talos) {
    let key = talos.issue(json!({})).await;
    talos.check(Ask::bearer(&key.secret)).await.allowed();
    talos.revoke(&key).await;
    talos.check(Ask::bearer(&key.secret)).await.denied(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_certificate_is_trusted() {
    let authority = Authority::new();
    let redis = Redis::start_tls(authority.issue(NAME, 2100), &authority).await;
    let first = redis.used_over_tls(Setup::new(), &authority, NAME).start().await;
    until("connected", async || uses_redis(&first).await.then_some(())).await;
    let second = first.setup.start().await;
    until("connected", async || uses_redis(&second).await.then_some(())).await;
    let key = first.issue(json!({})).await;
    first.check(Ask::bearer(&key.secret)).await.allowed();
    until("the entry arrives", async || {
        // A process that knows nothing yet, as one that has read the row itself proves nothing.
        let third = first.setup.start().await;
        until("connected", async || uses_redis(&third).await.then_some(())).await;
        third.check(Ask::bearer(&key.secret)).await.allowed();
        (third.metric("talos_store_key_reads_total").await == 0.0).then_some(())
    })
    .await;
    goes_on(&second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_ones_are_told_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    let wrong_name = Redis::start_tls(authority.issue("other.talos.test", 2100), &authority).await;
    let wrong_authority = Redis::start_tls(other.issue(NAME, 2100), &other).await;
    let expired = Redis::start_tls(authority.issue(NAME, 2021), &authority).await;
    let plaintext = Redis::start().await;
    for (what, redis) in [
        ("wrong name", &wrong_name),
        ("wrong authority", &wrong_authority),
        ("expired", &expired),
        ("plaintext", &plaintext),
    ] {
        let talos = redis.used_over_tls(Setup::new(), &authority, NAME).start().await;
        goes_on(&talos).await;
        until("a second attempt to connect", async || {
            let told = talos.process.log();
            let refusals = told.matches("the shared cache can't be reached").count()
                + told.matches("the shared cache gives no answer").count();
            (refusals >= 2).then_some(())
        })
        .await;
        assert!(!uses_redis(&talos).await, "{what}: {}", talos.process.log());
        goes_on(&talos).await;
    }
    // The one that could understand plaintext heard of no command of ours.
    assert_eq!(plaintext.entries().await, []);
    let mut connection = plaintext.connection().await;
    let heard: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.unwrap();
    for command in ["cmdstat_get:", "cmdstat_set:", "cmdstat_publish", "cmdstat_subscribe", "cmdstat_auth"] {
        assert!(!heard.contains(command), "{heard}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_to_another_machine_stops_the_start() {
    let setup =
        Setup::new().set("TALOS_CACHE_TYPE", "redis").set("TALOS_CACHE_REDIS_ADDRS", "192.0.2.1:6379");
    let told = setup.clone().refused().await;
    assert!(told.contains("cache.redis.tls.enabled"), "{told}");
    let talos = setup.set("TALOS_CACHE_REDIS_TLS_ENABLED", "false").start().await;
    goes_on(&talos).await;
}
