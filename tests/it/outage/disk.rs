//! A disk that is full or can't be written: existing data can be read, and are intact afterwards.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use sqlx::{Connection, Row, SqliteConnection};

use crate::rig::check::Check;
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{ISSUED, Key, SELF_REVOKE, Setup, Talos};

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_503_and_reads_go_on() {
    let setup = Setup::new().sqlite().survives_file_limits();
    let talos = setup.start().await;
    let (known, unknown) = (talos.issue(json!({})).await, talos.issue(json!({})).await);
    talos.check(Check::bearer(&known.secret)).await.allowed();

    // A little more than the largest of its files has now.
    let size = |file: &str| std::fs::metadata(setup.path(file)).map_or(0, |file| file.len());
    let largest = size("talos.db").max(size("talos.db-wal")).max(size("talos.log"));
    talos.process.limit_files(Some(largest + 64 * 1024));
    let mut acknowledged = vec![known.clone(), unknown.clone()];
    let body = json!({ "name": "one more", "actor_id": "alice" });
    until("a write fails", async || {
        let reply = talos.admin.post(ISSUED, &body).await;
        if reply.status == 503 {
            return Some(());
        }
        let document = reply.expect(201).json();
        acknowledged.push(Key {
            id: document.text("/issued_api_key/key_id").to_owned(),
            secret: document.text("/secret").to_owned(),
            resource: document.at("/issued_api_key").clone(),
        });
        None
    })
    .await;
    // A write into pages that the files have already could succeed for ever. Now none can.
    talos.process.limit_files(Some(0));

    for _ in 0..3 {
        talos.admin.post(ISSUED, &body).await.expect_error(503, "SERVICE_UNAVAILABLE");
        let revoke = format!("{ISSUED}/{}:revoke", known.id);
        let reason = json!({ "reason": "REVOCATION_REASON_KEY_COMPROMISE" });
        talos.admin.post(&revoke, &reason).await.expect_error(503, "SERVICE_UNAVAILABLE");
        let credential = json!({ "credential": unknown.secret });
        talos.public.post(SELF_REVOKE, &credential).await.expect_error(503, "SERVICE_UNAVAILABLE");
        reads_go_on(&talos, &acknowledged).await;
    }

    talos.process.limit_files(None);
    recovers(talos, &setup, &known, &unknown).await;
}

/// Asserts that a check of the whole file finds no fault.
async fn is_whole(setup: &Setup) {
    let file = format!("sqlite://{}", setup.path("talos.db").display());
    let mut database = SqliteConnection::connect(&file).await.must("opening the database");
    let row = sqlx::query("PRAGMA integrity_check").fetch_one(&mut database).await.must("an integrity check");
    assert_eq!(row.get::<String, _>(0), "ok");
}

async fn reads_go_on(talos: &Talos, keys: &[Key]) {
    for key in keys {
        talos.check(Check::bearer(&key.secret)).await.allowed();
        talos.admin.get(&format!("{ISSUED}/{}", key.id)).await.expect(200);
    }
    talos.check(Check::api_key("legacy-unknown")).await.denied(401);
}

/// Writes succeed again, and nothing was lost or half done.
async fn recovers(talos: Talos, setup: &Setup, revoked: &Key, kept: &Key) {
    let body = json!({ "name": "one more", "actor_id": "alice" });
    until("writes succeed again", async || {
        (talos.admin.post(ISSUED, &body).await.status == 201).then_some(())
    })
    .await;
    talos.revoke(revoked).await;
    talos.check(Check::bearer(&revoked.secret)).await.denied(401);
    talos.check(Check::bearer(&kept.secret)).await.allowed();
    talos.stop().await;
    is_whole(setup).await;
}

/// Lets files of the database be written, or not.
fn writable(setup: &Setup, may: bool) {
    for file in ["talos.db", "talos.db-wal", "talos.db-shm"] {
        let mode = Permissions::from_mode(if may { 0o600 } else { 0o400 });
        std::fs::set_permissions(setup.path(file), mode).must(file);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_may_only_be_read_is_read() {
    let setup = Setup::new().sqlite().respects_permissions();
    // New connections all the time: those that are open keep what they could do.
    let dsn = format!("sqlite://{}?max_conn_lifetime=100ms", setup.path("talos.db").display());
    let setup = setup.set("TALOS_DB_DSN", &dsn);
    let talos = setup.start().await;
    let (known, unknown) = (talos.issue(json!({})).await, talos.issue(json!({})).await);
    talos.check(Check::bearer(&known.secret)).await.allowed();
    let body = json!({ "name": "one more", "actor_id": "alice" });

    writable(&setup, false);
    until("a write fails", async || {
        let reply = talos.admin.post(ISSUED, &body).await;
        (reply.status != 201).then(|| drop(reply.expect_error(503, "SERVICE_UNAVAILABLE")))
    })
    .await;
    for _ in 0..3 {
        talos.admin.post(ISSUED, &body).await.expect_error(503, "SERVICE_UNAVAILABLE");
        let revoke = format!("{ISSUED}/{}:revoke", known.id);
        let reason = json!({ "reason": "REVOCATION_REASON_KEY_COMPROMISE" });
        talos.admin.post(&revoke, &reason).await.expect_error(503, "SERVICE_UNAVAILABLE");
        reads_go_on(&talos, &[known.clone(), unknown.clone()]).await;
    }

    writable(&setup, true);
    recovers(talos, &setup, &known, &unknown).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_can_write_stops_nothing() {
    let talos = Setup::new().sqlite().log_to("/dev/full").start().await;
    let key = talos.issue(json!({})).await;
    talos.check(Check::bearer(&key.secret)).await.allowed();
    // A reason to log something in the midst of a request.
    talos.check(Check::bearer(&key.secret).route("talos.mode", "nonsense")).await.denied(500);
    talos.revoke(&key).await;
    talos.check(Check::bearer(&key.secret)).await.denied(401);
}
