//! A database that was restored from a backup: the log knows better, says so, and repeats what was
//! done since.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{audited, verify};
use crate::rig::check::Check;
use crate::rig::http::{Call, Version};
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{IMPORTED, ISSUED, Key, Setup, Talos};

const TABLES: [&str; 5] = ["api_keys", "actors", "mutation_log", "mutation_counter", "audit_heads"];
const ACTORS: &str = "/v2alpha1/admin/actors";

pub fn back_up(setup: &Setup) {
    for table in TABLES {
        setup.sql(&format!("CREATE TABLE backup_of_{table} AS SELECT * FROM {table}"));
    }
}

pub fn restore(setup: &Setup) {
    let tables = TABLES
        .map(|table| format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM backup_of_{table};"));
    setup.sql(&format!("BEGIN; {} COMMIT;", tables.concat()));
}

/// Keys by what happened to them after the backup.
struct Keys {
    kept: Key,
    revoked: Key,
    self_revoked: Key,
    rotated: Key,
    in_grace: Key,
    deleted: Key,
    imported_again: Key,
    updated: Key,
    suspended: Key,
    resumed: Key,
    /// Of an actor that was suspended after the backup.
    of_suspended: Key,
    /// Of an actor that was suspended before the backup, and resumed after it.
    of_resumed: Key,
}

async fn keys(talos: &Talos) -> Keys {
    Keys {
        kept: talos.issue(json!({})).await,
        revoked: talos.issue(json!({})).await,
        self_revoked: talos.issue(json!({})).await,
        rotated: talos.issue(json!({})).await,
        in_grace: talos.issue(json!({})).await,
        deleted: talos.import("deleted_after_the_backup", json!({})).await,
        imported_again: talos.import("imported_again_after_the_backup", json!({})).await,
        updated: talos.issue(json!({})).await,
        suspended: talos.issue(json!({})).await,
        resumed: {
            let key = talos.issue(json!({})).await;
            suspended(talos, &key).await;
            key
        },
        of_suspended: talos.issue(json!({ "actor_id": "suspended" })).await,
        of_resumed: {
            let key = talos.issue(json!({ "actor_id": "resumed" })).await;
            change_actor(talos, "resumed", "suspend").await;
            key
        },
    }
}

async fn change_actor(talos: &Talos, actor: &str, what: &str) {
    talos.admin.post(&format!("{ACTORS}/{actor}:{what}"), &json!({})).await.expect(200);
}

async fn suspended(talos: &Talos, key: &Key) {
    let path = format!("{ISSUED}/{}:suspend", key.id);
    talos.admin.post(&path, &json!({ "reason": "unpaid" })).await.expect(200);
}

async fn change(talos: &Talos, keys: &Keys) {
    talos.revoke(&keys.revoked).await;
    talos.self_revoke(&keys.self_revoked.secret).await.expect(200);
    let rotate = |key: &Key| format!("{ISSUED}/{}:rotate", key.id);
    talos.admin.post(&rotate(&keys.rotated), &json!({})).await.expect(201);
    let grace = json!({ "grace_period": "3600s" });
    talos.admin.post(&rotate(&keys.in_grace), &grace).await.expect(201);
    for key in [&keys.deleted, &keys.imported_again] {
        let delete = Call::new("DELETE", &format!("{IMPORTED}/{}", key.id));
        talos.admin.send(Version::Http1, delete).await.expect(204);
    }
    talos.import("imported_again_after_the_backup", json!({})).await;
    let update = Call::new("PATCH", &format!("{ISSUED}/{}", keys.updated.id));
    talos.admin.send(Version::Http1, update.json(&json!({ "name": "other" }))).await.expect(200);
    suspended(talos, &keys.suspended).await;
    talos.admin.post(&format!("{ISSUED}/{}:resume", keys.resumed.id), &json!({})).await.expect(200);
    change_actor(talos, "suspended", "suspend").await;
    change_actor(talos, "resumed", "resume").await;
    // One that is erased is not suspended again, only listed.
    change_actor(talos, "erased", "suspend").await;
    let erase = Call::new("DELETE", &format!("{ACTORS}/erased"));
    talos.admin.send(Version::Http1, erase).await.expect(200);
    talos.issue(json!({ "name": "lost" })).await;
}

pub async fn replay(setup: &Setup, arguments: &[&str]) -> (i32, Value) {
    let command = ["audit", "replay", "audit/audit.jsonl", "--format", "json"];
    let arguments: Vec<&str> = command.iter().chain(arguments).copied().collect();
    let output = setup.run(&arguments).await;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout).must(&errors);
    (output.status.code().must("an exit code"), report)
}

pub async fn passes(talos: &Talos, key: &Key) -> bool {
    talos.check(Check::bearer(&key.secret)).await.passes()
}

/// Keys that were ended after the backup.
fn ended(keys: &Keys) -> [&Key; 6] {
    let Keys { revoked, self_revoked, rotated, deleted, suspended, of_suspended, .. } = keys;
    [revoked, self_revoked, rotated, deleted, suspended, of_suspended]
}

#[track_caller]
fn assert_lacking(status: &Value, revocations: u64, deletions: u64) {
    let lacks = status.at("/audit/database_lacks");
    let expected = json!({ "revocations": revocations, "deletions": deletions, "keys": 3, "updates": 4 });
    assert_eq!(lacks, &expected, "{status:#}");
    let problems = status.at("/problems").to_string();
    assert!(problems.contains("the database is behind the audit log"), "{problems}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_is_reported_and_gets_its_revocations_back() {
    let setup = audited();
    let talos = setup.start().await;
    let keys = keys(&talos).await;
    back_up(&setup);
    change(&talos, &keys).await;
    talos.stop().await;
    assert!(verify(&setup, &["audit/audit.jsonl"]).await.0);
    restore(&setup);
    let (ok, findings) = verify(&setup, &["audit/audit.jsonl"]).await;
    let problems = findings.at("/chains/0/problems").to_string();
    assert!(!ok && problems.contains("restored from a backup"), "{findings:#}");

    // Before the first Check, and after a restart.
    for _ in 0..2 {
        let talos = setup.start().await;
        let log = talos.process.log();
        assert!(log.contains("the database is behind the audit log"), "{log}");
        let status = talos.metrics.get("/status").await.expect(200).json();
        assert_lacking(&status, 6, 1);
        assert_eq!(talos.metric("talos_audit_changes_database_lacks").await, 7.0);
        for key in ended(&keys) {
            assert!(passes(&talos, key).await, "revived");
        }
        assert!(!passes(&talos, &keys.of_resumed).await);
        talos.stop().await;
    }

    let talos = setup.start().await;
    let (code, report) = replay(&setup, &["--dry-run"]).await;
    assert_eq!(
        (code, report.at("/would_repeat"), report.at("/lost")),
        (1, &json!(9), &json!(5)),
        "{report:#}"
    );
    assert!(passes(&talos, &keys.revoked).await, "nothing was done");
    let (code, report) = replay(&setup, &[]).await;
    assert_eq!((code, report.at("/repeated"), report.at("/lost")), (1, &json!(9), &json!(5)), "{report:#}");
    for key in ended(&keys) {
        until("it is refused again", async || (!passes(&talos, key).await).then_some(())).await;
    }
    let Keys { kept, imported_again, in_grace, updated, resumed, of_resumed, .. } = &keys;
    for key in [kept, imported_again, in_grace, updated, resumed, of_resumed] {
        until("it is allowed", async || passes(&talos, key).await.then_some(())).await;
    }
    let of_actor = |id: &str| {
        let changes = report.at("/changes").as_array().must("changes");
        changes.iter().find(|change| change["actor_id"] == id).must(id).clone()
    };
    assert_eq!(of_actor("suspended").text("/result"), "repeated");
    let erased = of_actor("erased");
    assert!(
        erased.text("/result") == "lost" && erased.text("/advice").contains("was erased since"),
        "{erased:#}"
    );
    let revoked = talos.admin.get(&format!("{ISSUED}/{}", keys.revoked.id)).await.expect(200).json();
    assert_eq!(revoked.text("/revocation_reason"), "REVOCATION_REASON_KEY_COMPROMISE");
    let in_grace = talos.admin.get(&format!("{ISSUED}/{}", keys.in_grace.id)).await.expect(200).json();
    assert!(in_grace.get("supersede_time").is_some(), "{in_grace:#}");
    until("the status is clean", async || {
        let status = talos.metrics.get("/status").await.expect(200).json();
        status.at("/audit").get("database_lacks").is_none().then_some(())
    })
    .await;
    assert_eq!(talos.metric("talos_audit_changes_database_lacks").await, 0.0);

    let (_, report) = replay(&setup, &[]).await;
    assert_eq!((report.at("/repeated"), report.at("/would_repeat")), (&json!(0), &json!(0)), "{report:#}");
    // The repeated changes are recorded in a file beside the log of the running process.
    talos.stop().await;
    let recorded = std::fs::read_to_string(setup.path("audit/audit.jsonl.2")).must("the log of the command");
    assert!(recorded.contains("talos audit replay") && recorded.contains(&keys.revoked.id), "{recorded}");
    let (ok, findings) = verify(&setup, &["audit/audit.jsonl", "audit/audit.jsonl.2"]).await;
    assert!(ok, "{findings:#}");
    assert!(findings.to_string().contains("knew this log only to line"), "{findings:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_runs_notices_the_restore() {
    let setup = audited();
    let talos = setup.start().await;
    let keys = keys(&talos).await;
    back_up(&setup);
    change(&talos, &keys).await;
    restore(&setup);
    let status = until("it has noticed", async || {
        let status = talos.metrics.get("/status").await.expect(200).json();
        status.at("/audit").get("database_lacks").is_some().then_some(status)
    })
    .await;
    assert_lacking(&status, 6, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_changed_is_not_replayed() {
    let setup = audited();
    let talos = setup.start().await;
    let keys = keys(&talos).await;
    back_up(&setup);
    change(&talos, &keys).await;
    talos.stop().await;
    restore(&setup);
    let log = std::fs::read_to_string(super::file(&setup)).must("the log");
    let forged = log.replace(&keys.revoked.id, &keys.kept.id);
    std::fs::write(super::file(&setup), forged).must("forging the log");
    let output = setup.run(&["audit", "replay", "audit/audit.jsonl"]).await;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && errors.contains("nothing was done"), "{errors}");
    let talos = setup.start().await;
    assert!(passes(&talos, &keys.kept).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_hash_was_imported_is_found_under_both_of_its_ids() {
    const RAW_KEY: &str = "hashed_before_the_backup";
    let setup = audited();
    let talos = setup.start().await;
    let hash = json!({ "value": format!("sha256:{}", hex::encode(Sha256::digest(RAW_KEY))) });
    let body = json!({ "hash": hash, "name": "hashed", "actor_id": "a" });
    let id = talos.admin.post(IMPORTED, &body).await.expect(201).json().text("/key_id").to_owned();
    back_up(&setup);
    talos.check(Check::bearer(RAW_KEY)).await.allowed();
    for what in ["suspend", "resume"] {
        talos.admin.post(&format!("{IMPORTED}/{id}:{what}"), &json!({})).await.expect(200);
    }
    talos.check(Check::bearer(RAW_KEY)).await.allowed();
    let (code, report) = replay(&setup, &["--dry-run"]).await;
    assert_eq!(
        (code, report.at("/would_repeat"), report.at("/lost")),
        (0, &json!(0), &json!(0)),
        "{report:#}"
    );
    talos.admin.post(&format!("{IMPORTED}/{id}:revoke"), &json!({})).await.expect(204);
    talos.stop().await;

    restore(&setup);
    let (_, report) = replay(&setup, &[]).await;
    assert_eq!((report.at("/repeated"), report.at("/lost")), (&json!(1), &json!(0)), "{report:#}");
    let talos = setup.start().await;
    talos.check(Check::bearer(RAW_KEY)).await.denied(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_missing_lines_is_repeated_only_when_that_is_asked_for() {
    let setup = audited();
    let talos = setup.start().await;
    let (before, after) = (talos.issue(json!({})).await, talos.issue(json!({})).await);
    back_up(&setup);
    talos.revoke(&before).await;
    let start = super::read(&setup).len();
    talos.issue(json!({})).await;
    let end = super::read(&setup).len();
    talos.issue(json!({})).await;
    talos.revoke(&after).await;
    talos.stop().await;
    restore(&setup);
    let log = std::fs::read_to_string(super::file(&setup)).must("the log");
    let is_kept = |at: usize| at < start || at >= end;
    let left = log.lines().enumerate().filter(|(at, _)| is_kept(*at));
    let left: String = left.map(|(_, line)| format!("{line}\n")).collect();
    assert_ne!(left, log);
    std::fs::write(super::file(&setup), left).must("taking lines out of the log");

    let output = setup.run(&["audit", "replay", "audit/audit.jsonl"]).await;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("nothing was done") && errors.contains("--despite-gaps"), "{errors}");
    let gap = format!("lines {} to {} are missing", start + 1, end);
    for (arguments, done) in [(["--dry-run"], "/would_repeat"), (["--despite-gaps"], "/repeated")] {
        let (code, report) = replay(&setup, &arguments).await;
        assert_eq!((code, report.at(done)), (1, &json!(2)), "{report:#}");
        assert!(report.text("/gaps/0").contains(&gap), "{report:#}");
    }
    let talos = setup.start().await;
    assert!(!passes(&talos, &before).await && !passes(&talos, &after).await);
    talos.stop().await;
}
