//! The deny list: a file refuses keys and their tokens, whatever the state of the database.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::rig::check::Check;
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{Key, Setup, Talos};

const DENY_FILE: &str = "TALOS_CONSISTENCY_DENY_FILE";

/// A setup with a deny file that holds `text`.
fn with_deny_file(text: &str) -> (Setup, PathBuf) {
    let setup = Setup::new();
    let path = setup.path("deny.txt");
    fs::write(&path, text).must("writing the deny file");
    (setup.set(DENY_FILE, &path.to_string_lossy()), path)
}

/// A key and what was derived from it.
async fn credentials(talos: &Talos, key: &Key) -> [String; 3] {
    let jwt = talos.derive(key, json!({})).await;
    let macaroon = talos.derive(key, json!({ "algorithm": "TOKEN_ALGORITHM_MACAROON" })).await;
    [key.secret.clone(), jwt, macaroon]
}

/// The HTTP status that Envoy would answer with; 200 when it lets the request pass.
async fn check(talos: &Talos, credential: &str) -> i32 {
    let verdict = talos.check(Check::bearer(credential)).await;
    [200, 401, 503].into_iter().find(|status| verdict.is(*status)).must(&format!("{verdict:?}"))
}

async fn until_checked_as(talos: &Talos, credential: &str, status: i32) {
    let what = format!("{credential} is {status}");
    until(&what, async || (check(talos, credential).await == status).then_some(())).await;
}

async fn until_log_says(talos: &Talos, what: &str) {
    until(&format!("the log says {what}"), async || talos.process.log().contains(what).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_readable_list_it_does_not_start() {
    let (setup, path) = with_deny_file("# fine\n\nnonsense\n");
    let output = setup.refused().await;
    assert!(output.contains("consistency.deny_file") && output.contains("line 3"), "{output}");
    assert!(!output.contains("nonsense"), "a secret may have been put there: {output}");
    fs::remove_file(&path).must("removing the deny file");
    let output = setup.refused().await;
    assert!(output.contains("consistency.deny_file") && output.contains("deny.txt"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_and_all_that_was_derived_from_it_are_refused_as_long_as_it_is_named() {
    let (setup, path) = with_deny_file("");
    let talos = setup.start().await;
    let (key, other) = (talos.issue(json!({})).await, talos.issue(json!({})).await);
    let imported = talos.import("legacy-0123456789", json!({})).await;
    let mut all = credentials(&talos, &key).await.to_vec();
    all.push(imported.secret.clone());
    for credential in all.iter().chain([&other.secret]) {
        assert_eq!(check(&talos, credential).await, 200);
    }

    fs::write(&path, format!("# stolen\n{}\n{}\n", key.id, imported.id)).must("writing the deny file");
    for credential in &all {
        until_checked_as(&talos, credential, 401).await;
        let verified = talos.verify(credential).await;
        assert_eq!(verified["is_valid"], false, "{verified:#}");
        assert_eq!(verified.text("/error_code"), "VERIFICATION_ERROR_REVOKED");
    }
    assert_eq!(check(&talos, &other.secret).await, 200, "nobody else");
    assert_eq!(talos.metric("talos_deny_list_entries").await, 2.0);
    let body = json!({ "credential": key.secret });
    talos.admin.post(crate::rig::talos::DERIVE, &body).await.expect_error(401, "API_KEY_REVOKED");

    // Replaces the file by another, as editors and deployments do.
    let new = setup.path("deny.new");
    fs::write(&new, format!("{}\n", imported.id)).must("writing a new deny file");
    fs::rename(&new, &path).must("renaming it");
    for credential in &all[..3] {
        until_checked_as(&talos, credential, 200).await;
    }
    assert_eq!(check(&talos, &imported.secret).await, 401);

    // The holder of a denied key can still revoke it.
    talos.self_revoke(&imported.secret).await.expect(200);
    fs::write(&path, "").must("writing the deny file");
    until("the list is empty", async || (talos.metric("talos_deny_list_entries").await == 0.0).then_some(()))
        .await;
    assert_eq!(talos.verify(&imported.secret).await.text("/status"), "KEY_STATUS_REVOKED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_no_good_or_gone_leaves_the_last_one_in_force() {
    let (setup, path) = with_deny_file("");
    let talos = setup.start().await;
    let key = talos.issue(json!({})).await;
    fs::write(&path, &key.id).must("writing the deny file");
    until_checked_as(&talos, &key.secret, 401).await;
    let current = async |value: f64| {
        until("the metric", async || (talos.metric("talos_deny_list_current").await == value).then_some(()))
            .await;
    };
    current(1.0).await;

    fs::write(&path, "\nnonsense\n").must("writing the deny file");
    until_log_says(&talos, "not a key id in line 2").await;
    current(0.0).await;
    assert_eq!(check(&talos, &key.secret).await, 401);

    fs::remove_file(&path).must("removing the deny file");
    until_log_says(&talos, "No such file").await;
    assert_eq!(check(&talos, &key.secret).await, 401);

    fs::write(&path, "# all is well\n").must("writing the deny file");
    until_checked_as(&talos, &key.secret, 200).await;
    current(1.0).await;
    assert!(!talos.process.log().contains("nonsense"), "what stands there is not repeated");
}

/// Writes an empty file, however the list was before.
fn empty(path: &Path) {
    fs::write(path, "").must("emptying the deny file");
}

/// Does something to a list. Gets its path and the ids that it names.
type Accident = fn(&Path, &[&str]);

/// Ways in which a list loses keys by accident.
const ACCIDENTS: [(&str, Accident); 5] = [
    ("truncated in place, as by `grep -v ID list > list`", |path, _| empty(path)),
    ("half of it written over it", |path, ids| {
        fs::write(path, ids[..ids.len() / 2].join("\n")).must("writing half of the deny file");
    }),
    ("an empty file renamed over it", |path, _| {
        let other = path.with_extension("other");
        empty(&other);
        fs::rename(&other, path).must("renaming an empty file");
    }),
    ("removed and made anew", |path, _| {
        fs::remove_file(path).must("removing the deny file");
        empty(path);
    }),
    ("another list of the same length in its place", |path, ids| {
        let others = ids.iter().map(|_| uuid::Uuid::new_v4().to_string());
        fs::write(path, others.collect::<Vec<_>>().join("\n")).must("writing another deny file");
    }),
];

/// Time for which a list that lost many keys must stay unchanged.
const SECOND_LOOK: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_loses_many_keys_is_believed_after_a_second_look_only() {
    join_all(ACCIDENTS.map(|(accident, happen)| async move {
        let (setup, path) = with_deny_file("");
        let talos = setup.start().await;
        let (key, late) = (talos.issue(json!({})).await, talos.issue(json!({})).await);
        // The key is the last: what is written of the list first doesn't name it.
        let others: Vec<String> = (0..9).map(|_| uuid::Uuid::new_v4().to_string()).collect();
        let ids: Vec<&str> = others.iter().chain([&key.id]).map(String::as_str).collect();
        fs::write(&path, ids.join("\n")).must("writing the deny file");
        until_checked_as(&talos, &key.secret, 401).await;

        let began = Instant::now();
        happen(&path, &ids);
        let status = until(&format!("{accident}: it is noticed"), async || {
            let status = talos.metrics.get("/status").await.expect(200).json();
            status.pointer("/deny_list/held").is_some().then_some(status)
        })
        .await;
        assert!(status.at("/deny_list/held").as_u64().must("held") >= 5, "{accident}: {status:#}");
        assert_eq!(status.at("/deny_list/current"), false, "{accident}");
        let problems = status.texts("/problems");
        assert!(problems.iter().any(|problem| problem.contains("no longer names")), "{accident}: {status:#}");
        assert!(talos.metric("talos_deny_list_held").await >= 5.0, "{accident}");
        until_log_says(&talos, "far fewer keys than are refused").await;

        // A key added meanwhile is refused at once, and the list counts as unchanged only from
        // then on.
        let more = fs::read_to_string(&path).must("reading the deny file") + "\n" + &late.id;
        fs::write(&path, more).must("adding to the deny file");
        until_checked_as(&talos, &late.secret, 401).await;
        assert!(check(&talos, &key.secret).await == 401 || began.elapsed() > SECOND_LOOK, "{accident}");

        until_checked_as(&talos, &key.secret, 200).await;
        let elapsed = began.elapsed();
        assert!(elapsed > SECOND_LOOK, "{accident}: lifted after {elapsed:?}");
        assert_eq!(check(&talos, &late.secret).await, 401, "{accident}: it is named");
        let status = talos.metrics.get("/status").await.expect(200).json();
        assert_eq!(status.at("/deny_list/current"), true, "{accident}: {status:#}");
        let problems = status.texts("/problems");
        assert!(problems.iter().any(|problem| problem.contains("shrank from")), "{accident}: {status:#}");
        assert!(talos.metric("talos_deny_list_lifted_total").await >= 5.0, "{accident}");
        until_log_says(&talos, "a far shorter deny list is in force").await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_made_whole_again_has_lifted_nothing() {
    let (setup, path) = with_deny_file("");
    let talos = setup.start().await;
    let key = talos.issue(json!({})).await;
    fs::write(&path, &key.id).must("writing the deny file");
    until_checked_as(&talos, &key.secret, 401).await;
    empty(&path);
    let held = async |keys: f64| {
        until("the keys held", async || (talos.metric("talos_deny_list_held").await == keys).then_some(()))
            .await;
    };
    held(1.0).await;
    fs::write(&path, &key.id).must("writing the deny file");
    held(0.0).await;
    assert_eq!(talos.metric("talos_deny_list_current").await, 1.0);
    assert_eq!(talos.metric("talos_deny_list_lifted_total").await, 0.0);
    assert_eq!(check(&talos, &key.secret).await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deny_file_needs_no_database() {
    let (setup, path) = with_deny_file("");
    let setup = setup.set("TALOS_CONSISTENCY_LEASE", "2s");
    let talos = setup.start().await;
    let (known, kept, unknown) =
        (talos.issue(json!({})).await, talos.issue(json!({})).await, talos.issue(json!({})).await);
    let all = credentials(&talos, &known).await;
    for credential in all.iter().chain([&kept.secret]) {
        assert_eq!(check(&talos, credential).await, 200);
    }
    setup.break_database();
    until_checked_as(&talos, &unknown.secret, 503).await;

    fs::write(&path, format!("{}\n{}\n", known.id, unknown.id)).must("writing the deny file");
    for credential in all.iter().chain([&unknown.secret]) {
        until_checked_as(&talos, credential, 401).await;
    }
    until_checked_as(&talos, &kept.secret, 200).await;
}
