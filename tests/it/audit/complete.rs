//! All chains that the database knows are asked for, and all of each.

use serde_json::json;

use super::{audited, file, verify};
use crate::rig::support::{Json, Must};

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_is_left_out_is_missed() {
    let setup = audited();
    let (one, two) = (setup.start().await, setup.start().await);
    one.issue(json!({})).await;
    two.issue(json!({})).await;
    one.stop().await;
    two.stop().await;
    let (first, second) = ("audit/audit.jsonl", "audit/audit.jsonl.2");
    assert!(verify(&setup, &[first, second]).await.0);
    for left in [first, second] {
        let (ok, findings) = verify(&setup, &[left]).await;
        assert!(!ok, "{findings:#}");
        let problem = findings.text("/chains/1/problems/0");
        assert!(problem.contains("is in none of these files") && problem.contains(":/"), "{findings:#}");
        assert!(verify(&setup, &[left, "--only"]).await.0);
        assert!(verify(&setup, &[left, "--part"]).await.0);
    }
    // An empty file is no log, whatever its name is.
    std::fs::write(setup.path("empty"), "").must("an empty file");
    let (ok, findings) = verify(&setup, &["empty"]).await;
    assert!(!ok, "{findings:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_the_database_does_not_know_is_not_accepted() {
    let (setup, elsewhere) = (audited(), audited());
    for setup in [&setup, &elsewhere] {
        let talos = setup.start().await;
        talos.issue(json!({})).await;
        talos.stop().await;
    }
    std::fs::copy(file(&elsewhere), setup.path("foreign")).must("copying a log");
    for files in [vec!["audit/audit.jsonl", "foreign"], vec!["audit/audit.jsonl", "foreign", "--only"]] {
        let (ok, findings) = verify(&setup, &files).await;
        assert!(!ok, "{findings:#}");
        let problems = findings.at("/chains").to_string();
        assert!(
            problems.contains("the database has no record of this chain: it was restored"),
            "{findings:#}"
        );
    }
    assert!(verify(&setup, &["foreign", "--part"]).await.0);
    // Lines without the one that names their chain.
    let text = std::fs::read_to_string(file(&setup)).must("the log");
    let unnamed: String = text.lines().skip(1).map(|line| format!("{line}\n")).collect();
    std::fs::write(setup.path("unnamed"), unnamed).must("a file");
    let (ok, findings) = verify(&setup, &["unnamed"]).await;
    assert!(!ok, "{findings:#}");
}
