//! Changes that others make to the file while it is written: its real end counts, nothing is filled
//! with NULs, and the log says so at once.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::{audited, file, read, verify};
use crate::rig::random::Random;
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{ISSUED, Setup, Talos};

/// All files of the log, and copies that a test made of it.
fn files(setup: &Setup) -> Vec<String> {
    let entries = std::fs::read_dir(setup.path("audit")).must("the directory");
    let names = entries.map(|entry| entry.must("an entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|name| name.starts_with("audit.jsonl")).collect();
    names.sort();
    names.into_iter().map(|name| format!("audit/{name}")).collect()
}

pub async fn verify_all(setup: &Setup) -> (bool, Value) {
    let files = files(setup);
    verify(setup, &files.iter().map(String::as_str).collect::<Vec<_>>()).await
}

#[track_caller]
fn assert_no_nuls(setup: &Setup) {
    for name in files(setup) {
        let bytes = std::fs::read(setup.path(&name)).must("a file of the log");
        assert!(!bytes.contains(&0), "{name} has NULs");
    }
}

fn truncate(setup: &Setup, length: u64) {
    let file = OpenOptions::new().write(true).open(file(setup)).must("opening the log");
    file.set_len(length).must("truncating the log");
}

async fn changes(talos: &Talos, kind: &str) -> u64 {
    let status = talos.metrics.get("/status").await.expect(200).json();
    status.at(&format!("/audit/outside_changes/{kind}")).as_u64().must("a count")
}

pub async fn until_it_issues(talos: &Talos) {
    until("a key is issued", async || {
        let reply = talos.admin.post(ISSUED, &json!({ "name": "n", "actor_id": "a" })).await;
        (reply.status == 201).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copytruncate_and_then_a_full_disk_leave_no_nuls_and_lose_nothing() {
    let setup = audited().survives_file_limits();
    let talos = setup.start().await;
    for _ in 0..20 {
        talos.issue(json!({})).await;
    }
    std::fs::copy(file(&setup), setup.path("audit/audit.jsonl.1")).must("copying the log");
    truncate(&setup, 0);
    // At once, without a call.
    until("it has noticed", async || (changes(&talos, "truncated").await == 1).then_some(())).await;
    let status = talos.metrics.get("/status").await.expect(200).text();
    assert!(status.contains("the audit log was truncated by somebody else after line"), "{status}");
    assert_eq!(read(&setup)[0].text("/reason"), "truncated");
    talos.issue(json!({})).await;

    std::fs::copy(file(&setup), setup.path("audit/audit.jsonl.2")).must("copying the log");
    truncate(&setup, 0);
    talos.process.limit_files(Some(100));
    for _ in 0..5 {
        talos.admin.post(ISSUED, &json!({ "name": "n", "actor_id": "a" })).await.expect(503);
        let length = std::fs::metadata(file(&setup)).must("the log").len();
        assert_eq!(length, 0, "nothing is left of a line, and nothing is filled up");
    }
    talos.process.limit_files(None);
    until_it_issues(&talos).await;
    assert_no_nuls(&setup);
    assert!(talos.process.log().contains("was truncated by somebody else"), "{}", talos.process.log());
    assert_eq!(talos.metric("talos_audit_file_changes_total").await, 2.0);
    talos.stop().await;
    let (ok, findings) = verify_all(&setup).await;
    assert!(ok, "nothing was lost: {findings:#}");
    assert_eq!(findings.at("/chains").as_array().must("chains").len(), 1);
    assert_eq!(findings.at("/chains/0/first"), &json!(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_lines_are_reported() {
    let setup = audited();
    let talos = setup.start().await;
    talos.issue(json!({})).await;
    truncate(&setup, 0);
    talos.issue(json!({})).await;
    let (ok, findings) = verify_all(&setup).await;
    assert!(!ok && findings.text("/chains/0/problems/0").contains("history is missing"), "{findings:#}");
    assert!(verify(&setup, &["audit/audit.jsonl", "--no-history"]).await.0);

    std::fs::remove_file(file(&setup)).must("removing the log");
    talos.issue(json!({})).await;
    assert_eq!(changes(&talos, "removed").await, 1);
    assert_eq!(read(&setup)[0].text("/reason"), "removed");
    assert!(talos.process.log().contains("was removed by somebody else"), "{}", talos.process.log());

    // Somebody writes into it: that file is kept as it is, and this one begins anew.
    let mut hello = std::fs::read(file(&setup)).must("the log");
    hello.extend(b"hello");
    std::fs::write(file(&setup), &hello).must("writing to the log");
    talos.issue(json!({})).await;
    assert_eq!(changes(&talos, "extended").await, 1);
    talos.stop().await;
    let aside: Vec<_> = files(&setup)
        .into_iter()
        .filter(|name| name.contains(".jsonl.") && !name.ends_with(".lock"))
        .collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert_eq!(std::fs::read(setup.path(&aside[0])).must("the file moved aside"), hello);
    let (ok, findings) = verify(&setup, &[&aside[0], "audit/audit.jsonl", "--no-history"]).await;
    assert!(ok, "only an incomplete line: {findings:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn random_changes_to_the_file_cause_no_nuls_and_calls_go_on() {
    let setup = audited().survives_file_limits();
    let talos = setup.start().await;
    let mut random = Random::seeded("outside");
    for step in 0..40 {
        match random.below(6) {
            0 => truncate(&setup, 0),
            1 => {
                let length = std::fs::metadata(file(&setup)).must("the log").len();
                truncate(&setup, random.below(length.max(1) as usize) as u64);
            }
            2 => {
                let aside = setup.path(&format!("audit/audit.jsonl.aside{step}"));
                std::fs::rename(file(&setup), aside).must("moving the log");
            }
            3 => std::fs::remove_file(file(&setup)).must("removing the log"),
            4 => {
                let mut text = std::fs::read(file(&setup)).must("the log");
                text.extend(b"{\"seq\":1,");
                std::fs::write(file(&setup), text).must("writing to the log");
            }
            _ => {
                if random.below(2) == 0 {
                    truncate(&setup, 0);
                }
                talos.process.limit_files(Some(random.below(2_000) as u64));
                talos.admin.post(ISSUED, &json!({ "name": "n", "actor_id": "a" })).await;
                talos.process.limit_files(None);
            }
        }
        until_it_issues(&talos).await;
        assert_no_nuls(&setup);
    }
    talos.stop().await;
    // The last file can be verified alone, and a process goes on with it.
    assert!(verify(&setup, &["audit/audit.jsonl", "--part"]).await.0);
    let talos = setup.start().await;
    talos.issue(json!({})).await;
}

/// A file system of a test's own, which root may mount.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf) -> Option<Disk> {
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&path).status();
        mounted.is_ok_and(|status| status.success()).then_some(Disk(path))
    }

    fn remount(&self, option: &str) {
        let options = format!("remount,{option}");
        let status = Command::new("mount").args(["-o", &options]).arg(&self.0).status().must("mount");
        assert!(status.success(), "mount -o {options}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_stops_changes_and_one_that_is_read_only_the_start() {
    let setup = audited();
    let Some(disk) = Disk::mount(setup.path("audit")) else {
        println!("not run: mounting a file system needs root");
        return;
    };
    let talos = setup.start().await;
    talos.issue(json!({})).await;
    std::fs::copy(file(&setup), setup.path("copy")).must("copying the log");
    truncate(&setup, 0);
    let filler = setup.path("audit/filler");
    // Fails when nothing is left, as it should.
    let _ = std::fs::write(&filler, vec![1; 1024 * 1024]);
    until("the disk is full", async || {
        let reply = talos.admin.post(ISSUED, &json!({ "name": "n", "actor_id": "a" })).await;
        (reply.status == 503).then_some(())
    })
    .await;
    assert_eq!(talos.metric("talos_audit_writable").await, 0.0);
    std::fs::remove_file(&filler).must("making room");
    until_it_issues(&talos).await;
    assert_eq!(talos.process.log().matches("the audit log can't be written").count(), 1, "once");
    talos.stop().await;
    assert_no_nuls(&setup);
    let (ok, findings) = verify(&setup, &["copy", "audit/audit.jsonl"]).await;
    assert!(ok, "{findings:#}");
    disk.remount("ro");
    let written = setup.refused().await;
    assert!(written.contains("audit.file") && written.contains("Read-only"), "{written}");
}
