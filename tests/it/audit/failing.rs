//! A log that can't be written: nothing is done that wouldn't be recorded.

use serde_json::json;

use super::{audited, calls, file, whole};
use crate::rig::check::Check;
use crate::rig::support::{Must, until};
use crate::rig::talos::{DERIVE, IMPORTED, ISSUED, SELF_REVOKE, Setup, Talos};

const NOTHING: &str = "nothing was done: the audit log can't be written";

/// All that changes something or shows a secret is refused, and not done.
async fn all_is_refused(talos: &Talos, key: &crate::rig::talos::Key) {
    let body = json!({ "name": "n", "actor_id": "a", "raw_key": "never-imported-0123" });
    let path = format!("{ISSUED}/{}", key.id);
    for (path, body) in [
        (ISSUED, json!({ "name": "n", "actor_id": "a" })),
        (IMPORTED, body),
        (&*format!("{path}:rotate"), json!({})),
        (&*format!("{path}:revoke"), json!({})),
        (SELF_REVOKE, json!({ "credential": key.secret })),
        (DERIVE, json!({ "credential": key.secret })),
    ] {
        let message = talos.admin.post(path, &body).await.expect_error(503, "SERVICE_UNAVAILABLE");
        assert_eq!(message, NOTHING, "{path}");
    }
    assert_eq!(talos.verify(&key.secret).await["is_valid"], true);
    assert_eq!(talos.verify("never-imported-0123").await["is_valid"], false);
    talos.check(Check::bearer(&key.secret)).await.allowed();
    let keys = talos.admin.get(ISSUED).await.expect(200).json();
    assert_eq!(keys["issued_api_keys"].as_array().must("keys").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_gone_stops_changes_until_it_is_back() {
    let setup = audited();
    let talos = setup.start().await;
    let key = talos.issue(json!({})).await;
    let away = setup.path("away");
    std::fs::rename(setup.path("audit"), &away).must("moving the directory");
    all_is_refused(&talos, &key).await;
    let status = talos.metrics.get("/status").await.expect(200).text();
    assert!(status.contains("the audit log can't be written"), "{status}");
    assert_eq!(talos.metric("talos_audit_writable").await, 0.0);
    assert!(talos.metric("talos_audit_write_failures_total").await >= 6.0);
    std::fs::rename(&away, setup.path("audit")).must("moving it back");
    until("changes go on", async || {
        let body = json!({ "name": "n", "actor_id": "a" });
        (talos.admin.post(ISSUED, &body).await.status == 201).then_some(())
    })
    .await;
    assert_eq!(talos.metric("talos_audit_writable").await, 1.0);
    whole(&setup).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_changes_until_there_is_room() {
    // The log has to be the largest file, so that it is the one that can't grow.
    let setup = audited().survives_file_limits();
    let talos = setup.start().await;
    let key = talos.issue(json!({})).await;
    let batch = json!({ "requests": vec![json!({}); 1_000] });
    let fill = Setup::clone(&setup);
    until("the log is the largest", async || {
        let size = |file: std::path::PathBuf| std::fs::metadata(file).map_or(0, |file| file.len());
        let largest = ["talos.db", "talos.db-wal", "talos.log"].map(|name| size(fill.path(name)));
        let log = size(file(&fill));
        if log > 65_536 + largest.into_iter().max().unwrap_or(0) {
            return Some(());
        }
        // The refused batch leaves a long line.
        talos.admin.post(&format!("{IMPORTED}:batchCreate"), &batch).await.expect(400);
        None
    })
    .await;
    let length = std::fs::metadata(file(&setup)).must("the log").len();
    talos.process.limit_files(Some(length + 10));
    all_is_refused(&talos, &key).await;
    assert_eq!(std::fs::metadata(file(&setup)).must("the log").len(), length, "nothing is left of a line");
    talos.process.limit_files(None);
    talos.revoke(&key).await;
    assert_eq!(calls(&setup).last().must("a line")["status"], 204);
    talos.check(Check::bearer(&key.secret)).await.denied(401);
    talos.stop().await;
    whole(&setup).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_file_that_can_not_be_opened_stops_the_start() {
    let setup = audited();
    std::fs::remove_dir_all(setup.path("audit")).must("removing the directory");
    let written = setup.refused().await;
    assert!(written.contains("audit.file") && written.contains("audit.jsonl"), "{written}");
    assert!(!written.contains(super::KEY));
}
