//! The database is slow, or has no connection left for us.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Pair;
use crate::rig::check::Check;
use crate::rig::proxy::Fault;
use crate::rig::support::{Must, until};

/// Time that each statement takes.
const DELAY: Duration = Duration::from_millis(600);
/// A lease in which a poll of that kind can succeed.
const PATIENT: [(&str, &str); 2] = [("TALOS_CONSISTENCY_LEASE", "6s"), ("TALOS_CONSISTENCY_POLL", "500ms")];

#[tokio::test(flavor = "multi_thread")]
async fn hits_are_unaffected_and_misses_give_up_before_envoy_does() {
    needs!(Postgres);
    let pair = Pair::start("", &PATIENT).await;
    let (known, revoked) = (pair.known_key().await, pair.known_key().await);
    pair.proxy.set(Fault::Delay(DELAY));
    for _ in 0..20 {
        let unknown = pair.direct.issue(json!({})).await;
        let asked = Instant::now();
        pair.is(&known, 200).await;
        pair.is(&unknown, 503).await;
        assert!(asked.elapsed() < DELAY, "waited for the database: {:?}", asked.elapsed());
    }
    // One line a minute says why.
    let log = pair.cut_off.process.log();
    let lines = log.lines().filter(|line| line.contains("the database gave no answer within 150 ms"));
    assert_eq!(lines.count(), 1, "{log}");
    // Slow as it is, it is heard.
    pair.direct.revoke(&revoked).await;
    until("it knows of the revocation", async || (!pair.passes(&revoked).await).then_some(())).await;
    pair.is(&known, 200).await;
    pair.proxy.set(Fault::Pass);
    pair.is_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_exhausted_concerns_misses_alone() {
    needs!(Postgres);
    let pair = Pair::start("max_conns=2", &PATIENT).await;
    let (known, revoked) = (pair.known_key().await, pair.known_key().await);
    pair.proxy.set(Fault::Delay(DELAY));
    let mut misses = tokio::task::JoinSet::new();
    for n in 0..200 {
        let grpc = pair.grpc.clone();
        misses.spawn(async move { grpc.check(&Check::api_key(&format!("legacy-{n}")).build()).await });
    }
    while let Some(verdict) = misses.join_next().await {
        let verdict = verdict.must("a Check");
        assert!(verdict.is(503), "{verdict:?}");
        pair.is(&known, 200).await;
    }
    // Whoever floods us doesn't keep us from hearing of a revocation.
    pair.direct.revoke(&revoked).await;
    let mut n = 200;
    until("it knows of the revocation", async || {
        for _ in 0..10 {
            n += 1;
            let grpc = pair.grpc.clone();
            tokio::spawn(async move { grpc.check(&Check::api_key(&format!("legacy-{n}")).build()).await });
        }
        (!pair.passes(&revoked).await).then_some(())
    })
    .await;
    pair.is(&known, 200).await;
    pair.proxy.set(Fault::Pass);
    pair.is_back().await;
}
