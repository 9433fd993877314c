//! `keys imported …`.

use serde_json::json;

use super::Cli;
use crate::rig::support::Json;
use crate::rig::talos::IMPORTED;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_imported_from_stdin_or_an_argument() {
    let cli = Cli::start().await;
    let import = ["keys", "imported", "import", "legacy", "--actor", "a", "--scopes", "x", "--raw-key"];
    // One line ending at the end is not part of a key; a second one is.
    for (raw_key, stdin) in [
        ("legacy-0001-abcdef", "legacy-0001-abcdef\n"),
        ("legacy-0002-abcdef", "legacy-0002-abcdef"),
        ("legacy-0004-abcdef", "legacy-0004-abcdef\r\n"),
    ] {
        let arguments: Vec<&str> = import.into_iter().chain(["-", "-q"]).collect();
        let id = cli.feed(stdin, &arguments).await.captured();
        let verified = cli.talos.verify(raw_key).await;
        assert_eq!((&verified["is_valid"], verified.text("/key_id")), (&json!(true), id.as_str()));
    }
    let twice: Vec<&str> = import.into_iter().chain(["-"]).collect();
    let ran = cli.feed("legacy-0005-abcdef\n\n", &twice).await.expect(1);
    assert!(ran.stderr.contains("raw_key: ends with a line ending"), "{}", ran.stderr);
    let warning = "stdin: the final line ending was removed from the key";
    assert!(ran.stderr.contains(warning), "{}", ran.stderr);
    let ran = cli.feed("legacy-0006-abcdef", &twice).await;
    assert!(!ran.stderr.contains(warning), "{}", ran.stderr);
    let arguments: Vec<&str> = import.into_iter().chain(["legacy-0003-abcdef", "--format", "json"]).collect();
    let key = cli.run(&arguments).await.json();
    assert_eq!(key.get("expire_time"), None, "an imported key has the life that the server gives it");
    let got = cli.run(&["keys", "imported", "get", key.text("/key_id"), "--format", "json"]).await.json();
    assert_eq!(got, key);
    assert_eq!(cli.line("keys imported list -q").await.ok().lines().count(), 5);
    assert_eq!(cli.line("keys issued list -q").await.ok(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_key_is_revoked_from_both_places() {
    let cli = Cli::start().await;
    for place in ["keys revoke", "keys imported revoke"] {
        let key = cli.talos.import(&format!("legacy-for {place}"), json!({})).await;
        cli.line(&format!("{place} {} --reason affiliation_changed", key.id)).await.ok();
        let key = cli.talos.admin.get(&format!("{IMPORTED}/{}", key.id)).await.expect(200).json();
        assert_eq!(key.text("/revocation_reason"), "REVOCATION_REASON_AFFILIATION_CHANGED");
    }
    // An issued key isn't found among the imported ones.
    let issued = cli.talos.issue(json!({})).await;
    let ran = cli.line(&format!("keys imported revoke {}", issued.id)).await.expect(1);
    assert!(ran.stderr.contains("(API_KEY_NOT_FOUND, HTTP 404)"), "{}", ran.stderr);
}
