//! `suspend`, `resume` and `finish` of keys, `actors`, and options that move the end of a key.

use serde_json::json;

use super::Cli;
use crate::rig::check::Check;
use crate::rig::support::{Json, unix_now, unix_seconds};

#[tokio::test(flavor = "multi_thread")]
async fn everything_of_a_customer_is_stopped_until_monday_by_one_command() {
    let cli = Cli::start().await;
    let mut keys = vec![cli.talos.import("legacy-key-0123456789", json!({ "actor_id": "customer:7" })).await];
    for _ in 0..5 {
        keys.push(cli.talos.issue(json!({ "actor_id": "customer:7" })).await);
    }
    let monday =
        (time::OffsetDateTime::now_utc() + time::Duration::DAY).date().next_occurrence(time::Weekday::Monday);
    let monday = monday.to_string();
    let reason = "invoice 7 is open";
    let words = ["actors", "suspend", "customer:7", "--until", &monday, "--reason", reason, "-o", "json"];
    let suspended = cli.run(&words).await.json();
    assert_eq!(suspended.text("/suspension/until"), format!("{monday}T00:00:00Z"));
    assert_eq!(suspended.text("/suspension/reason"), reason);
    for key in &keys {
        let denied = cli.talos.check(Check::bearer(&key.secret)).await.denied(401);
        assert_eq!(denied.fact("reason"), Some(json!("suspended")));
    }
    let shown = cli.run(&["actors", "get", "customer:7"]).await.expect(0);
    assert!(shown.field("SUSPENDED").ends_with(reason), "{shown:#?}");
    assert_eq!((shown.field("ISSUED KEYS"), shown.field("IMPORTED KEYS")), ("5", "1"));
    let key = cli.run(&["keys", "issued", "get", &keys[1].id]).await.expect(0);
    assert!(key.field("ACTOR SUSPENDED").contains(&monday) && key.field("STATUS") == "ACTIVE", "{key:#?}");
    cli.run(&["actors", "resume", "customer:7"]).await.expect(0);
    for key in &keys {
        cli.talos.check(Check::bearer(&key.secret)).await.allowed();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_suspended_prolonged_and_its_grace_ended() {
    let cli = Cli::start().await;
    let key = cli.talos.issue(json!({})).await;
    let imported = cli.talos.import("legacy-key-0123456789", json!({})).await;
    for (kind, id) in [("issued", &key.id), ("imported", &imported.id)] {
        let words = ["keys", kind, "suspend", id, "--until", "72h", "--reason", "theft", "-o", "json"];
        let suspended = cli.run(&words).await.json();
        let left = unix_seconds(suspended.text("/suspension/until")) - unix_now();
        assert!((259_000.0..=259_201.0).contains(&left), "{left}");
        let resumed = cli.run(&["keys", kind, "resume", id, "-o", "json"]).await.json();
        assert_eq!(resumed.get("suspension"), None);
    }
    cli.run(&["keys", "issued", "suspend", &key.id, "--until", "someday"]).await.expect(64);
    cli.run(&["keys", "issued", "finish", &key.id]).await.expect(1);
    let prolonged =
        cli.run(&["keys", "issued", "update", &key.id, "--ttl", "48h", "-o", "json"]).await.json();
    let left = unix_seconds(prolonged.text("/expire_time")) - unix_now();
    assert!((172_000.0..=172_801.0).contains(&left), "{left}");
    let date = (time::OffsetDateTime::now_utc() + time::Duration::days(30)).date().to_string();
    let words = ["keys", "issued", "update", &key.id, "--expire-time", &date, "-o", "json"];
    assert_eq!(cli.run(&words).await.json().text("/expire_time"), format!("{date}T00:00:00Z"));
    let rotate = ["keys", "issued", "rotate", &key.id, "--grace-period", "1h", "--ttl", "2h", "-o", "json"];
    let rotated = cli.run(&rotate).await.json();
    assert_eq!(rotated.text("/old_issued_api_key/status"), "KEY_STATUS_ACTIVE");
    let finished = cli.run(&["keys", "issued", "finish", &key.id]).await.expect(0);
    assert_eq!(finished.field("STATUS"), "REVOKED");
    let again = cli.run(&["keys", "revoke", &key.id, "--reason", "key_compromise"]).await.expect(0);
    assert!(again.stderr.contains("REVOCATION_REASON_SUPERSEDED"), "{again:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_has_a_name_and_metadata() {
    let cli = Cli::start().await;
    let actor = "user/2 %2F";
    let words = [
        "actors",
        "update",
        actor,
        "--display-name",
        "Ada",
        "--metadata",
        "{\"plan\":\"gold\"}",
        "-o",
        "json",
    ];
    let updated = cli.run(&words).await.json();
    assert_eq!((updated.text("/actor_id"), updated.text("/metadata/plan")), (actor, "gold"));
    let words = ["actors", "update", actor, "--metadata", "{}", "-o", "json"];
    let cleared = cli.run(&words).await.json();
    assert_eq!((cleared.get("metadata"), cleared.text("/display_name")), (None, "Ada"));
    cli.run(&["actors", "update", actor]).await.expect(64);
}
