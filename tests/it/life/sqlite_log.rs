//! Files beside an SQLite database that are removed, or left behind, under running processes.

use std::fs;

use serde_json::json;
use sqlx::{AnyConnection, Connection, Executor};

use crate::rig::check::Check;
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{ISSUED, Key, Setup, Talos};

fn setup() -> Setup {
    Setup::new()
        .sqlite()
        .set("TALOS_CONSISTENCY_LEASE", "1s")
        .set("TALOS_CONSISTENCY_POLL", "200ms")
        .set("TALOS_CONSISTENCY_GRACE", "0s")
}

/// Issues a key, if the database takes it.
async fn try_issue(talos: &Talos) -> Option<Key> {
    let reply = talos.admin.post(ISSUED, &json!({ "name": "n", "actor_id": "a" })).await;
    if reply.status == 503 {
        return None;
    }
    let document = reply.expect(201).json();
    Some(Key {
        id: document.text("/issued_api_key/key_id").to_owned(),
        secret: document.text("/secret").to_owned(),
        resource: document.at("/issued_api_key").clone(),
    })
}

async fn passes(talos: &Talos, key: &Key) -> bool {
    talos.check(Check::bearer(&key.secret)).await.passes()
}

/// All that was acknowledged before, meanwhile and after is there, in every process.
async fn loses_nothing(removed: &[&str]) {
    let setup = setup();
    let (one, other) = (setup.start().await, setup.start().await);
    let mut acknowledged = vec![];
    for _ in 0..5 {
        acknowledged.push(one.issue(json!({})).await);
    }
    let revoked = one.issue(json!({})).await;
    one.revoke(&revoked).await;
    for file in removed {
        fs::remove_file(setup.path(file)).must(file);
    }
    // Both go on writing, and a third one opens the files as they are now.
    for _ in 0..20 {
        for talos in [&one, &other] {
            acknowledged.extend(try_issue(talos).await);
        }
    }
    let third = setup.start().await;
    let mut writers = vec![];
    for (talos, name) in [(&one, "one"), (&other, "the other"), (&third, "the third")] {
        writers.push(until(&format!("{name} writes"), async || try_issue(talos).await).await);
    }
    for round in 0..10 {
        for talos in [&one, &other, &third] {
            let key = try_issue(talos).await.must(&format!("round {round}: nothing is closed again"));
            acknowledged.push(key);
        }
    }
    acknowledged.extend(writers);
    for talos in [&one, &other, &third] {
        for (number, key) in acknowledged.iter().enumerate() {
            until(&format!("key {number} is known"), async || passes(talos, key).await.then_some(())).await;
        }
        assert!(!passes(talos, &revoked).await);
    }
    assert!(one.process.log().contains("-wal or the -shm"), "{}", one.process.log());
    let rows = setup.number("SELECT count(*) FROM api_keys").await;
    assert!(rows > acknowledged.len() as i64, "{rows} rows, {} acknowledged", acknowledged.len());
}

/// Two processes that have no lock in common would overwrite each other's changes.
#[tokio::test(flavor = "multi_thread")]
async fn the_index_of_the_log_is_removed() {
    loses_nothing(&["talos.db-shm"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_removed() {
    loses_nothing(&["talos.db-wal"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_and_its_index_are_removed() {
    loses_nothing(&["talos.db-wal", "talos.db-shm"]).await;
}

/// A restore by renaming alone: the log of the earlier file would be applied to the new one.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_the_earlier_file_is_not_applied_to_a_restored_one() {
    let setup = setup();
    let (one, other) = (setup.start().await, setup.start().await);
    let kept = one.issue(json!({})).await;
    setup.sql(&format!("VACUUM INTO '{}'", setup.path("backup.db").display()));
    let lost = one.issue(json!({})).await;
    fs::rename(setup.path("backup.db"), setup.path("talos.db")).must("the restore");
    for talos in [&one, &other] {
        until("it is named", async || {
            let status = talos.metrics.get("/status").await.json();
            let reason = status["poll"]["last_failure"].as_str().unwrap_or_default().to_owned();
            reason.contains("would overwrite it").then_some(())
        })
        .await;
        assert!(try_issue(talos).await.is_none(), "into a file that is about to be overwritten");
    }
    for left in ["talos.db-wal", "talos.db-shm"] {
        fs::remove_file(setup.path(left)).must(left);
    }
    let mut issued = vec![];
    for talos in [&one, &other] {
        issued.push(until("it writes again", async || try_issue(talos).await).await);
    }
    for talos in [&one, &other] {
        for key in issued.iter().chain([&kept]) {
            until("it is known", async || passes(talos, key).await.then_some(())).await;
        }
        until("what the backup lacks is unknown", async || (!passes(talos, &lost).await).then_some(())).await;
    }
    assert_eq!(setup.number("SELECT count(*) FROM api_keys").await, 3, "the backup's, and one of each");
}

/// A program that has the file open and never lets go of it keeps a start out, which says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_beside_a_removed_log_says_what_to_end() {
    let setup = setup();
    setup.start().await.stop().await;
    sqlx::any::install_default_drivers();
    let mut held = AnyConnection::connect(setup.dsn()).await.must("opening the file");
    held.execute("CREATE TABLE held (a INTEGER)").await.must("a change in the log");
    fs::remove_file(setup.path("talos.db-wal")).must("removing the log");
    let output = setup.refused().await;
    assert!(output.contains("talos.db-wal was removed") && output.contains("end every process"), "{output}");
    held.close().await.must("closing the file");
    setup.start().await;
}
