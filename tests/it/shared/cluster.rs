//! A Redis cluster over TLS, of three primaries, each with a part of the entries.

use serde_json::json;

use crate::rig::check::Check;
use crate::rig::redis::Cluster;
use crate::rig::support::until;
use crate::rig::talos::{Setup, Talos};

const KEYS: usize = 30;

async fn reads(talos: &Talos) -> f64 {
    talos.metric("talos_store_key_reads_total").await
}

async fn connected(talos: &Talos) {
    until("connected", async || talos.process.log().contains("connected to Redis").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_and_announcements_get_through_a_cluster_and_its_loss_costs_time_only() {
    needs!(Redis);
    let mut cluster = Cluster::start_tls().await;
    // Polls are so rare that only an announcement can bring a change in time.
    let setup = cluster.used_by(Setup::new());
    let setup = setup.set("TALOS_CONSISTENCY_LEASE", "10m").set("TALOS_CONSISTENCY_POLL", "9m");
    let first = setup.start().await;
    let second = first.setup.start().await;
    connected(&first).await;
    connected(&second).await;
    let mut keys = vec![];
    for _ in 0..KEYS {
        let key = first.issue(json!({})).await;
        first.check(Check::bearer(&key.secret)).await.allowed();
        keys.push(key);
    }
    until("all entries are there", async || {
        (cluster.names("talos:*").await.iter().sum::<usize>() == KEYS).then_some(())
    })
    .await;
    let spread = cluster.names("talos:*").await;
    assert!(spread.iter().all(|count| *count > 0), "{spread:?}");
    let before = reads(&second).await;
    for key in &keys {
        second.check(Check::bearer(&key.secret)).await.allowed();
    }
    let misses = reads(&second).await - before;
    // One or the other may have taken longer than a Check waits.
    assert!(misses < KEYS as f64 / 2.0, "{misses} of {KEYS} rows were read again");

    first.revoke(&keys[0]).await;
    until("the other process refuses the key", async || {
        (!second.check(Check::bearer(&keys[0].secret)).await.passes()).then_some(())
    })
    .await;

    // A third of the slots is gone; then all.
    for _ in 0..3 {
        let mut node = cluster.nodes.pop().expect("a node");
        node.kill();
        for talos in [&first, &second] {
            talos.check(Check::bearer(&keys[0].secret)).await.denied(401);
            talos.check(Check::bearer(&keys[1].secret)).await.allowed();
            let key = talos.issue(json!({})).await;
            talos.check(Check::bearer(&key.secret)).await.allowed();
            talos.revoke(&key).await;
            talos.check(Check::bearer(&key.secret)).await.denied(401);
        }
    }
}
