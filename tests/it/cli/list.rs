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
    // What isn't a terminal gets everything.
    assert_eq!(lines[2], [second.as_str(), "second", "alice", "ACTIVE", "-"]);
    let wide = cli.line("keys list --wide").await.ok();
    assert!(wide.contains("IMPORTED") && wide.contains(keys.text("/api_keys/0/create_time")), "{wide}");
}
