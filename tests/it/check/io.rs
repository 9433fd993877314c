//! The hot path reads nothing.

use serde_json::json;

use crate::rig::check::Check;
use crate::rig::grpc::Grpc;
use crate::rig::support::Must;
use crate::rig::talos::Talos;

const CHECKS: usize = 10_000;
const CONNECTIONS: usize = 2;
const AT_ONCE: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_checks_of_one_key_read_its_row_once_at_most() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let request = Check::bearer(&key.secret).build();
    let before = talos.metric("talos_store_key_reads_total").await;

    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let grpc: Grpc = talos.grpc().await;
        for _ in 0..AT_ONCE {
            let (grpc, request) = (grpc.clone(), request.clone());
            workers.spawn(async move {
                for _ in 0..CHECKS / CONNECTIONS / AT_ONCE {
                    grpc.check(&request).await.allowed();
                }
            });
        }
    }
    while let Some(done) = workers.join_next().await {
        done.must("a worker");
    }

    let reads = talos.metric("talos_store_key_reads_total").await - before;
    assert!(reads <= 1.0, "{reads} reads of key rows for {CHECKS} Checks of one key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_looks_issued_but_was_not_reads_nothing() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let before = talos.metric("talos_store_key_reads_total").await;
    let (all_but_four, _) = key.secret.split_at(key.secret.len() - 4);
    talos.check(Check::bearer(&format!("{all_but_four}2222"))).await.denied(401);
    assert_eq!(talos.metric("talos_store_key_reads_total").await, before);
    talos.check(Check::bearer(&key.secret)).await.allowed();
    // The counter counts: the test above would pass with one that stands still.
    assert!(talos.metric("talos_store_key_reads_total").await > before);
}
