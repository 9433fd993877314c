//! The mutation log is trimmed, and no instance misses a change by it.

use serde_json::json;

use crate::rig::check::Check;
use crate::rig::support::{Json, until};
use crate::rig::talos::{Setup, Talos};

/// Changes that are old when the processes start: more than one statement deletes.
const OLD: usize = 2_500;

#[tokio::test(flavor = "multi_thread")]
async fn old_entries_go_whoever_deletes_them_and_revocations_go_on_getting_everywhere() {
    let setup = Setup::new();
    let first = setup.start().await;
    for batch in (0..OLD).collect::<Vec<_>>().chunks(1_000) {
        let key =
            |number: &usize| json!({ "raw_key": format!("old-{number}"), "name": "n", "actor_id": "a" });
        let requests: Vec<_> = batch.iter().map(key).collect();
        let path = "/v2alpha1/admin/importedApiKeys:batchCreate";
        first.admin.post(path, &json!({ "requests": requests })).await.expect(200);
    }
    first.stop().await;
    setup.sql("UPDATE mutation_log SET at = 1000");

    let (one, other) = tokio::join!(setup.start(), setup.start());
    until("all but the newest are gone", async || {
        let trimmed =
            one.metric("talos_log_trimmed_total").await + other.metric("talos_log_trimmed_total").await;
        // The entry with which the log begins is one of them.
        assert!(trimmed <= OLD as f64, "{trimmed}");
        (trimmed == OLD as f64).then_some(())
    })
    .await;
    let key = one.issue(json!({})).await;
    assert!(other.check(Check::bearer(&key.secret)).await.passes());
    assert!(other.check(Check::bearer("old-7")).await.passes());
    one.revoke(&key).await;
    until("the other one knows", async || {
        (!other.check(Check::bearer(&key.secret)).await.passes()).then_some(())
    })
    .await;
    for talos in [&one, &other] {
        let status = talos.metrics.get("/status").await.expect(200).json();
        assert_eq!(status.text("/mode"), "fresh");
        assert_eq!(log_breaks(talos), 0, "{}", talos.process.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_away_while_the_log_was_trimmed_drops_its_cache() {
    let setup = Setup::new().set("TALOS_CONSISTENCY_POLL", "4s");
    let talos = setup.start().await;
    let keys = [talos.issue(json!({})).await, talos.issue(json!({})).await];
    for key in &keys {
        assert!(talos.check(Check::bearer(&key.secret)).await.passes());
    }
    // Simulates a revocation by another process, long ago, in a log that was trimmed since.
    let key_id = &keys[0].id;
    setup.sql(&format!(
        "UPDATE api_keys SET revocation_reason = 'REVOCATION_REASON_KEY_COMPROMISE' WHERE key_id = '{key_id}'"
    ));
    setup.sql("UPDATE mutation_counter SET n = 9 WHERE id = 1");
    setup.sql("DELETE FROM mutation_log WHERE n > 0");
    setup.sql("UPDATE mutation_log SET n = 9");
    until("the revoked key is refused", async || {
        (!talos.check(Check::bearer(&keys[0].secret)).await.passes()).then_some(())
    })
    .await;
    assert!(talos.check(Check::bearer(&keys[1].secret)).await.passes());
    assert_eq!(log_breaks(&talos), 1, "{}", talos.process.log());
}

fn log_breaks(talos: &Talos) -> usize {
    talos.process.log().matches("everything cached is dropped").count()
}
