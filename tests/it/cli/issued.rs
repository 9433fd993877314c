//! `keys issue`, `keys issued …`, `keys revoke`, `keys self-revoke`.

use serde_json::{Value, json};

use super::Cli;
use crate::rig::support::{Json, unix_seconds};
use crate::rig::talos::{ISSUED, Setup};

#[tokio::test(flavor = "multi_thread")]
async fn every_option_of_issue_gets_to_the_server() {
    let cli = Cli::on(Setup::new().set("TALOS_CREDENTIALS_API_KEYS_PREFIX_PUBLIC_CURRENT", "pk")).await;
    let answer = cli
        .run(&[
            "keys",
            "issue",
            "my backend",
            "--actor",
            "user:42",
            "--scopes",
            "b:read, a:*",
            "--ttl",
            "1d 12h",
            "--metadata",
            r#"{"team":"blue","n":1}"#,
            "--allowed-cidrs",
            "10.0.0.0/8,2001:db8::/32",
            "--rate-limit-quota",
            "100",
            "--rate-limit-window",
            "1m",
            "--visibility",
            "public",
            "--request-id",
            "deploy-7",
            "--format",
            "json",
        ])
        .await
        .json();
    let key = answer.at("/issued_api_key");
    assert_eq!(key.text("/name"), "my backend");
    assert_eq!(key.text("/actor_id"), "user:42");
    assert_eq!(key.texts("/scopes"), ["b:read", "a:*"]);
    assert_eq!(key.at("/metadata"), &json!({ "team": "blue", "n": 1 }));
    assert_eq!(key.texts("/ip_restriction/allowed_cidrs"), ["10.0.0.0/8", "2001:db8::/32"]);
    assert_eq!(key.at("/rate_limit_policy"), &json!({ "quota": "100", "unit": "requests", "window": "60s" }));
    assert_eq!(key.text("/visibility"), "KEY_VISIBILITY_PUBLIC");
    let life = unix_seconds(key.text("/expire_time")) - unix_seconds(key.text("/create_time"));
    assert!((life - 36.0 * 3600.0).abs() < 1.0, "{life}");
    assert!(answer.text("/secret").starts_with("pk_v1_"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_lives_a_day_by_default() {
    let cli = Cli::start().await;
    let key = cli.line("keys issue a --actor a --format json").await.json();
    let key = key.at("/issued_api_key");
    let life = unix_seconds(key.text("/expire_time")) - unix_seconds(key.text("/create_time"));
    assert!((life - 86_400.0).abs() < 1.0, "{life}");
    let key = cli.line("keys issued issue a --actor a --ttl 0 --format json").await.json();
    assert_eq!(key.at("/issued_api_key").get("expire_time"), None, "the server's default is none");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_is_captured_or_shown_once() {
    let cli = Cli::start().await;
    let once = ["keys", "issue", "ci", "--actor", "ci", "--request-id", "r-1", "-q"];
    let first = cli.run(&once).await.expect(0);
    let secret = first.stdout.trim_end().to_owned();
    assert_eq!(first.stdout, format!("{secret}\n"));
    assert_eq!(first.stderr, "");
    assert_eq!(cli.talos.verify(&secret).await["is_valid"], true);

    // A script must not go on with an empty secret.
    let again = cli.run(&once).await.expect(1);
    assert_eq!(again.stdout, "");
    assert!(again.stderr.contains("only once"), "{}", again.stderr);

    let shown = cli.line("keys issue ci --actor ci --scopes a,b").await.expect(0);
    assert_eq!(cli.talos.verify(shown.field("SECRET")).await["is_valid"], true);
    assert_eq!(shown.field("SCOPES"), "a,b");
    assert_eq!(shown.field("STATUS"), "ACTIVE");
    assert!(shown.stderr.contains("only once"), "{}", shown.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn printed_keys_equal_those_of_the_api() {
    let cli = Cli::start().await;
    let key = cli.talos.issue(json!({ "metadata": { "ratio": 2.5, "deep": [{ "a": "ü" }] } })).await;
    let path = format!("{ISSUED}/{}", key.id);
    let api = cli.talos.admin.get(&path).await.expect(200).text();
    let get = async |format| cli.run(&["keys", "issued", "get", &key.id, "--format", format]).await;
    assert_eq!(get("json").await.ok(), format!("{api}\n"));
    assert_eq!(get("json-pretty").await.json(), key.resource);
    let list = cli.line("keys issued list --format json").await.ok();
    assert_eq!(list.trim_end(), cli.talos.admin.get(ISSUED).await.expect(200).text());
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_paged_and_joined() {
    let cli = Cli::start().await;
    let mut ids = vec![];
    for (name, actor) in [("k1", "alice"), ("k2", "alice"), ("k3", r#"bob "the\ b"#), ("k4", "alice")] {
        ids.push(cli.talos.issue(json!({ "name": name, "actor_id": actor })).await.id);
    }
    let revoked = cli.run(&["keys", "revoke", &ids[1], "--reason", "superseded"]).await.expect(0);
    assert_eq!(
        (revoked.stdout.as_str(), revoked.stderr.as_str()),
        ("", format!("revoked {}\n", ids[1]).as_str())
    );

    let lines = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let sorted = |wanted: &[usize]| {
        let mut wanted: Vec<String> = wanted.iter().map(|at| ids[*at].clone()).collect();
        wanted.sort();
        wanted
    };
    for (options, wanted) in [
        (vec![], sorted(&[0, 1, 2, 3])),
        (vec!["--actor", "alice"], sorted(&[0, 1, 3])),
        (vec!["--actor", r#"bob "the\ b"#], sorted(&[2])),
        (vec!["--actor", "alice", "--status", "active"], sorted(&[0, 3])),
        (vec!["--status", "KEY_STATUS_REVOKED"], sorted(&[1])),
        (vec!["--filter", "status = KEY_STATUS_REVOKED"], sorted(&[1])),
        (vec!["--all", "--page-size", "1"], sorted(&[0, 1, 2, 3])),
    ] {
        let arguments: Vec<&str> = ["keys", "issued", "list", "-q"].into_iter().chain(options).collect();
        assert_eq!(lines(cli.run(&arguments).await.ok()), wanted, "{arguments:?}");
    }

    let all = cli.line("keys issued list --all --page-size 3 --format json").await.json();
    assert_eq!(all, cli.talos.admin.get(ISSUED).await.expect(200).json());

    let page = cli.line("keys issued list --page-size 3").await.expect(0);
    assert_eq!(page.stdout.lines().count(), 1 + 3, "{}", page.stdout);
    let heading: Vec<&str> =
        page.stdout.lines().next().unwrap_or_default().split("  ").map(str::trim).collect();
    let heading: Vec<&str> = heading.into_iter().filter(|word| !word.is_empty()).collect();
    assert_eq!(heading, ["KEY ID", "NAME", "ACTOR", "STATUS", "SCOPES", "CREATED", "EXPIRES"]);
    let token = page.stderr.trim_end().rsplit(' ').next().unwrap_or_default();
    let rest =
        cli.run(&["keys", "issued", "list", "--page-size", "3", "--page-token", token]).await.expect(0);
    assert_eq!(rest.stdout.lines().count(), 1 + 1, "{}", rest.stdout);
    assert_eq!(rest.stderr, "");
}

/// Page tokens are base64url, and keys of others may be anything: both may begin like an option.
#[tokio::test(flavor = "multi_thread")]
async fn values_may_begin_with_a_hyphen() {
    let cli = Cli::start().await;
    let import = ["keys", "imported", "import", "legacy", "--actor", "a", "--raw-key", "-Ckey-of-another"];
    cli.run(&import).await.expect(0);
    let refused = cli.run(&["keys", "issued", "list", "--page-token", "-Cabc"]).await;
    assert!(refused.stderr.contains("page_token"), "{refused:?}");
    cli.run(&["keys", "issued", "list", "--token", "-Cabc"]).await.expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_list_is_a_heading() {
    let cli = Cli::start().await;
    assert_eq!(cli.line("keys issued list").await.ok().lines().count(), 1);
    assert_eq!(cli.line("keys issued list -q --all").await.ok(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_in_each_way() {
    let cli = Cli::start().await;
    let reason = async |id: &str| -> Value {
        let key = cli.talos.admin.get(&format!("{ISSUED}/{id}")).await.expect(200).json();
        assert_eq!(key.text("/status"), "KEY_STATUS_REVOKED");
        key["revocation_reason"].clone()
    };
    let key = cli.talos.issue(json!({})).await;
    let line = format!("keys issued revoke {} --reason KEY_COMPROMISE -q", key.id);
    let ran = cli.line(&line).await.expect(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    assert_eq!(reason(&key.id).await, "REVOCATION_REASON_KEY_COMPROMISE");

    let key = cli.talos.issue(json!({})).await;
    let by =
        ["keys", "revoke", &key.id, "--reason", "privilege_withdrawn", "--reason-text", "contract ended"];
    cli.run(&by).await.ok();
    assert_eq!(reason(&key.id).await, "REVOCATION_REASON_PRIVILEGE_WITHDRAWN");
    let shown = cli.run(&["keys", "issued", "get", &key.id]).await.expect(0);
    assert_eq!(shown.field("REVOKED FOR"), "PRIVILEGE_WITHDRAWN");
    assert_eq!(shown.field("REVOKED WHY"), "contract ended");

    let key = cli.talos.issue(json!({})).await;
    let public = cli.talos.public.url("");
    let ran =
        cli.feed(&key.secret, &["keys", "self-revoke", "-", "--reason", "superseded", "-e", &public]).await;
    assert_eq!(ran.expect(0).stdout, "");
    assert_eq!(reason(&key.id).await, "REVOCATION_REASON_SUPERSEDED");
}
