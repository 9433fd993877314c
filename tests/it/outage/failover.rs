//! The database goes, and another server comes in its place.

use std::time::Duration;

use super::Pair;
use crate::rig::proxy::Fault;
use crate::rig::support::until;

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_reset_are_made_again() {
    needs!(Postgres);
    let pair = Pair::start("", &[]).await;
    let known = pair.known_key().await;
    for _ in 0..5 {
        pair.proxy.set_open(Fault::Reset);
        pair.is_back().await;
        pair.is(&known, 200).await;
    }
}

/// The old server's machine is off, so its connections end without an error.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_lead_nowhere_are_given_up() {
    needs!(Postgres);
    let pair = Pair::start("max_conns=4", &[]).await;
    let known = pair.known_key().await;
    for _ in 0..2 {
        pair.proxy.set_open(Fault::BlackHole);
        pair.is(&known, 200).await;
        pair.is_back().await;
        pair.is(&known, 200).await;
        // No dead connection is left.
        for _ in 0..20 {
            pair.is_back().await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Old connections work, but no new one shows which server they lead to.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_new_connection_is_not_known_to_be_the_one_that_counts() {
    needs!(Postgres);
    let pair = Pair::start("", &[]).await;
    let known = pair.known_key().await;
    pair.proxy.set_new(Fault::Refuse);
    let status = async || pair.cut_off.metrics.get("/status").await.json();
    until("the lease has run out", async || (status().await["mode"] == "static").then_some(())).await;
    pair.is(&known, 200).await;
    assert_eq!(pair.cut_off.metric("talos_database_reconnects").await, 0.0);
    assert!(status().await["poll"]["reconnect_error"].is_string());
    pair.proxy.set(Fault::Pass);
    pair.is_back().await;
    until("it is fresh again", async || (status().await["mode"] == "fresh").then_some(())).await;
    until("a new connection was made", async || {
        (pair.cut_off.metric("talos_database_reconnects").await == 1.0).then_some(())
    })
    .await;
}
