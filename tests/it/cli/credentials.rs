//! `keys verify`, `keys derive-token`, `jwk get`.

use serde_json::json;

use super::Cli;
use crate::rig::support::Json;
use crate::rig::talos::JWKS;

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_of_verify_is_its_answer() {
    let cli = Cli::start().await;
    let key = cli.talos.issue(json!({ "scopes": ["a"] })).await;
    for stdin in [key.secret.clone(), format!("{}\n", key.secret), format!("{}\r\n", key.secret)] {
        let ran = cli.feed(&stdin, &["keys", "verify", "-"]).await.expect(0);
        assert_eq!((ran.field("VALID"), ran.field("KEY ID")), ("true", key.id.as_str()));
    }
    assert_eq!(cli.run(&["keys", "verify", &key.secret, "-q"]).await.captured(), key.id);

    cli.talos.revoke(&key).await;
    let ran = cli.run(&["keys", "verify", &key.secret, "--no-cache", "--format", "json"]).await.expect(2);
    let answer: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
    assert_eq!(answer, cli.talos.verify(&key.secret).await);
    assert_eq!(answer.text("/error_code"), "VERIFICATION_ERROR_REVOKED");
    let ran = cli.run(&["keys", "verify", "nonesuch"]).await.expect(2);
    assert_eq!((ran.field("VALID"), ran.field("ERROR")), ("false", "VERIFICATION_ERROR_NOT_FOUND"));
    assert_eq!(cli.run(&["keys", "verify", "nonesuch", "-q"]).await.expect(2).stdout, "-\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_derived_and_verified_for_its_audience() {
    let cli = Cli::start().await;
    let key = cli.talos.issue(json!({ "scopes": ["a", "b"] })).await;
    let arguments = [
        "keys",
        "derive-token",
        "-",
        "--ttl",
        "5m",
        "--scopes",
        "a",
        "--audience",
        "shop,till",
        "--claims",
        r#"{"order":7}"#,
    ];
    let with = |more: &[&'static str]| arguments.iter().chain(more).copied().collect::<Vec<_>>();
    let answer = cli.feed(&key.secret, &with(&["--format", "json"])).await.json();
    let claims = answer.at("/token/claims");
    assert_eq!(claims.at("/scp"), &json!(["a"]));
    assert_eq!(claims.at("/order"), 7);
    assert_eq!(answer.texts("/token/audiences"), ["shop", "till"]);

    let token = cli.feed(&key.secret, &with(&["-q"])).await.captured();
    assert_eq!(token.split('.').count(), 3, "{token}");
    for (audience, code) in [("shop", 0), ("bank,till", 0), ("bank", 2)] {
        cli.run(&["keys", "verify", &token, "--audience", audience]).await.expect(code);
    }
    let shown = cli.feed(&key.secret, &arguments).await.expect(0);
    assert_eq!(shown.field("SCOPES"), "a");
    assert_eq!(cli.talos.verify(shown.field("TOKEN")).await["is_valid"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_keys_are_json_unless_asked_for_otherwise() {
    let cli = Cli::start().await;
    let keys = cli.talos.public.get(JWKS).await.expect(200);
    assert_eq!(cli.line("jwk get").await.json(), keys.json());
    let public = cli.talos.public.url("/");
    assert_eq!(
        cli.run(&["jwk", "get", "-e", &public, "--format", "json"]).await.ok(),
        format!("{}\n", keys.text())
    );
    assert_eq!(cli.line("jwk get -q").await.captured(), "it-1");
    let table = cli.line("jwk get --format table").await.ok();
    assert!(table.contains("it-1") && table.contains("EdDSA"), "{table}");
}
