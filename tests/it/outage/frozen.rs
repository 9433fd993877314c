//! A process that stood still for a while: it must not go on with what it knew before.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use tokio::task::JoinSet;

use super::{LEASE, Pair};
use crate::rig::check::Check;
use crate::rig::proxy::Fault;
use crate::rig::support::{Must, number_from, until};

/// Longest standstill, in seconds; 0 for somewhat more than the shortened lease.
/// `TALOS_TEST_STANDSTILL` says otherwise, and then the lease is the default's and shorter
/// standstills come before.
const STANDSTILL: usize = 0;
/// Polls that failed.
const POLL_FAILURES: &str = "talos_poll_failures_total";
/// `consistency.lease`, the default.
const DEFAULT_LEASE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_key_revoked_during_a_standstill_is_not_allowed_after_it() {
    needs!(Postgres);
    let seconds = number_from("TALOS_TEST_STANDSTILL", STANDSTILL) as u64;
    let (standstills, lease, set): (_, _, &[(&str, &str)]) = match seconds {
        0 => ([LEASE + Duration::from_millis(100); 3], LEASE, &[]),
        _ => (
            [2, 20, seconds].map(Duration::from_secs),
            DEFAULT_LEASE,
            &[("TALOS_CONSISTENCY_LEASE", "5s"), ("TALOS_CONSISTENCY_POLL", "1s")],
        ),
    };
    let pair = Pair::start("", set).await;
    for standstill in standstills {
        let (revoked, good) = (pair.known_key().await, pair.known_key().await);
        let unknown = pair.direct.issue(json!({})).await;
        let failures = pair.cut_off.metric(POLL_FAILURES).await;
        pair.cut_off.process.signal(Signal::STOP);
        pair.direct.revoke(&revoked).await;
        pair.direct.revoke(&unknown).await;
        let acknowledged = Instant::now();
        tokio::time::sleep(standstill).await;
        assert!(acknowledged.elapsed() >= standstill);
        // Checks are asked while the process stands still, and answered when it goes on.
        let mut checks = JoinSet::new();
        for n in 0..60 {
            let grpc = pair.grpc.clone();
            let key = if n % 2 == 0 { revoked.clone() } else { unknown.clone() };
            let asked = Instant::now();
            checks.spawn(async move { (asked, grpc.check(&Check::bearer(&key.secret).build()).await) });
        }
        tokio::task::yield_now().await;
        pair.cut_off.process.signal(Signal::CONT);
        while let Some(answer) = checks.join_next().await {
            let (asked, verdict) = answer.must("a Check");
            let may_pass = asked < acknowledged + lease;
            assert!(verdict.is(401) || verdict.is(503) || may_pass && verdict.passes(), "{verdict:?}");
        }
        until("it refuses the key", async || {
            let asked = Instant::now();
            let verdict = pair.grpc.check(&Check::bearer(&revoked.secret).build()).await;
            assert!(!verdict.passes() || asked < acknowledged + lease, "{verdict:?}");
            verdict.is(401).then_some(())
        })
        .await;
        until("it allows the other", async || pair.passes(&good).await.then_some(())).await;
        is_fresh_by_the_third_poll(&pair, failures).await;
    }
}

/// Fails if more than two polls failed since there were `before` failures: the third one
/// succeeded, and each that does makes the process fresh.
async fn is_fresh_by_the_third_poll(pair: &Pair, before: f64) {
    let failures = pair.cut_off.metric(POLL_FAILURES).await - before;
    assert!(failures <= 2.0, "{failures} polls failed: {}", pair.cut_off.process.log());
}

/// A machine was suspended: the network has forgotten its connections, without an error.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_revoked_during_a_suspend_with_dead_connections_is_not_allowed() {
    needs!(Postgres);
    // The grace is the default's: an outage that isn't one would allow the key for minutes.
    let pair = Pair::start("max_conns=8", &[]).await;
    let seconds = number_from("TALOS_TEST_STANDSTILL", STANDSTILL) as u64;
    let standstill = Duration::from_secs(seconds).max(LEASE * 3);
    for dead in [Fault::BlackHole, Fault::Reset] {
        let (revoked, good) = (pair.known_key().await, pair.known_key().await);
        let unknown = pair.direct.issue(json!({})).await;
        let failures = pair.cut_off.metric(POLL_FAILURES).await;
        pair.cut_off.process.signal(Signal::STOP);
        pair.proxy.set_open(dead);
        pair.direct.revoke(&revoked).await;
        pair.direct.revoke(&unknown).await;
        tokio::time::sleep(standstill).await;
        pair.cut_off.process.signal(Signal::CONT);
        let woken = Instant::now();
        // All the while that it takes to find out what is dead.
        while woken.elapsed() < LEASE * 4 {
            for key in [&revoked, &unknown] {
                let verdict = pair.grpc.check(&Check::bearer(&key.secret).build()).await;
                assert!(!verdict.passes(), "{dead:?}: {:?} after waking: {verdict:?}", woken.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        pair.is(&revoked, 401).await;
        pair.is(&good, 200).await;
        pair.is_back().await;
        is_fresh_by_the_third_poll(&pair, failures).await;
        let log = pair.cut_off.process.log();
        assert!(log.contains("the process was stopped"), "the lapse has a cause: {log}");
    }
}
