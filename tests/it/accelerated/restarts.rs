//! Talos is killed, stopped and started again under load, with the module in Envoy: what ext_authz
//! would let pass passes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Pair, calls, with_socket};
use crate::rig::http::Version;
use crate::rig::random::Random;
use crate::rig::support::{Must, number_from, until};
use crate::rig::talos::Setup;

/// Ends of Talos, unless `TALOS_TEST_EDGE_RESTARTS` says otherwise.
const RESTARTS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn restarts_of_talos_fail_no_request_that_ext_authz_would_not_fail() {
    needs!(Envoy);
    let mut random = Random::seeded("restarts of Talos");
    let mut pair = Pair::start(Setup::new()).await;
    let key = pair.talos.issue(json!({})).await;
    let call = calls(&key, "/a")[1].clone();
    pair.warm(&call).await;
    let (failures, is_over) = (Mutex::new(vec![]), AtomicBool::new(false));
    let Pair { fast, talos, upstream, .. } = &mut pair;
    let edge = fast.edge;
    let load = async || {
        let mut sent = 0_usize;
        while !is_over.load(Ordering::SeqCst) {
            let status = edge.try_send(Version::Http1, call.clone()).await.map(|reply| reply.status);
            // Failures are fast: they would be most of all requests.
            let pause = if status == Ok(200) { 2 } else { 50 };
            if status != Ok(200) {
                failures.lock().must("the failures").push(status);
            }
            upstream.take();
            sent += 1;
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        sent
    };
    let restart = async {
        for _ in 0..number_from("TALOS_TEST_EDGE_RESTARTS", RESTARTS) {
            tokio::time::sleep(Duration::from_millis(random.between(100, 900) as u64)).await;
            talos.process.signal(if random.below(2) == 0 { Signal::KILL } else { Signal::TERM });
            talos.process.end().await;
            *talos = with_socket(&talos.setup).await;
            // The module is at work again before the next end.
            let before = fast.stat("dynamicmodulescustom.talos_hits").await;
            until("the module is at work", async || {
                (fast.stat("dynamicmodulescustom.talos_hits").await > before + 20).then_some(())
            })
            .await;
        }
        is_over.store(true, Ordering::SeqCst);
    };
    let ((), first, second, third) = tokio::join!(restart, load(), load(), load());
    let sent = first + second + third;
    let failures = failures.into_inner().must("the failures");
    println!("{sent} requests, {} failed", failures.len());
    // What the module caused would be a lost connection, or a refusal of the token in place of the
    // key. Every other request that failed was asked about, as without it.
    assert!(failures.iter().all(|status| *status == Ok(503)), "{failures:?}");
    let asked = |line: &Value| {
        line["why"].as_str().is_some_and(|why| matches!(why, "ext_authz_error" | "ext_authz_denied"))
    };
    until("the access log has all failures", async || {
        let log = pair.fast.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let failed: Vec<_> = lines.filter(|line| line["path"] == "/a" && line["status"] == 503).collect();
        let other = failed.iter().find(|line| !asked(line));
        assert!(other.is_none(), "it wasn't asked about: {other:?}");
        (failed.len() >= failures.len()).then_some(())
    })
    .await;
    assert!(sent > failures.len() + 100, "few requests have passed");
}
