//! The audit log of a real process: its content, the detection of changes to it, and failures to
//! write it.

mod complete;
mod confirmed;
mod failing;
mod kill;
mod lines;
mod outside;
mod restored;
mod rotated;
mod tamper;

use std::path::PathBuf;

use serde_json::Value;

use crate::rig::support::{Json, Must};
use crate::rig::talos::Setup;

pub const KEY: &str = "an-audit-key-for-the-tests-only-0123456789";

/// With an audit log.
fn audited() -> Setup {
    let setup = Setup::new();
    std::fs::create_dir(setup.path("audit")).must("a directory for the log");
    let file = file(&setup);
    setup.set("TALOS_AUDIT_FILE", &file.display().to_string()).set("TALOS_AUDIT_KEY", KEY)
}

fn file(setup: &Setup) -> PathBuf {
    setup.path("audit/audit.jsonl")
}

/// The whole lines of a log.
fn read(setup: &Setup) -> Vec<Value> {
    let text = std::fs::read_to_string(file(setup)).must("reading the log");
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).must(line)).collect()
}

/// The lines of calls, without those of the log itself.
fn calls(setup: &Setup) -> Vec<Value> {
    read(setup).into_iter().filter(|line| line.text("/kind") != "begin").collect()
}

/// The log's findings, and whether it is whole.
async fn verify(setup: &Setup, files: &[&str]) -> (bool, Value) {
    let arguments: Vec<&str> = ["audit", "verify", "--format", "json"].iter().chain(files).copied().collect();
    let output = setup.run(&arguments).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let findings: Value = serde_json::from_str(&text).must(&format!("{text}{errors}"));
    let code = output.status.code().must("an exit code");
    assert_eq!(findings["ok"] == true, code == 0, "exit code {code}: {findings:#}");
    (code == 0, findings)
}

/// Asserts that the log is whole; gives what was found.
async fn whole(setup: &Setup) -> Value {
    let (ok, findings) = verify(setup, &["audit/audit.jsonl"]).await;
    assert!(ok, "{findings:#}");
    findings.at("/chains/0").clone()
}
