//! Each way to change the file of an audit log is detected.

use serde_json::{Value, json};

use super::{audited, file, verify};
use crate::rig::support::{Json, Must};
use crate::rig::talos::Setup;

/// A log of a few calls, and an older copy of it.
async fn written(setup: &Setup) -> (String, String) {
    let talos = setup.start().await;
    let read = || std::fs::read_to_string(file(setup)).must("the log");
    talos.issue(json!({ "actor_id": "alice" })).await;
    talos.issue(json!({ "actor_id": "bob" })).await;
    let older = read();
    talos.issue(json!({ "actor_id": "carol" })).await;
    talos.stop().await;
    (older, read())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_found() {
    let setup = audited();
    let (older, log) = written(&setup).await;
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 7);
    let joined = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let without = |at: usize| {
        let mut left = lines.clone();
        left.remove(at);
        joined(&left)
    };
    let swapped = |a: usize, b: usize| {
        let mut lines = lines.clone();
        lines.swap(a, b);
        joined(&lines)
    };
    let twice = joined(&[&lines[..3], &lines[2..]].concat());
    let forged = lines[6].replace("\"seq\":7", "\"seq\":8");
    let cases: Vec<(&str, String, &str)> = vec![
        ("an actor's name", log.replace("\"bob\"", "\"eve\""), "was changed"),
        ("one character of a time", log.replacen("\"time\":\"2", "\"time\":\"1", 1), "was changed"),
        ("a MAC", change_mac(&log, 3), "was changed"),
        ("the first line out", without(0), "lines are missing before it"),
        ("an intent out", without(3), "is missing before it"),
        ("the last line out", without(6), "missing at the end"),
        ("two off the end", joined(&lines[..5]), "missing at the end"),
        ("all out", String::new(), "missing"),
        ("cut in the midst of the last line", log[..log.len() - 9].to_owned(), "missing at the end"),
        ("two swapped", swapped(3, 4), "missing before it"),
        ("the last two swapped", swapped(5, 6), "missing before it"),
        ("a line twice", twice, "has its place before"),
        ("a line appended", format!("{log}{forged}\n"), "comes from elsewhere"),
        ("something appended", format!("{log}hello\n"), "is not a line"),
        ("an older copy", older, "missing at the end"),
        ("not text", format!("{log}\u{1}\n"), "is not a line"),
    ];
    for (what, text, expected) in cases {
        assert_ne!(text, log, "{what}: nothing was changed");
        std::fs::write(file(&setup), &text).must("changing the log");
        let (ok, findings) = verify(&setup, &["audit/audit.jsonl"]).await;
        assert!(!ok, "{what}: not found: {findings:#}");
        let problems = findings.at("/chains/0/problems").to_string();
        assert!(problems.contains(expected), "{what}: {findings:#}");
    }
    std::fs::write(file(&setup), &log).must("putting the log back");
    assert!(verify(&setup, &["audit/audit.jsonl"]).await.0);
}

/// Another MAC on one line.
fn change_mac(log: &str, at: usize) -> String {
    let change = |(number, line): (usize, &str)| {
        let mut line = line.to_owned();
        if number == at {
            let digit = line.len() - 3;
            let other = if line.as_bytes()[digit] == b'0' { "1" } else { "0" };
            line.replace_range(digit..=digit, other);
        }
        line + "\n"
    };
    log.lines().enumerate().map(change).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_without_the_right_key_do_not_verify() {
    let setup = audited();
    let (_, log) = written(&setup).await;
    // Without any key nothing can be said of a keyed log: that is wrong usage.
    let keyless = setup.clone().unset("TALOS_AUDIT_KEY");
    let output = keyless.run(&["audit", "verify", "audit/audit.jsonl"]).await;
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(64) && message.contains("TALOS_AUDIT_KEY"), "{message}");
    let wrong = setup.clone().set("TALOS_AUDIT_KEY", "a-wrong-audit-key-for-the-tests-0123456789");
    assert!(!verify(&wrong, &["audit/audit.jsonl"]).await.0);

    // A log made with another key, and one made with none, in its place.
    for key in ["a-wrong-audit-key-for-the-tests-0123456789", ""] {
        std::fs::remove_file(file(&setup)).must("removing the log");
        written(&setup.clone().set("TALOS_AUDIT_KEY", key)).await;
        let (ok, findings) = verify(&setup, &["audit/audit.jsonl"]).await;
        assert!(!ok, "{findings:#}");
    }
    std::fs::write(file(&setup), &log).must("putting the log back");
    assert!(verify(&setup, &["audit/audit.jsonl", "--part"]).await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_it_says_what_it_could_not_check() {
    let setup = audited();
    let (_, log) = written(&setup).await;
    let cut: String = log.lines().take(5).map(|line| format!("{line}\n")).collect();
    std::fs::write(file(&setup), cut).must("cutting the log");
    let elsewhere = ["audit/audit.jsonl", "--database", "sqlite://nowhere/talos.db"];
    let (ok, findings) = verify(&setup, &elsewhere).await;
    assert!(ok, "{findings:#}");
    assert!(
        findings.text("/chains/0/not_checked/0").contains("missing at the end were not checked for"),
        "{findings:#}"
    );
    // Verifying needs no HMAC secret.
    let (ok, _) = verify(&setup.clone().unset("TALOS_SECRETS_HMAC_CURRENT"), &["audit/audit.jsonl"]).await;
    assert!(!ok);
    // A process that goes on with a log that was cut leaves the gap.
    let talos = setup.start().await;
    talos.issue(json!({})).await;
    talos.stop().await;
    let (ok, findings) = verify(&setup, &["audit/audit.jsonl"]).await;
    assert!(!ok, "{findings:#}");
    let problems: &Value = findings.at("/chains/0/problems");
    assert!(problems.to_string().contains("lines 6 to 7 are missing before it"), "{findings:#}");
}
