//! `keys list`: keys of both kinds.

use serde_json::json;

use super::Cli;
use crate::rig::support::Json;

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_both_kinds_are_one_list_with_the_newest_first() {
    let cli = Cli::start().await;
    let first = cli.talos.issue(json!({ "name": "first", "actor_id": "alice" })).await.id;
    let import = ["keys", "imported", "import", "second", "--actor", "alice", "--raw-key", "sk_live_1", "-q"];
    let second = cli.run(&import).await.ok().trim_end().to_owned();
    let third = cli.talos.issue(json!({ "name": "third", "actor_id": "bob" })).await.id;
    for (options, wanted) in [
        (vec![], vec![&third, &second, &first]),
        (vec!["--limit", "2"], vec![&third, &second]),
        (vec!["--limit", "1"], vec![&third]),
        (vec!["--all", "--actor", "alice"], vec![&second, &first]),
        (vec!["--status", "revoked"], vec![]),
    ] {
        let arguments: Vec<&str> = ["keys", "list", "-q"].into_iter().chain(options).collect();
        let ids = cli.run(&arguments).await.ok();
        assert_eq!(ids.lines().collect::<Vec<_>>(), wanted, "{arguments:?}");
    }

    let keys = cli.line("keys list --all -o json").await.json();
    let kinds: Vec<&str> =
        ["/api_keys/0/kind", "/api_keys/1/kind", "/api_keys/2/kind"].map(|at| keys.text(at)).into();
    assert_eq!(kinds, ["ISSUED", "IMPORTED", "ISSUED"]);

    let table = cli.line("keys list --limit 2").await.expect(0);
    assert!(table.stderr.contains("--all"), "{}", table.stderr);
    let lines: Vec<Vec<&str>> = table.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["KEY", "ID", "NAME", "ACTOR", "STATUS", "LAST", "USED"]);
    // Output that isn't a terminal has all columns in full.
    assert_eq!(lines[2], [second.as_str(), "second", "alice", "ACTIVE", "-"]);
    let wide = cli.line("keys list --wide").await.ok();
    assert!(wide.contains("IMPORTED") && wide.contains(keys.text("/api_keys/0/create_time")), "{wide}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_both_kinds_are_found_and_ordered_together() {
    let cli = Cli::start().await;
    let blue = json!({ "team": "blue" });
    let issue = async |name: &str, ttl: &str, metadata: serde_json::Value| {
        let fields = json!({ "name": name, "ttl": ttl, "scopes": ["orders:read"], "metadata": metadata });
        cli.talos.issue(fields).await.id
    };
    let late = issue("back end", "40d", blue).await;
    let soon = issue("backup", "10d", json!({ "team": "red" })).await;
    let import = "keys imported import backlog --actor user:7 --raw-key sk_live_1 --ttl 20d -q";
    let imported = cli.line(import).await.ok().trim_end().to_owned();
    for (options, wanted) in [
        (vec!["--order-by", "expire_time"], vec![&soon, &imported, &late]),
        (vec!["--order-by", "expire_time desc"], vec![&late, &imported, &soon]),
        (vec!["--order-by", "expire_time", "--limit", "2"], vec![&soon, &imported]),
        (vec!["--query", "USER:7"], vec![&imported]),
        (vec!["--query", "blu"], vec![&late]),
        (vec!["--name", "BACK"], vec![&imported, &soon, &late]),
        (vec!["--name", "back "], vec![&late]),
        (vec!["--scope", "orders:read", "--metadata", "team=red"], vec![&soon]),
        (vec!["--expires-before", "15d"], vec![&soon]),
        (vec!["--expires-after", "15d", "--name", "back "], vec![&late]),
        (vec!["--created-before", "1h"], vec![]),
        (vec!["--created-after", "1h"], vec![&imported, &soon, &late]),
        (vec!["--unused", "1h"], vec![]),
        (vec!["--used-before", "1h", "--query", "backu"], vec![&soon]),
        (vec!["--filter", "expire_time = never"], vec![]),
    ] {
        let arguments: Vec<&str> = ["keys", "list", "-q"].into_iter().chain(options).collect();
        let ids = cli.run(&arguments).await.ok();
        assert_eq!(ids.lines().collect::<Vec<_>>(), wanted, "{arguments:?}");
    }
    let counted = cli.line("keys issued list --name back --page-size 1 --total").await.expect(0);
    assert!(counted.stderr.contains("2 keys in all"), "{}", counted.stderr);
    let refused = cli.line("keys list --order-by name").await.expect(64);
    assert!(refused.stderr.contains("create_time"), "{}", refused.stderr);
}
