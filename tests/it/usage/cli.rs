//! `talos usage`: what an operator asks.

use serde_json::{Value, json};

use super::{counted, setup};
use crate::cli::Cli;
use crate::rig::check::Check;
use crate::rig::support::Json;

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_users_are_listed_first() {
    let cli = Cli::on(setup()).await;
    for (actor, count) in [("user:1", 2), ("a, \"b\"", 5), ("user:3", 1)] {
        let key = cli.talos.issue(json!({ "actor_id": actor })).await;
        for _ in 0..count {
            cli.talos.check(Check::bearer(&key.secret)).await.allowed();
        }
    }
    counted(&cli.talos, "", 8).await;
    let shown = cli.line("usage report --since 7d --group-by actor --limit 2").await.expect(0);
    let lines: Vec<&str> = shown.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{}", shown.stdout);
    assert!(lines[0].starts_with("ACTOR") && lines[0].ends_with("COUNT"), "{}", shown.stdout);
    assert!(lines[1].starts_with("a, \"b\"") && lines[1].ends_with('5'), "{}", shown.stdout);
    assert!(lines[2].starts_with("user:1") && lines[2].ends_with('2'), "{}", shown.stdout);

    let csv = cli.line("usage export --since 7d --group-by actor,outcome").await.expect(0).stdout;
    let expected = "actor_id,outcome,count\n\"a, \"\"b\"\"\",allow,5\nuser:1,allow,2\nuser:3,allow,1\n";
    assert_eq!(csv, expected);
    let first = cli.line("usage export --group-by actor --limit 1 --format csv").await.expect(0).stdout;
    assert_eq!(first, "actor_id,count\n\"a, \"\"b\"\"\",5\n");
    let filtered = cli.line("usage report --actor user:3 --outcome allow --group-by key --format json").await;
    let report = filtered.expect(0).json();
    assert_eq!(report.at("/rows/0/count"), &json!(1));
    assert!(report.text("/rows/0/last_used_time") <= report.text("/end_time"), "{report}");
    cli.line("usage report --group-by week").await.expect(64);
    cli.line("usage report --since yesterday").await.expect(64);
}

#[tokio::test(flavor = "multi_thread")]
async fn unused_keys_are_listed_by_actor() {
    let cli = Cli::on(setup().set("TALOS_LAST_USED_FLUSH_INTERVAL", "50ms")).await;
    let new = cli.talos.issue(json!({ "actor_id": "a" })).await;
    let old = [
        cli.talos.issue(json!({ "actor_id": "b", "name": "never used" })).await,
        cli.talos.issue(json!({ "actor_id": "a", "name": "used long ago" })).await,
        cli.talos.import("legacy-key", json!({ "actor_id": "c" })).await,
    ];
    let (used, revoked) = (cli.talos.issue(json!({})).await, cli.talos.issue(json!({})).await);
    cli.talos.revoke(&revoked).await;
    let day = 24 * 60 * 60 * 1_000_000_i64;
    for key in old.iter().chain([&used, &revoked]) {
        let age = 100 * day;
        let set = format!("UPDATE api_keys SET created_at = created_at - {age} WHERE key_id = '{}'", key.id);
        cli.talos.setup.sql(&set);
    }
    let used_then =
        format!("UPDATE api_keys SET last_used_at = created_at + {day} WHERE key_id = '{}'", old[1].id);
    cli.talos.setup.sql(&used_then);
    let used_now = format!("UPDATE api_keys SET last_used_at = updated_at WHERE key_id = '{}'", used.id);
    cli.talos.setup.sql(&used_now);
    let report = cli.line("usage report --unused 90d --format json").await.expect(0).json();
    let found: Vec<(&str, &str)> = report["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row: &Value| (row.text("/actor_id"), row.text("/key_id")))
        .collect();
    assert_eq!(found, [("a", &*old[1].id), ("b", &*old[0].id), ("c", &*old[2].id)]);
    assert!(!found.iter().any(|(_, id)| *id == new.id));
    let shown = cli.line("usage report --unused 90d --actor b").await.expect(0).stdout;
    assert!(shown.contains("never used") && shown.lines().count() == 2, "{shown}");
}
