//! One of three instances can't reach the database, and Redis works: the others relay the mutation
//! log to it.

use std::time::{Duration, Instant};

use redis::AsyncCommands;
use serde_json::json;

use super::LEASE;
use crate::rig::check::Check;
use crate::rig::database::{self, Server};
use crate::rig::grpc::Grpc;
use crate::rig::proxy::{Fault, Proxy};
use crate::rig::redis::{Cluster, Redis};
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{Key, Setup, Talos, VERIFY};

/// `consistency.relay`, scaled down.
const RELAY: Duration = Duration::from_secs(2);
/// The bound in relayed mode.
const BOUND: Duration = Duration::from_secs(3);

const QUESTIONS: &str = "talos:v1:{relay}:question:*";
const ANSWER: &str = "talos:v1:{relay}:answer";

struct Fleet {
    cut_off: Talos,
    /// Instances that reach the database.
    others: Vec<Talos>,
    proxy: Proxy,
    grpc: Grpc,
}

impl Fleet {
    /// `setup` says where Redis is.
    async fn start(setup: Setup, set: &[(&str, &str)]) -> Fleet {
        let dsn = database::server().unwrap_or(Server::Postgres).new_database();
        let (proxy, proxied) = database::behind_proxy(&dsn).await;
        let setup = setup
            .set("TALOS_CONSISTENCY_LEASE", "1s")
            .set("TALOS_CONSISTENCY_POLL", "200ms")
            .set("TALOS_CONSISTENCY_RELAY", "2s")
            .set("TALOS_CONSISTENCY_GRACE", "0s");
        let setup = set.iter().fold(setup, |setup, (name, value)| setup.set(name, value));
        let mut others = Vec::new();
        for _ in 0..2 {
            others.push(setup.clone().set("TALOS_DB_DSN", &dsn).start().await);
        }
        let cut_off = setup.set("TALOS_DB_DSN", &proxied).start().await;
        let grpc = cut_off.grpc().await;
        Fleet { cut_off, others, proxy, grpc }
    }

    async fn known_key(&self) -> Key {
        let key = self.others[0].issue(json!({})).await;
        assert_eq!(self.check(&key).await, 200);
        key
    }

    /// 200, 401 or 503.
    async fn check(&self, key: &Key) -> i32 {
        let verdict = self.grpc.check(&Check::bearer(&key.secret).build()).await;
        [200, 401, 503].into_iter().find(|status| verdict.is(*status)).must(&format!("{verdict:?}"))
    }

    async fn mode(&self) -> String {
        self.cut_off.metrics.get("/status").await.expect(200).json().text("/mode").to_owned()
    }

    async fn until_mode(&self, mode: &str) {
        until(&format!("it is {mode}"), async || (self.mode().await == mode).then_some(())).await;
    }

    async fn is_cut_off(&self) {
        self.proxy.set(Fault::BlackHole);
        self.until_mode("relayed").await;
    }
}

async fn names(redis: &Redis, pattern: &str) -> Vec<String> {
    redis.connection().await.keys(pattern).await.must("KEYS")
}

/// Asserts that a key which another instance revoked is refused within the bound, and that others
/// are never refused.
async fn revocations_get_through(fleet: &Fleet) {
    let good = fleet.known_key().await;
    let mut keys = Vec::new();
    for _ in 0..6 {
        keys.push(fleet.known_key().await);
    }
    fleet.is_cut_off().await;
    let mut slowest = Duration::ZERO;
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(fleet.check(key).await, 200);
        fleet.others[n % 2].revoke(key).await;
        let revoked = Instant::now();
        slowest = until("the key is refused", async || {
            let asked = Instant::now();
            let status = fleet.check(key).await;
            assert!(
                status != 200 || asked < revoked + BOUND,
                "allowed {:?} after the revocation",
                asked - revoked
            );
            assert_eq!(fleet.check(&good).await, 200, "nobody revoked it");
            (status != 200).then(|| slowest.max(asked - revoked))
        })
        .await;
        // The relay says that the key has changed, and not how: no database can be asked.
        assert_eq!(fleet.check(key).await, 503);
        fleet.until_mode("relayed").await;
    }
    println!("refused {slowest:?} after the revocation, at most");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_cut_off_gets_revocations_through_the_relay() {
    needs!(Redis, Postgres);
    let redis = Redis::start().await;
    let fleet = Fleet::start(redis.used_by(Setup::new()), &[("TALOS_CACHE_TTL", "1s")]).await;
    let ttl = Instant::now();
    revocations_get_through(&fleet).await;

    // Known keys pass, also long after they were to be read again; unknown ones are an outage of
    // ours.
    let known = fleet.others[0].issue(json!({})).await;
    assert_eq!(fleet.check(&known).await, 503);
    let imported = Check::api_key("legacy-unknown").build();
    assert!(fleet.grpc.check(&imported).await.is(503), "never remembered as bad");
    assert!(ttl.elapsed() > Duration::from_secs(1));

    // The status reports the wider bound.
    let status = fleet.cut_off.metrics.get("/status").await.expect(200).json();
    assert_eq!(status.at("/bound_seconds"), 3.0);
    assert_eq!(status.at("/exposure/key_seconds"), 3.0);
    assert!(status.at("/relay/age_seconds").as_f64().must("an age") < 3.0, "{status:#}");
    assert!(status.texts("/problems")[0].contains("another instance relays"), "{status:#}");
    let page = fleet.cut_off.metrics.get("/metrics").await.expect(200).text();
    for line in [
        "talos_mode{mode=\"relayed\"} 1",
        "talos_mode{mode=\"fresh\"} 0",
        "talos_consistency_bound_seconds 3.0",
    ] {
        assert!(page.contains(line), "{page}");
    }
    assert!(fleet.others[0].metric("talos_relay_answers_total").await > 0.0);
    assert_eq!(fleet.cut_off.metric("talos_relay_answers_total").await, 0.0);

    // Everything that the relay leaves in Redis goes by itself.
    let mut connection = redis.connection().await;
    let left = [names(&redis, QUESTIONS).await, vec![ANSWER.to_owned()]].concat();
    assert!(left.len() > 1, "{left:?}");
    for name in &left {
        let ttl: i64 = connection.pttl(name).await.must("PTTL");
        assert!(ttl == -2 || (1..=3_000).contains(&ttl), "{name} lives for {ttl} ms");
    }

    fleet.proxy.set(Fault::Pass);
    fleet.until_mode("fresh").await;
    until("the new key is known", async || (fleet.check(&known).await == 200).then_some(())).await;
    until("nothing of it is left", async || {
        names(&redis, "talos:v1:{relay}:*").await.is_empty().then_some(())
    })
    .await;
}

/// The relay's names share one hash tag, so that they lie on one node.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_relays_as_well() {
    needs!(Redis, Postgres);
    let cluster = Cluster::start_tls().await;
    let fleet = Fleet::start(cluster.used_by(Setup::new()), &[]).await;
    revocations_get_through(&fleet).await;
    let spread = cluster.names("talos:v1:{relay}:*").await;
    assert_eq!(spread.iter().filter(|count| **count > 0).count(), 1, "{spread:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_known_to_redis_is_known() {
    needs!(Redis, Postgres);
    let redis = Redis::start().await;
    let fleet = Fleet::start(redis.used_by(Setup::new()), &[]).await;
    let key = fleet.others[0].issue(json!({})).await;
    fleet.others[0].check(Check::bearer(&key.secret)).await.allowed();
    redis.until_entries(1).await;
    fleet.is_cut_off().await;
    assert_eq!(fleet.check(&key).await, 200);
    // The number of a relayed change counts for `talos-min-epoch`, too.
    let other = fleet.others[1].import("legacy-0123456789", json!({})).await;
    let epoch = fleet.others[1].metric("talos_epoch").await;
    until("the change is relayed", async || {
        (fleet.cut_off.metric("talos_epoch").await >= epoch.max(1.0)).then_some(())
    })
    .await;
    let call = crate::rig::http::Call::post(VERIFY).json(&json!({ "credential": key.secret }));
    let reply =
        fleet.cut_off.admin.send(crate::rig::http::Version::Http1, call.header("talos-min-epoch", "1")).await;
    assert_eq!(reply.expect(200).json()["is_valid"], true);
    assert_eq!(fleet.check(&other).await, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_relay_or_without_redis_it_is_static() {
    needs!(Redis, Postgres);
    let grace = ("TALOS_CONSISTENCY_GRACE", "60s");
    let redis = Redis::start().await;
    let fleet = Fleet::start(redis.used_by(Setup::new()), &[("TALOS_CONSISTENCY_RELAY", "0s"), grace]).await;
    let key = fleet.known_key().await;
    fleet.proxy.set(Fault::BlackHole);
    fleet.until_mode("static").await;
    tokio::time::sleep(BOUND).await;
    assert_eq!(fleet.mode().await, "static");
    assert_eq!(names(&redis, "talos:v1:{relay}:*").await, Vec::<String>::new());
    assert_eq!(fleet.check(&key).await, 200);

    let mut redis = Redis::start().await;
    let fleet = Fleet::start(redis.used_by(Setup::new()), &[grace]).await;
    let key = fleet.known_key().await;
    fleet.is_cut_off().await;
    redis.kill();
    fleet.until_mode("static").await;
    assert_eq!(fleet.check(&key).await, 200);
    redis.start_again().await;
    fleet.until_mode("relayed").await;
    assert_eq!(fleet.check(&key).await, 200);
}

/// The content of Redis isn't trusted.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_forged_or_repeated_extend_nothing() {
    needs!(Redis, Postgres);
    let redis = Redis::start().await;
    let fleet = Fleet::start(redis.used_by(Setup::new()), &[]).await;
    let key = fleet.known_key().await;
    fleet.is_cut_off().await;
    let mut connection = redis.connection().await;
    let answer: Vec<u8> = until("an answer", async || {
        let answer: Option<Vec<u8>> = connection.clone().get(ANSWER).await.must("GET");
        answer
    })
    .await;
    // The others can't answer any more: from here on it is only what somebody puts there.
    let others: Vec<_> = fleet.others.iter().map(|other| &other.process).collect();
    others.iter().for_each(|process| process.signal(rustix::process::Signal::STOP));
    let stopped = Instant::now();
    let asked = names(&redis, QUESTIONS).await;
    let questions: Vec<Option<Vec<u8>>> = match asked.is_empty() {
        true => vec![],
        false => connection.mget(&asked).await.must("MGET"),
    };
    let mut longer = answer.clone();
    longer.splice(1..1, br#""x":1,"#.iter().copied());
    let mut turn = 0;
    until("it is closed", async || {
        let forged = match turn % 4 {
            0 => answer.clone(),
            1 => longer.clone(),
            2 => questions.iter().flatten().next().cloned().unwrap_or_default(),
            _ => b"nonsense".to_vec(),
        };
        turn += 1;
        let _: () = connection.set(ANSWER, forged).await.must("SET");
        let asked = Instant::now();
        let status = fleet.check(&key).await;
        assert!(status != 200 || asked < stopped + BOUND, "an old answer counts for too long");
        (fleet.mode().await == "closed").then_some(())
    })
    .await;
    assert!(turn > 4);
    assert_eq!(fleet.check(&key).await, 503);
    others.iter().for_each(|process| process.signal(rustix::process::Signal::CONT));
    fleet.until_mode("relayed").await;
    assert_eq!(fleet.check(&key).await, 200);
}

/// The log was trimmed or rewritten, so it doesn't continue what the cut-off instance knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_not_relayed() {
    needs!(Redis, Postgres);
    let redis = Redis::start().await;
    let fleet = Fleet::start(redis.used_by(Setup::new()), &[]).await;
    let key = fleet.known_key().await;
    for n in 0..3 {
        fleet.others[0].import(&format!("legacy-{n}"), json!({})).await;
    }
    until("it knows of the imports", async || {
        // The key that was issued took a number, too.
        (fleet.cut_off.metric("talos_epoch").await == 4.0).then_some(())
    })
    .await;
    fleet.is_cut_off().await;
    // Simulates a restore: the same numbers with another history.
    fleet.others[0]
        .setup
        .sql("UPDATE mutation_log SET tag = '000000000000000000000000000000ff' WHERE n >= 2");
    until("the others have begun anew", async || {
        let begun = async |other: &Talos| other.metric("talos_log_rewritten_total").await > 0.0;
        (begun(&fleet.others[0]).await && begun(&fleet.others[1]).await).then_some(())
    })
    .await;
    fleet.until_mode("closed").await;
    assert_eq!(fleet.check(&key).await, 503);
    fleet.others[0].check(Check::bearer(&key.secret)).await.allowed();
    fleet.proxy.set(Fault::Pass);
    until("it has begun anew, too", async || (fleet.check(&key).await == 200).then_some(())).await;
    assert!(fleet.cut_off.metric("talos_log_rewritten_total").await > 0.0);
}

/// Old secrets vouch for what is relayed as long as they are retired.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_rotated_one_instance_after_the_other() {
    needs!(Redis, Postgres);
    let new = "another-hmac-secret-for-the-tests-0123456789";
    let old = crate::rig::talos::HMAC_SECRET;
    let redis = Redis::start().await;
    let fleet = Fleet::start(redis.used_by(Setup::new()), &[("TALOS_SECRETS_HMAC_RETIRED", new)]).await;
    let key = fleet.known_key().await;
    // The other ones have the new one already.
    let mut fleet = fleet;
    let setup = fleet.others[0].setup.clone();
    fleet.others.clear();
    let rotated = setup.set("TALOS_SECRETS_HMAC_CURRENT", new).set("TALOS_SECRETS_HMAC_RETIRED", old);
    fleet.others = vec![rotated.start().await];
    fleet.is_cut_off().await;
    fleet.others[0].revoke(&key).await;
    let revoked = Instant::now();
    until("the key is refused", async || {
        let asked = Instant::now();
        let status = fleet.check(&key).await;
        assert!(
            status != 200 || asked < revoked + BOUND,
            "allowed {:?} after the revocation",
            asked - revoked
        );
        (status != 200).then_some(())
    })
    .await;
    fleet.until_mode("relayed").await;
    assert!(LEASE + RELAY == BOUND);
}
