//! The database goes and comes back as another one.

use std::time::Duration;

use super::Pair;
use crate::proxy::Fault;

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_reset_are_made_again() {
    let pair = Pair::start("", &[]).await;
    let known = pair.known_key().await;
    for _ in 0..5 {
        pair.proxy.for_open(Fault::Reset);
        pair.is_back().await;
        pair.is(&known, 200).await;
    }
}

/// The old server's machine is off: nobody says so.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_lead_nowhere_are_given_up() {
    let pair = Pair::start("max_conns=4", &[]).await;
    let known = pair.known_key().await;
    for _ in 0..2 {
        pair.proxy.for_open(Fault::BlackHole);
        pair.is(&known, 200).await;
        pair.is_back().await;
        pair.is(&known, 200).await;
        // And nothing of it is left.
        for _ in 0..20 {
            pair.is_back().await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
