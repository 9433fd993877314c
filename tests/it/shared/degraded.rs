//! Redis that answers and can't be used, under load: Checks get the right answers all along, the
//! cause is said once, and limits are back within seconds of the cure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinHandle;

use crate::rig::authority::Authority;
use crate::rig::check::Check;
use crate::rig::redis::{Cluster, Redis, Sentinel};
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{Key, Setup, Talos};

/// Time after the cure within which limits are enforced again.
const BACK_WITHIN: Duration = Duration::from_secs(5);

fn limited(setup: Setup) -> Setup {
    setup.set("TALOS_RATE_LIMIT_ENABLED", "true").set("TALOS_CACHE_REDIS_CHECK_TIMEOUT", "200ms")
}

/// Checks of a valid key and of a revoked one, without end, and what went wrong with them.
struct Load {
    wrong: Arc<AtomicU64>,
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Load {
    async fn start(talos: &Talos) -> Load {
        let (valid, revoked) = (talos.issue(json!({})).await, talos.issue(json!({})).await);
        talos.revoke(&revoked).await;
        let (wrong, done, stop) = (Arc::default(), Arc::default(), Arc::default());
        let grpc = talos.grpc().await;
        let (wrongs, dones, stopped): (Arc<AtomicU64>, Arc<AtomicU64>, Arc<AtomicBool>) =
            (Arc::clone(&wrong), Arc::clone(&done), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let allowed = grpc.check(&Check::bearer(&valid.secret).build()).await.is(200);
                let denied = grpc.check(&Check::bearer(&revoked.secret).build()).await.is(401);
                if !(allowed && denied) {
                    wrongs.fetch_add(1, Ordering::Relaxed);
                }
                dones.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        Load { wrong, done, stop, task }
    }

    async fn all_right(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.must("the load");
        let done = self.done.load(Ordering::Relaxed);
        assert!(done > 10, "only {done} Checks");
        assert_eq!(self.wrong.load(Ordering::Relaxed), 0, "of {done}");
    }
}

/// Returns true if the second use of a key that may be used once an hour is refused.
async fn enforces(talos: &Talos) -> bool {
    let policy = json!({ "rate_limit_policy": { "quota": "1", "window": "3600s" } });
    let key: Key = talos.issue(policy).await;
    talos.check(Check::bearer(&key.secret)).await;
    talos.check(Check::bearer(&key.secret)).await.is(429)
}

/// The number of uses that were not counted, as Redis gave no answer.
async fn uncounted(talos: &Talos) -> f64 {
    talos.metric("talos_rate_limiter_failures_total").await
}

async fn until_enforced(talos: &Talos) {
    until("limits are enforced", async || enforces(talos).await.then_some(())).await;
}

/// Waits until limits are enforced again, which must not take long.
async fn back_soon(talos: &Talos, cured: Instant) {
    until_enforced(talos).await;
    let took = cured.elapsed();
    assert!(took <= BACK_WITHIN, "{took:?}\n{}", talos.process.log());
}

/// Waits until a cause is known, and returns the client's status.
async fn degraded_by(talos: &Talos, cause: &str) -> serde_json::Value {
    until(cause, async || {
        let status = talos.metrics.get("/status").await.expect(200).json();
        let clients = status.at("/redis").as_array().must("clients").clone();
        clients.into_iter().find(|client| client["cause"] == cause)
    })
    .await
}

/// The number of lines of the log that name a cause for the limiter.
fn lines(talos: &Talos, cause: &str) -> usize {
    let wanted = [format!("cause=\"{cause}\""), "purpose=\"rate limits\"".to_owned()];
    let log = talos.process.log();
    log.lines().filter(|line| wanted.iter().all(|word| line.contains(word))).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_demoted_is_noticed_and_used_again_once_it_is_promoted() {
    needs!(Redis);
    let redis = Redis::start().await;
    let talos = redis.counts_for(redis.used_by(limited(Setup::new()))).start().await;
    until_enforced(&talos).await;
    let load = Load::start(&talos).await;
    redis.command(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let client = degraded_by(&talos, "replica").await;
    assert_eq!(client["usable"], false);
    assert!(client.text("/cure").contains("sentinel"), "{client}");
    until("the metric", async || {
        (talos.metric("talos_redis_degraded{client=\"rate limits\",cause=\"replica\"}").await == 1.0)
            .then_some(())
    })
    .await;
    until("several attempts to connect", async || {
        let failures = "talos_redis_connection_failures_total{client=\"rate limits\"}";
        (talos.metric(failures).await >= 3.0).then_some(())
    })
    .await;
    redis.command(&["REPLICAOF", "NO", "ONE"]).await;
    back_soon(&talos, Instant::now()).await;
    load.all_right().await;
    assert_eq!(lines(&talos, "replica"), 1, "{}", talos.process.log());
    let status = talos.metrics.get("/status").await.expect(200).json();
    assert!(status.at("/redis/1").get("cause").is_none(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_by_a_sentinel_is_followed() {
    needs!(Redis);
    let (mut old, new) = (Redis::start().await, Redis::start().await);
    new.command(&["REPLICAOF", "127.0.0.1", &old.port.to_string()]).await;
    let sentinel = Sentinel::start(&old).await;
    until("the Sentinel knows the replica", async || sentinel.knows_a_replica().await.then_some(())).await;
    let setup = limited(Setup::new())
        .set("TALOS_RATE_LIMIT_BACKEND", "redis")
        .set("TALOS_CACHE_REDIS_ADDRS", &format!("127.0.0.1:{}", sentinel.port));
    // Without the name of the primary, the address is no server that stores something.
    let lost = setup.start().await;
    let client = degraded_by(&lost, "sentinel_address").await;
    assert!(client.text("/cure").contains("cache.redis.sentinel.master"), "{client}");
    drop(lost);
    let talos = setup.set("TALOS_CACHE_REDIS_SENTINEL_MASTER", "talos-primary").start().await;
    until_enforced(&talos).await;
    let load = Load::start(&talos).await;
    old.kill();
    until("the Sentinel names the new primary", async || {
        (sentinel.primary().await == Some(new.port)).then_some(())
    })
    .await;
    back_soon(&talos, Instant::now()).await;
    load.all_right().await;
    let status = talos.metrics.get("/status").await.expect(200).json();
    assert_eq!(status.text("/redis/0/server"), format!("127.0.0.1:{}", new.port));
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_are_taken_away_are_named_and_used_again_once_they_are_given_back() {
    needs!(Redis);
    let redis = Redis::start().await;
    let user = ["ACL", "SETUSER", "talos", "on", ">a-password", "~talos:v1:limit:*"];
    let needed = ["+eval", "+get", "+set", "+time"];
    redis.command(&[&user[..], &needed[..]].concat()).await;
    let setup = redis.counts_for(limited(Setup::new()));
    let setup =
        setup.set("TALOS_CACHE_REDIS_USERNAME", "talos").set("TALOS_CACHE_REDIS_PASSWORD", "a-password");
    let talos = setup.start().await;
    until_enforced(&talos).await;
    let load = Load::start(&talos).await;
    for taken in ["-eval", "-time"] {
        redis.command(&["ACL", "SETUSER", "talos", taken]).await;
        // Somebody must use a limited key, as nothing else runs the script.
        enforces(&talos).await;
        degraded_by(&talos, "rights").await;
        redis.command(&["ACL", "SETUSER", "talos", &taken.replace('-', "+")]).await;
        back_soon(&talos, Instant::now()).await;
    }
    load.all_right().await;
    assert_eq!(lines(&talos, "rights"), 2, "{}", talos.process.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_flushed_costs_nobody_an_answer() {
    needs!(Redis);
    let redis = Redis::start().await;
    let talos = redis.counts_for(redis.used_by(limited(Setup::new()))).start().await;
    until_enforced(&talos).await;
    let load = Load::start(&talos).await;
    for _ in 0..10 {
        redis.command(&["FLUSHALL"]).await;
        back_soon(&talos, Instant::now()).await;
    }
    load.all_right().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_renewed_is_read_again() {
    needs!(Redis);
    const NAME: &str = "redis.talos.test";
    let (before, after) = (Authority::new(), Authority::new());
    let mut redis = Redis::start_tls(before.issue(NAME, 2100), &before).await;
    let talos = redis.counts_for(redis.used_over_tls(limited(Setup::new()), &before, NAME)).start().await;
    until_enforced(&talos).await;
    let load = Load::start(&talos).await;
    redis.kill();
    redis.start_again_with(after.issue(NAME, 2100), &after).await;
    degraded_by(&talos, "tls").await;
    std::fs::write(talos.setup.path("redis-ca.pem"), after.pem()).must("writing the authority");
    back_soon(&talos, Instant::now()).await;
    load.all_right().await;
    assert_eq!(lines(&talos, "tls"), 1, "{}", talos.process.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_of_a_cluster_stands_for_all_of_it() {
    needs!(Redis);
    let cluster = Cluster::start_tls().await;
    let setup = limited(cluster.used_by(Setup::new())).set("TALOS_RATE_LIMIT_BACKEND", "redis");
    let one = format!("127.0.0.1:{}", cluster.nodes[0].port);
    let talos = setup.set("TALOS_CACHE_REDIS_ADDRS", &one).start().await;
    until_enforced(&talos).await;
    for _ in 0..20 {
        assert!(enforces(&talos).await, "{}", talos.process.log());
    }
    let status = talos.metrics.get("/status").await.expect(200).json();
    assert_eq!(status.text("/redis/0/server"), format!("cluster of {one}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_resharded_goes_on_counting() {
    needs!(Redis);
    const COUNTS: &str = "talos:v1:limit:*";
    let cluster = Cluster::start_tls().await;
    let setup = limited(cluster.used_by(Setup::new())).set("TALOS_RATE_LIMIT_BACKEND", "redis");
    let talos = setup.start().await;
    until_enforced(&talos).await;
    let load = Load::start(&talos).await;
    let policy = json!({ "rate_limit_policy": { "quota": "1", "window": "3600s" } });
    let mut used: Vec<Key> = vec![];
    for _ in 0..20 {
        let key = talos.issue(policy.clone()).await;
        until("its use is counted", async || {
            talos.check(Check::bearer(&key.secret)).await.is(429).then_some(())
        })
        .await;
        used.push(key);
    }
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        assert!(cluster.reshard(from, to, COUNTS).await > 0);
        back_soon(&talos, Instant::now()).await;
        // The counts moved with their slots: only a use that Redis didn't answer passes.
        for key in &used {
            let uncounted = uncounted(&talos).await;
            let verdict = talos.check(Check::bearer(&key.secret)).await;
            let is_uncounted = self::uncounted(&talos).await > uncounted;
            assert!(verdict.is(429) || is_uncounted, "{verdict:?}\n{}", talos.process.log());
        }
    }
    load.all_right().await;
}
