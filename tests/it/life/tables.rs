//! Single tables that are emptied, or restored without the others, under running processes.

use serde_json::json;

use crate::rig::check::Check;
use crate::rig::support::until;
use crate::rig::talos::{ISSUED, Key, Setup, Talos};

async fn passes(talos: &Talos, key: &Key) -> bool {
    talos.check(Check::bearer(&key.secret)).await.passes()
}

/// The log is continued: keys are right, and changes go on to get everywhere.
async fn goes_on_after(damage: &str) {
    let setup = Setup::new().set("TALOS_CONSISTENCY_LEASE", "1s").set("TALOS_CONSISTENCY_POLL", "200ms");
    let (one, other) = (setup.start().await, setup.start().await);
    let (kept, revoked) = (one.issue(json!({})).await, one.issue(json!({})).await);
    for _ in 0..3 {
        one.issue(json!({})).await;
    }
    one.revoke(&revoked).await;
    for talos in [&one, &other] {
        until("both are known", async || {
            (passes(talos, &kept).await && !passes(talos, &revoked).await).then_some(())
        })
        .await;
    }
    setup.sql(damage);
    // The second of them may find the log continued already.
    until("somebody begins a new history, and both are fresh", async || {
        let mut rewritten = 0.0;
        for talos in [&one, &other] {
            rewritten += talos.metric("talos_log_rewritten_total").await;
            let status = talos.metrics.get("/status").await.json();
            (status["mode"] == "fresh").then_some(())?;
        }
        (rewritten >= 1.0).then_some(())
    })
    .await;
    for talos in [&one, &other] {
        until("the key is allowed", async || passes(talos, &kept).await.then_some(())).await;
        assert!(!passes(talos, &revoked).await);
    }
    let third = setup.start().await;
    until("it is allowed there", async || passes(&third, &kept).await.then_some(())).await;
    let issued = third.issue(json!({})).await;
    until("a new one is known", async || passes(&other, &issued).await.then_some(())).await;
    third.revoke(&kept).await;
    for talos in [&one, &other, &third] {
        until("the revocation is known", async || (!passes(talos, &kept).await).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_emptied() {
    goes_on_after("DELETE FROM mutation_log").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_entries_of_the_log_are_lost() {
    goes_on_after("DELETE FROM mutation_log WHERE n > 4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_counter_is_older_than_the_log() {
    goes_on_after("UPDATE mutation_counter SET n = 2").await;
}

/// Nothing is made up in its place: a restore that is under way would fail for it.
#[tokio::test(flavor = "multi_thread")]
async fn the_counter_is_gone() {
    let setup = Setup::new();
    let talos = setup.start().await;
    let key = talos.issue(json!({})).await;
    until("it is allowed", async || passes(&talos, &key).await.then_some(())).await;
    setup.sql("CREATE TABLE backup_of_counter AS SELECT * FROM mutation_counter");
    setup.sql("DELETE FROM mutation_counter");
    until("it is named", async || {
        let status = talos.metrics.get("/status").await.json();
        let reason = status["poll"]["last_failure"].as_str().unwrap_or_default().to_owned();
        reason.contains("mutation_counter is empty").then_some(())
    })
    .await;
    let reply = talos.admin.post(ISSUED, &json!({ "name": "n", "actor_id": "a" })).await;
    assert_eq!(reply.status, 503);
    setup.sql("INSERT INTO mutation_counter SELECT * FROM backup_of_counter");
    until("it goes on", async || {
        let reply = talos.admin.post(ISSUED, &json!({ "name": "n", "actor_id": "a" })).await;
        (reply.status == 201).then_some(())
    })
    .await;
    until("it is allowed again", async || passes(&talos, &key).await.then_some(())).await;
}
