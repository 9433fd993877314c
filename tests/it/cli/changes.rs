//! Commands that change keys, one or many at once.

use serde_json::{Value, json};

use super::Cli;
use crate::rig::support::Json;
use crate::rig::talos::{IMPORTED, ISSUED};

#[tokio::test(flavor = "multi_thread")]
async fn update_changes_what_is_given_and_nothing_else() {
    let cli = Cli::start().await;
    let fields = json!({
        "name": "old", "scopes": ["a"], "metadata": { "m": 1 },
        "ip_restriction": { "allowed_cidrs": ["10.0.0.0/8"] },
        "rate_limit_policy": { "quota": "5", "window": "60s" },
    });
    let issued = cli.talos.issue(fields.clone()).await;
    let imported = cli.talos.import("legacy-0123456789", fields).await;
    for (kind, path, id) in [("issued", ISSUED, &issued.id), ("imported", IMPORTED, &imported.id)] {
        let update = async |options: &[&str]| -> Value {
            let words: Vec<&str> = ["keys", kind, "update", id, "--format", "json"]
                .into_iter()
                .chain(options.iter().copied())
                .collect();
            let printed = cli.run(&words).await.json();
            let key = cli.talos.admin.get(&format!("{path}/{id}")).await.expect(200).json();
            assert_eq!(printed, key, "{options:?}");
            key
        };
        let key = update(&["--name", "new"]).await;
        assert_eq!((key.text("/name"), key.texts("/scopes")), ("new", vec!["a"]));
        assert_eq!(key.at("/metadata"), &json!({ "m": 1 }));
        let key =
            update(&["--scopes", "b,c", "--metadata", r#"{"m":2}"#, "--allowed-cidrs", "::1/128"]).await;
        assert_eq!((key.text("/name"), key.texts("/scopes")), ("new", vec!["b", "c"]));
        assert_eq!(key.texts("/ip_restriction/allowed_cidrs"), ["::1/128"]);
        let key = update(&["--rate-limit-quota", "9", "--rate-limit-window", "1m"]).await;
        assert_eq!(key.text("/rate_limit_policy/quota"), "9");
        let key = update(&["--rate-limit-quota", "0", "--allowed-cidrs", "", "--scopes", ""]).await;
        assert_eq!((key.get("rate_limit_policy"), key.get("ip_restriction")), (None, None), "{key:#}");
        assert_eq!(key.at("/scopes"), &json!([]));
        let key = update(&["--update-mask", "metadata"]).await;
        assert_eq!(key.get("metadata"), None, "{key:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_gives_a_new_secret() {
    let cli = Cli::start().await;
    let key = cli.talos.issue(json!({ "name": "n", "scopes": ["a"] })).await;
    let answer = cli.line(&format!("keys issued rotate {} --scopes b --format json", key.id)).await.json();
    assert_eq!(answer.texts("/issued_api_key/scopes"), ["b"]);
    assert_eq!(answer.text("/issued_api_key/name"), "n");
    assert_eq!(answer.text("/old_issued_api_key/status"), "KEY_STATUS_REVOKED");
    assert_eq!(cli.talos.verify(&key.secret).await["is_valid"], false);

    let id = answer.text("/issued_api_key/key_id");
    let first = answer.text("/secret");
    let second = cli.line(&format!("keys issued rotate {id} --grace-period 1h -q")).await.captured();
    for secret in [first, second.as_str()] {
        assert_eq!(cli.talos.verify(secret).await["is_valid"], true);
    }
    let third = cli.talos.verify(&second).await.text("/key_id").to_owned();
    let shown = cli.line(&format!("keys issued rotate {third}")).await.expect(0);
    assert_eq!((shown.field("REPLACES"), shown.field("WHICH IS")), (third.as_str(), "REVOKED"));
    assert_eq!(cli.talos.verify(shown.field("SECRET")).await["is_valid"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_leaves_nothing() {
    let cli = Cli::start().await;
    let key = cli.talos.import("legacy-0123456789", json!({})).await;
    let ran = cli.line(&format!("keys imported delete {}", key.id)).await.expect(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr), ("", format!("deleted {}\n", key.id)));
    cli.line(&format!("keys imported get {}", key.id)).await.expect(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_imported_in_each_form() {
    let cli = Cli::start().await;
    let key =
        |n: u32| json!({ "raw_key": format!("legacy-{n:010}"), "name": format!("k{n}"), "actor_id": "a" });
    let list = json!([key(1), key(2)]).to_string();
    assert_eq!(
        cli.feed(&list, &["keys", "imported", "batch-import", "-", "-q"]).await.ok().lines().count(),
        2
    );
    let requests = json!({ "requests": [key(3)] }).to_string();
    cli.feed(&requests, &["keys", "imported", "batch-import", "--file", "-"]).await.ok();
    let lines = format!("{}\n{}\n", key(4), key(5));
    let answer =
        cli.feed(&lines, &["keys", "imported", "batch-import", "-", "--format", "json"]).await.json();
    assert_eq!(answer.at("/success_count"), 2);
    for n in 1..=5 {
        assert_eq!(cli.talos.verify(&format!("legacy-{n:010}")).await["is_valid"], true, "{n}");
    }
    // One that is there already is refused by itself.
    let ran =
        cli.feed(&json!([key(5), key(6)]).to_string(), &["keys", "imported", "batch-import", "-"]).await;
    let ran = ran.expect(1);
    assert!(ran.stdout.contains("BATCH_CREATE_IMPORTED_API_KEYS_ERROR_ALREADY_EXISTS"), "{}", ran.stdout);
    assert!(ran.stderr.contains("1 of 2"), "{}", ran.stderr);
    assert_eq!(cli.talos.verify("legacy-0000000006").await["is_valid"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_verified_in_order() {
    let cli = Cli::start().await;
    let (one, two) = (cli.talos.issue(json!({})).await, cli.talos.issue(json!({})).await);
    let stdin = format!("{}\n\n{}\n", one.secret, two.secret);
    let ids = format!("{}\n{}\n", one.id, two.id);
    assert_eq!(cli.feed(&stdin, &["keys", "batch-verify", "-", "-q"]).await.ok(), ids);
    assert_eq!(cli.run(&["keys", "batch-verify", &one.secret, &two.secret, "-q"]).await.ok(), ids);
    let batch = ["keys", "batch-verify", &one.secret, "nonesuch", "-q", "--no-cache"];
    assert_eq!(cli.run(&batch).await.ok(), format!("{}\n-\n", one.id));
    let strict = [&batch[..], &["--fail-on-invalid"]].concat();
    let ran = cli.run(&strict).await.expect(2);
    assert_eq!(ran.stdout, format!("{}\n-\n", one.id));
    let ran = cli.run(&["keys", "batch-verify", "nonesuch", &one.secret]).await.expect(0);
    assert!(ran.stdout.contains("VERIFICATION_ERROR_NOT_FOUND"), "{}", ran.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_macaroon_is_derived() {
    let cli = Cli::start().await;
    let key = cli.talos.issue(json!({ "scopes": ["a"] })).await;
    let derive = ["keys", "derive-token", "-", "--algorithm", "macaroon", "-q"];
    let token = cli.feed(&key.secret, &derive).await.captured();
    assert!(token.starts_with("mc_v1_"), "{token}");
    assert_eq!(cli.run(&["keys", "verify", &token, "-q"]).await.captured(), key.id);
}
