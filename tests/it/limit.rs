//! Rate limits: one process and several, through the real Envoy and a real Redis.

mod actors;
mod credits;
mod jumps;
mod policies;

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::edge::Edge;
use crate::rig::check::Check;
use crate::rig::http::{BOTH, Call, Version};
use crate::rig::redis::Redis;
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{IMPORTED, ISSUED, Key, Setup, Talos, VERIFY};

fn limited() -> Setup {
    Setup::new().set("TALOS_RATE_LIMIT_ENABLED", "true")
}

const BATCH_VERIFY: &str = "/v2alpha1/admin/apiKeys:batchVerify";

/// A key that may be used `quota` times an hour: what becomes free while a test runs is none.
async fn key(talos: &Talos, quota: u32) -> Key {
    talos.issue(policy(quota)).await
}

fn policy(quota: u32) -> Value {
    json!({ "rate_limit_policy": { "quota": quota.to_string(), "window": "3600s" } })
}

/// A policy in another unit is enforced by a gateway: setting one gives a warning.
#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_is_not_enforced_is_reported_by_response_and_log() {
    needs!(Envoy);
    let edge = Edge::with(limited(), &[]).await;
    let talos = &edge.talos;
    for unit in ["content-bytes", "concurrent-requests"] {
        let policy = json!({ "quota": "1", "window": "3600s", "unit": unit });
        let output =
            format!("299 talos \"rate_limit_policy.unit: {unit} is stored and reported, not enforced\"");
        let body = json!({ "name": "n", "actor_id": "a", "rate_limit_policy": policy });
        let issued = talos.admin.post(ISSUED, &body).await.expect(201);
        assert_eq!(issued.header("warning"), Some(output.as_str()));
        let issued = issued.json();
        assert_eq!(issued.at("/issued_api_key/rate_limit_policy"), &policy);
        let path = format!("{ISSUED}/{}", issued.text("/issued_api_key/key_id"));
        let change = Call::new("PATCH", &path).json(&json!({ "rate_limit_policy": policy }));
        let changed = talos.admin.send(Version::Http1, change).await.expect(200);
        assert_eq!(changed.header("warning"), Some(output.as_str()));
        let mut import = body.clone();
        import["raw_key"] = json!(format!("legacy-{unit}"));
        let batch = json!({ "requests": [import] });
        let imported = talos.admin.post(&format!("{IMPORTED}:batchCreate"), &batch).await.expect(200);
        assert_eq!(imported.header("warning"), Some(output.as_str()));
        let secret = issued.text("/secret");
        let verified = talos.admin.post(VERIFY, &json!({ "credential": secret })).await.expect(200);
        assert_eq!(verified.header("warning"), Some(output.as_str()));
        // This limit refuses nobody.
        for version in [Version::Http1, Version::Http2, Version::Http1] {
            let reply = edge.send(version, Call::get("/").bearer(secret)).await.expect(200);
            let announced = format!("\"default\";q=1;w=3600;qu=\"{unit}\"");
            assert_eq!(reply.header("ratelimit-policy"), Some(announced.as_str()));
            edge.seen();
        }
        let rotated = talos.admin.post(&format!("{path}:rotate"), &json!({})).await.expect(201);
        assert_eq!(rotated.header("warning"), Some(output.as_str()));
        let log = talos.process.log();
        let line = format!("a rate limit in this unit is stored and reported, not enforced unit=\"{unit}\"");
        assert_eq!(log.matches(&line).count(), 4, "{log}");
    }
    let enforced =
        json!({ "name": "n", "actor_id": "a", "rate_limit_policy": { "quota": "1", "window": "60s" } });
    assert_eq!(talos.admin.post(ISSUED, &enforced).await.expect(201).header("warning"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_of_envoy_learns_what_is_left_and_when_to_come_again() {
    needs!(Envoy);
    let edge = Edge::with(limited(), &[]).await;
    let key = key(&edge.talos, 3).await;
    for version in BOTH {
        // A key that may not do this spends nothing.
        let call = Call::get("/").bearer("ory_ak_v1_nonesuch");
        edge.refuses(version, call, 401).await;
    }
    for remaining in ["2", "1", "0"] {
        let reply = edge.send(Version::Http1, Call::get("/").bearer(&key.secret)).await.expect(200);
        assert_eq!(reply.header("ratelimit-policy"), Some("\"default\";q=3;w=3600"));
        assert_eq!(reply.header("ratelimit").must("RateLimit"), format!("\"default\";r={remaining}"));
        assert_eq!(reply.header("retry-after"), None);
        assert_eq!(edge.seen().header("ratelimit"), None, "it is the client's to know");
    }
    for version in BOTH {
        let reply = edge.refuses(version, Call::get("/").bearer(&key.secret), 429).await;
        assert!(reply.text().contains("TOO_MANY_REQUESTS"), "{}", reply.text());
        assert_eq!(reply.header("ratelimit-policy"), Some("\"default\";q=3;w=3600"));
        assert_eq!(reply.header("ratelimit"), Some("\"default\";r=0"));
        let seconds: u64 = reply.header("retry-after").must("Retry-After").parse().must("a number");
        assert!((1..=1_200).contains(&seconds), "{seconds}");
    }
    let other = edge.talos.issue(json!({})).await;
    let reply = edge.send(Version::Http2, Call::get("/").bearer(&other.secret)).await.expect(200);
    assert_eq!(reply.header("ratelimit-policy"), None, "without a policy there is no limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn uses_refused_for_another_reason_spend_nothing() {
    let talos = limited().start().await;
    let key = key(&talos, 2).await;
    for _ in 0..5 {
        talos.check(Check::bearer(&key.secret).route("talos.scopes", "nonesuch")).await.denied(403);
    }
    for _ in 0..2 {
        talos.check(Check::bearer(&key.secret)).await.allowed();
    }
    talos.check(Check::bearer(&key.secret)).await.denied(429);
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_says_it_as_well() {
    let talos = limited().start().await;
    let key = key(&talos, 2).await;
    let body = json!({ "credential": key.secret });
    for remaining in ["1", "0"] {
        let reply = talos.admin.post(VERIFY, &body).await.expect(200);
        assert_eq!(reply.header("ratelimit").must("RateLimit"), format!("\"default\";r={remaining}"));
        let answer = reply.json();
        assert_eq!(answer["is_valid"], true);
        assert_eq!(answer.text("/rate_limit_remaining"), remaining);
        assert!(answer.text("/rate_limit_reset_time").ends_with('Z'));
    }
    let reply = talos.admin.post(VERIFY, &body).await.expect(200);
    assert!(reply.header("retry-after").is_some());
    assert_eq!(reply.header("ratelimit-policy"), Some("\"default\";q=2;w=3600"));
    let answer = reply.json();
    assert_eq!(answer["is_valid"], false);
    assert_eq!(answer.text("/error_code"), "VERIFICATION_ERROR_RATE_LIMITED");
    let one = json!({ "credential": key.secret });
    let fresh = self::key(&talos, 1).await;
    let two = json!({ "credential": fresh.secret });
    let answer = talos.admin.post(BATCH_VERIFY, &json!({ "requests": [one, two] })).await.expect(200).json();
    assert_eq!(answer.text("/results/0/error_code"), "VERIFICATION_ERROR_RATE_LIMITED");
    assert_eq!(answer.at("/results/1/is_valid"), true);
    talos.check(Check::bearer(&fresh.secret)).await.denied(429);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_enforcement_the_policy_is_only_reported() {
    let talos = Setup::new().start().await;
    let key = key(&talos, 1).await;
    for _ in 0..3 {
        talos.check(Check::bearer(&key.secret)).await.allowed();
        let reply = talos.admin.post(VERIFY, &json!({ "credential": key.secret })).await.expect(200);
        assert_eq!(reply.header("ratelimit-policy"), Some("\"default\";q=1;w=3600"));
        assert_eq!(reply.header("ratelimit"), None);
        assert!(reply.json().get("rate_limit_remaining").is_none());
    }
}

/// A batch says the same as a single verification, once for all its keys.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_warns_once_of_limits_that_are_not_enforced() {
    let reported = |what: &str| format!("299 talos \"{what} stored and reported, not enforced\"");
    let idle = reported("rate_limit.enabled is false: the limits of this key are");
    let bytes = reported("rate_limit_policy.unit: content-bytes is");
    let talos = Setup::new().start().await;
    let policy = json!({ "quota": "1", "window": "3600s", "unit": "content-bytes" });
    let counted = [key(&talos, 1).await.secret, key(&talos, 1).await.secret];
    let other = talos.issue(json!({ "rate_limit_policy": policy })).await.secret;
    let free = talos.issue(json!({})).await.secret;
    let warnings = async |talos: &Talos, credentials: &[&str]| {
        let requests: Vec<Value> =
            credentials.iter().map(|credential| json!({ "credential": credential })).collect();
        let reply = talos.admin.post(BATCH_VERIFY, &json!({ "requests": requests })).await.expect(200);
        let all = reply.headers.get_all("warning").iter();
        all.map(|header| header.to_str().must("a warning").to_owned()).collect::<Vec<String>>()
    };
    assert_eq!(warnings(&talos, &[&*free, "nonsense"]).await, Vec::<String>::new());
    let all = [&*free, &*counted[0], "nonsense", &*counted[1], &*other];
    assert_eq!(warnings(&talos, &all).await, [idle, bytes.clone()]);
    let enforcing = talos.setup.clone().set("TALOS_RATE_LIMIT_ENABLED", "true").start().await;
    assert_eq!(warnings(&enforcing, &all).await, [bytes]);
}

/// Three processes that count together.
async fn three(redis: &Redis) -> [Talos; 3] {
    let setup = redis.counts_for(limited());
    let first = setup.start().await;
    let (second, third) = (first.setup.start().await, first.setup.start().await);
    [first, second, third]
}

/// Sends `count` Checks to all at once; returns the number that pass.
async fn burst(processes: &[Talos; 3], key: &Key, count: usize) -> usize {
    let checks = (0..count).map(|n| processes[n % 3].check(Check::bearer(&key.secret)));
    join_all(checks).await.into_iter().filter(|verdict| verdict.passes()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_on_one_redis_admit_together_what_the_policy_says() {
    needs!(Redis);
    let redis = Redis::start().await;
    let processes = three(&redis).await;
    // Uses that aren't counted while connections are made pass: the limiter's outage refuses
    // nobody.
    for talos in &processes {
        until("uses are counted", async || {
            let probe = key(&processes[0], 1).await;
            talos.check(Check::bearer(&probe.secret)).await;
            (!talos.check(Check::bearer(&probe.secret)).await.passes()).then_some(())
        })
        .await;
    }
    for quota in [1, 10, 60] {
        let key = key(&processes[0], quota).await;
        // Uses that Redis didn't count in time on a busy machine are in a metric, and not counted
        // against the limit.
        let before = failures(&processes).await;
        let admitted = burst(&processes, &key, 120).await;
        let uncounted = failures(&processes).await - before;
        assert!(admitted >= quota as usize, "{admitted} of {quota}");
        assert!(admitted <= quota as usize + uncounted, "{admitted} of {quota}, {uncounted} not counted");
    }
    let bucket = redis.times_to_live("talos:v1:limit:*").await;
    assert!(bucket.iter().all(|millis| (1..=3_600_000).contains(millis)), "{bucket:?}");
}

async fn failures(processes: &[Talos]) -> usize {
    let all = processes.iter().map(|talos| talos.metric("talos_rate_limiter_failures_total"));
    join_all(all).await.into_iter().map(|count| count as usize).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limiters_outage_refuses_nobody() {
    needs!(Redis);
    let mut redis = Redis::start().await;
    let processes = three(&redis).await;
    let key = key(&processes[0], 1).await;
    redis.freeze();
    assert_eq!(burst(&processes, &key, 30).await, 30, "frozen");
    redis.thaw();
    redis.kill();
    assert_eq!(burst(&processes, &key, 30).await, 30, "gone");
    redis.start_again().await;
    until("uses are counted again", async || (burst(&processes, &key, 3).await < 3).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_becomes_free_in_time() {
    let talos = limited().start().await;
    let window = json!({ "rate_limit_policy": { "quota": "2", "window": "2s" } });
    let key = talos.issue(window).await;
    until("the burst is used up", async || {
        (!talos.check(Check::bearer(&key.secret)).await.passes()).then_some(())
    })
    .await;
    let began = tokio::time::Instant::now();
    until("one more may be", async || talos.check(Check::bearer(&key.secret)).await.passes().then_some(()))
        .await;
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_window_counts_from_the_first_use_on() {
    needs!(Redis);
    let redis = Redis::start().await;
    let processes = three(&redis).await;
    let key = key(&processes[0], 1).await;
    let [first, ..] = &processes;
    until("the hour's use is counted", async || {
        (!first.check(Check::bearer(&key.secret)).await.passes()).then_some(())
    })
    .await;
    let shorter = json!({ "rate_limit_policy": { "quota": "1", "window": "1s" } });
    first.patch(&format!("{ISSUED}/{}", key.id), &shorter).await.expect(200);
    until("the next second's use", async || {
        first.check(Check::bearer(&key.secret)).await.passes().then_some(())
    })
    .await;
}
