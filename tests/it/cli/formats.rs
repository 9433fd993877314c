//! `--format` and what may reach a terminal.

use serde_json::json;

use super::Cli;

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_answer_in_every_language() {
    let cli = Cli::start().await;
    let key =
        cli.talos.issue(json!({ "name": "n 1", "scopes": ["a", "b"], "metadata": { "level": 3 } })).await;
    for (format, printed) in [
        ("jsonpath=$.name", "n 1\n"),
        ("jsonpath={.name}", "n 1\n"),
        ("jsonpath=.scopes[1]", "b\n"),
        ("jsonpath=scopes.0", "a\n"),
        ("jsonpath=scopes.#", "2\n"),
        ("jsonpath=$.scopes[*]", "a\nb\n"),
        ("jsonpath=$.scopes", "[\"a\",\"b\"]\n"),
        ("jsonpath=metadata.level", "3\n"),
        ("jsonpointer=/metadata/level", "3\n"),
    ] {
        let ran = cli.run(&["keys", "issued", "get", &key.id, "--format", format]).await;
        assert_eq!(ran.ok(), printed, "{format}");
    }
    // A path without a value is no error, as fields are optional; a note on stderr says so.
    let ran = cli.run(&["keys", "issued", "get", &key.id, "--format", "jsonpath=last_used"]).await.expect(0);
    assert_eq!(ran.stdout, "");
    assert!(ran.stderr.contains("nothing"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn yaml_is_the_same_document() {
    let cli = Cli::start().await;
    let key = cli.talos.issue(json!({ "name": "yes: no", "scopes": ["a"] })).await;
    let yaml = cli.run(&["keys", "issued", "get", &key.id, "--format", "yaml"]).await.ok();
    let parsed: serde_json::Value = serde_norway::from_str(&yaml).unwrap_or_default();
    assert_eq!(parsed, key.resource, "{yaml}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_holds_no_control_characters() {
    let cli = Cli::start().await;
    // Names can't have them, metadata can.
    let hostile = "\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}\u{200b}\u{e0041}";
    let key = cli.talos.issue(json!({ "metadata": { "m": hostile } })).await;
    let ran = cli.run(&["keys", "issued", "get", &key.id]).await.expect(0);
    assert!(ran.stdout.contains("owned"), "{}", ran.stdout);
    assert!(!ran.stdout.contains(|c: char| c.is_control() && c != '\n'), "{:?}", ran.stdout);
    assert!(!ran.stdout.contains(['\u{202e}', '\u{200b}', '\u{e0041}']), "{:?}", ran.stdout);
    // A script gets what is there.
    let ran = cli.run(&["keys", "issued", "get", &key.id, "--format", "jsonpath=metadata.m"]).await;
    assert_eq!(ran.ok(), format!("{hostile}\n"));
}

/// Actors that look alike are printed in different ways.
#[tokio::test(flavor = "multi_thread")]
async fn different_actors_are_different_lines_of_a_table() {
    let cli = Cli::start().await;
    let actors = ["alice", "ali\u{200b}ce", "ali\\u{200b}ce", "alice\u{e0020}", "\u{202e}ecila", "-", "\\-"];
    for actor in actors {
        cli.talos.issue(json!({ "actor_id": actor, "name": "n" })).await;
    }
    let table = cli.line("keys issued list").await.ok();
    assert!(table.is_ascii(), "{table:?}");
    let shown: std::collections::BTreeSet<&str> =
        table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(shown.len(), actors.len(), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_a_table_can_be_cut_by_awk() {
    let cli = Cli::start().await;
    for name in ["one", "a-much-longer-name-than-the-other"] {
        cli.talos.issue(json!({ "name": name })).await;
    }
    let table = cli.line("keys issued list").await.ok();
    for line in table.lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((words.len(), words[4], words[6]), (7, "-", "-"), "{line}");
        assert!(!line.starts_with(' ') && !line.ends_with(' '), "{line:?}");
    }
}
