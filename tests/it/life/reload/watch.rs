//! Watching the configuration's file: each change is noticed, and nothing else causes a reload.

use std::os::unix::fs::symlink;

use rustix::process::Signal;
use serde_json::json;

use super::{FIRST, Live, SECOND, key_set};
use crate::rig::support::{Must, until};
use crate::rig::talos::{JWKS, Setup, Talos};

fn config(secrets: &str) -> String {
    format!("secrets: {{hmac: {secrets}}}\n")
}

/// Kubernetes mounts a ConfigMap or a Secret as symlinks, and swaps them to change it.
#[tokio::test(flavor = "multi_thread")]
async fn a_swap_of_the_symlinks_on_the_way_is_noticed() {
    let dir = tempfile::tempdir().must("a directory");
    let at = |name: &str| dir.path().join(name);
    let volume = |version: &str, content: &str| {
        std::fs::create_dir(at(version)).must("making a version");
        std::fs::write(at(version).join("talos.yaml"), content).must("writing a version");
        symlink(version, at("..data_tmp")).must("linking a version");
        std::fs::rename(at("..data_tmp"), at("..data")).must("swapping versions");
    };
    volume("..2026_01", &config(&format!("{{current: {FIRST}}}")));
    symlink("..data/talos.yaml", at("talos.yaml")).must("linking the file");
    let talos = Setup::from_file(at("talos.yaml")).start().await;
    let key = talos.issue(json!({})).await;
    for (version, secrets, valid) in [
        ("..2026_02", format!("{{current: {SECOND}, retired: [{FIRST}]}}"), true),
        ("..2026_03", format!("{{current: {SECOND}}}"), false),
        ("..2026_04", format!("{{current: {FIRST}}}"), true),
    ] {
        let before = talos.metric("talos_config_generation").await;
        volume(version, &config(&secrets));
        until("the new version is in force", async || {
            (talos.metric("talos_config_generation").await > before).then_some(())
        })
        .await;
        assert_eq!(talos.verify(&key.secret).await["is_valid"], valid, "{version}");
    }
}

/// Simulates a file system without notifications: the change is in a directory which is neither the
/// file's nor its target's.
#[tokio::test(flavor = "multi_thread")]
async fn changes_without_a_notification_are_found_by_polling() {
    let dir = tempfile::tempdir().must("a directory");
    let at = |name: &str| dir.path().join(name);
    for (version, secret) in [("one", FIRST), ("two", SECOND)] {
        std::fs::create_dir(at(version)).must("making a version");
        let content = config(&format!("{{current: {secret}}}"));
        std::fs::write(at(version).join("talos.yaml"), content).must("writing a version");
    }
    std::fs::create_dir_all(at("etc")).must("making a directory");
    std::fs::create_dir_all(at("versions")).must("making a directory");
    symlink("../one", at("versions/current")).must("linking a version");
    symlink("../versions/current/talos.yaml", at("etc/talos.yaml")).must("linking the file");
    let talos = Setup::from_file(at("etc/talos.yaml")).start().await;
    symlink("../two", at("versions/next")).must("linking a version");
    std::fs::rename(at("versions/next"), at("versions/current")).must("swapping versions");
    until("the change is found", async || {
        (talos.metric("talos_config_generation").await == 2.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_configuration_makes_no_new_settings() {
    let first = config(&format!("{{current: {FIRST}}}"));
    let live = Live::start(&first).await;
    let generation = live.generation().await;
    // A comment, written in place.
    std::fs::write(live.path("talos.yaml"), format!("# changed\n{first}")).must("writing in place");
    until("it is noticed", async || (live.reloads("unchanged").await == 1.0).then_some(())).await;
    live.talos.process.signal(Signal::HUP);
    until("SIGHUP is noticed", async || (live.reloads("unchanged").await == 2.0).then_some(())).await;
    assert_eq!(live.generation().await, generation);
    // Written in place, by contrast.
    let second = config(&format!("{{current: {SECOND}}}"));
    std::fs::write(live.path("talos.yaml"), second).must("writing in place");
    live.is_in_force_after(generation).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_goes_away_changes_nothing_until_it_is_back() {
    let live = Live::start(&config(&format!("{{current: {FIRST}}}"))).await;
    let key = live.talos.issue(json!({})).await;
    std::fs::remove_file(live.path("talos.yaml")).must("removing the file");
    until("it is noticed", async || (live.reloads("refused").await > 0.0).then_some(())).await;
    live.logs(&["talos.yaml", "cannot be read"]).await;
    assert!(live.is_valid(&key.secret).await);
    live.change(&config(&format!("{{current: {SECOND}}}"))).await;
    assert!(!live.is_valid(&key.secret).await);
}

/// Without a configuration file there are still the files of key sets, and SIGHUP.
#[tokio::test(flavor = "multi_thread")]
async fn key_sets_are_followed_without_a_configuration_file() {
    let talos = Talos::start().await;
    let file = talos.setup.path("signing-keys.json");
    let published = async || talos.public.get(JWKS).await.expect(200).text();
    std::fs::write(&file, key_set("new").to_string()).must("writing a key set");
    until("the new key is published", async || published().await.contains("\"new\"").then_some(())).await;

    // One that is no good: the keys stay.
    std::fs::write(&file, "{").must("writing a key set");
    until("it is told", async || {
        let log = talos.process.log();
        (log.contains("signing_keys.urls[0]: must be a JSON object") && log.contains("stays")).then_some(())
    })
    .await;
    assert!(published().await.contains("\"new\""));
    assert_eq!(talos.metric("talos_config_last_reload_successful").await, 0.0);

    talos.process.signal(Signal::HUP);
    until("SIGHUP is heard", async || talos.process.log().contains("SIGHUP").then_some(())).await;
    assert_eq!(talos.verify("unknown").await["is_valid"], false, "it is still there");
}
