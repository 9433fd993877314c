//! Files of the log that were moved aside by others, under any name, and files that can't be moved
//! aside.

use rustix::process::Signal;
use serde_json::json;

use super::outside::{until_it_issues, verify_all};
use super::restored::{back_up, passes, restore};
use super::{audited, file, verify};
use crate::rig::support::{Must, until};
use crate::rig::talos::{Key, Setup, Talos};

/// A key that is revoked, in a database from before that. The process doesn't run.
async fn revived(setup: &Setup) -> Key {
    let talos = setup.start().await;
    let key = talos.issue(json!({})).await;
    back_up(setup);
    talos.revoke(&key).await;
    talos.stop().await;
    restore(setup);
    key
}

#[tokio::test(flavor = "multi_thread")]
async fn moved_lines_are_compared_whatever_their_file_is_called() {
    for name in ["audit.jsonl.1", "audit.jsonl-20260101", "audit-20260101.jsonl"] {
        let setup = audited();
        let key = revived(&setup).await;
        let moved = setup.path(&format!("audit/{name}"));
        std::fs::rename(file(&setup), &moved).must("moving the log");
        std::fs::write(file(&setup), "").must("creating the file");
        let talos = setup.start().await;
        let log = talos.process.log();
        assert!(log.contains("the database is behind the audit log"), "{name}: {log}");
        assert!(passes(&talos, &key).await);
        talos.stop().await;
        // The chain goes on where the moved file ends.
        let (ok, findings) = verify(&setup, &[&format!("audit/{name}"), "audit/audit.jsonl"]).await;
        assert!(ok, "{findings:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_nowhere_beside_the_log_are_named() {
    let setup = audited();
    revived(&setup).await;
    std::fs::rename(file(&setup), setup.path("elsewhere")).must("moving the log");
    std::fs::write(file(&setup), "").must("creating the file");
    let talos = setup.start().await;
    let log = talos.process.log();
    assert!(log.contains("no file of the audit log has the last lines"), "{log}");
    talos.stop().await;

    // The newest lines are there, and older ones that the database doesn't know are not.
    let setup = audited();
    let talos = setup.start().await;
    let key = talos.issue(json!({})).await;
    back_up(&setup);
    talos.revoke(&key).await;
    std::fs::rename(file(&setup), setup.path("elsewhere")).must("moving the log");
    talos.process.signal(Signal::HUP);
    until("a new file is there", async || file(&setup).exists().then_some(())).await;
    talos.issue(json!({})).await;
    talos.stop().await;
    restore(&setup);
    let talos = setup.start().await;
    let log = talos.process.log();
    assert!(log.contains("lines of the audit log were not compared with the database"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_another_process_is_not_taken_for_the_new_one() {
    let setup = audited();
    let (one, two) = (setup.start().await, setup.start().await);
    let issue = async |talos: &Talos| drop(talos.issue(json!({})).await);
    issue(&one).await;
    issue(&two).await;
    // As logrotate does with both by one pattern and a count.
    let (second, third) = (setup.path("audit/audit.jsonl.2"), setup.path("audit/audit.jsonl.3"));
    std::fs::rename(&second, &third).must("moving a log");
    std::fs::rename(file(&setup), &second).must("moving a log");
    until_it_issues(&one).await;
    until_it_issues(&two).await;
    let log = two.process.log();
    assert!(log.contains("another log's file had the name of the audit log"), "{log}");
    one.stop().await;
    two.stop().await;
    let (ok, findings) = verify_all(&setup).await;
    assert!(ok, "{findings:#}");
    assert_eq!(findings["chains"].as_array().must("chains").len(), 2, "{findings:#}");

    // Nor does a process that starts: the name is that of a file of the first log.
    std::fs::remove_file(&second).must("removing a log");
    std::fs::rename(file(&setup), &second).must("moving a log");
    let (one, two) = (setup.start().await, setup.start().await);
    issue(&one).await;
    issue(&two).await;
    one.stop().await;
    two.stop().await;
    let lines = std::fs::read_to_string(&second).must("the moved log");
    assert!(!lines.contains("audit.jsonl.2"), "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_file_that_can_not_be_moved_aside_goes_on() {
    // So long that a suffix has no room.
    let name = format!("audit/{}.jsonl", "a".repeat(234));
    let setup = audited();
    let path = setup.path(&name);
    let setup =
        setup.set("TALOS_AUDIT_FILE", &path.display().to_string()).set("TALOS_AUDIT_MAX_SIZE", "3000");
    let talos = setup.start().await;
    for _ in 0..10 {
        talos.issue(json!({})).await;
    }
    assert!(std::fs::metadata(&path).must("the log").len() > 6_000);
    let log = talos.process.log();
    assert_eq!(log.matches("can't be moved aside").count(), 1, "once: {log}");
    assert_eq!(talos.metric("talos_audit_writable").await, 1.0);
    talos.stop().await;
    let (ok, findings) = verify(&setup, &[&name]).await;
    assert!(ok, "{findings:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_symbolic_link_keeps_its_target() {
    let setup = audited().set("TALOS_AUDIT_MAX_SIZE", "3000");
    std::fs::create_dir(setup.path("volume")).must("a directory");
    std::os::unix::fs::symlink("../volume/audit.jsonl", file(&setup)).must("a symbolic link");
    let talos = setup.start().await;
    for _ in 0..10 {
        talos.issue(json!({})).await;
    }
    talos.stop().await;
    assert!(std::fs::symlink_metadata(file(&setup)).must("the link").is_symlink());
    let entries = std::fs::read_dir(setup.path("volume")).must("the directory");
    let names = entries.map(|entry| entry.must("an entry").file_name().to_string_lossy().into_owned());
    let names: Vec<String> = names.map(|name| format!("volume/{name}")).collect();
    assert!(names.len() > 2, "{names:?}");
    let files: Vec<&str> = names.iter().map(String::as_str).collect();
    let (ok, findings) = verify(&setup, &files).await;
    assert!(ok, "{findings:#}");
}
