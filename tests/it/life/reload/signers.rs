//! Keys by the secret and prefix that they need: in lists, status, metrics and warnings.

use serde_json::{Value, json};

use super::{FIRST, Live, SECOND};
use crate::cli::Ran;
use crate::rig::http::{Call, Version};
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{ISSUED, Key, Setup, VERIFY};

/// The ids of the issued keys that a filter chooses.
async fn ids(live: &Live, filter: &str) -> Vec<String> {
    let filter = filter.replace(' ', "%20").replace('=', "%3D");
    let page = live.talos.admin.get(&format!("{ISSUED}?filter={filter}")).await.expect(200).json();
    let keys = page.at("/issued_api_keys").as_array().must("a list of keys").clone();
    keys.iter().map(|key| key.text("/key_id").to_owned()).collect()
}

/// Returns state and number of active keys of each secret or prefix in a status.
fn counts(status: &Value, pointer: &str) -> Vec<(String, u64)> {
    let counts = status.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    counts.map(|count| (count.text("/state").to_owned(), count.at("/keys").as_u64().must("keys"))).collect()
}

async fn status(live: &Live) -> Value {
    live.talos.metrics.get("/status").await.expect(200).json()
}

/// Waits until the status has these numbers of keys; returns the status.
async fn until_counted(live: &Live, pointer: &str, expected: &[(&str, u64)]) -> Value {
    let expected: Vec<(String, u64)> =
        expected.iter().map(|(state, keys)| ((*state).to_owned(), *keys)).collect();
    until(&format!("{pointer} has {expected:?}"), async || {
        let status = status(live).await;
        (counts(&status, pointer) == expected).then_some(status)
    })
    .await
}

/// The id of the first secret of a status, which is the current one.
fn current(status: &Value) -> String {
    status.text("/signing/secrets/0/secret_id").to_owned()
}

/// Verifies a key against the database.
async fn is_valid(live: &Live, key: &Key) -> bool {
    let call =
        Call::post(VERIFY).json(&json!({ "credential": key.secret })).header("cache-control", "no-cache");
    live.talos.admin.send(Version::Http1, call).await.expect(200).json()["is_valid"] == true
}

async fn list(live: &Live, arguments: &[&str]) -> String {
    let setup = Setup::bare().set("TALOS_ENDPOINT", &live.talos.admin.url(""));
    let arguments: Vec<&str> = ["keys", "issued", "list", "-q"].iter().chain(arguments).copied().collect();
    Ran::from(setup.run(&arguments).await).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_know_their_secret_before_it_is_removed() {
    let live =
        Live::start(&format!("secrets: {{hmac: {{current: {FIRST}}}}}\nlast_used: {{flush_interval: 1s}}\n"))
            .await;
    let (old, revoked) = (live.talos.issue(json!({})).await, live.talos.issue(json!({})).await);
    live.talos.revoke(&revoked).await;
    let first = current(&until_counted(&live, "/signing/secrets", &[("current", 1)]).await);
    assert!(first.len() == 16 && !FIRST.contains(&first), "{first}");

    let both = format!(
        "secrets: {{hmac: {{current: {SECOND}, retired: [{FIRST}]}}}}\nlast_used: {{flush_interval: 1s}}\n"
    );
    live.change(&both).await;
    let new = live.talos.issue(json!({})).await;
    let status = until_counted(&live, "/signing/secrets", &[("current", 1), ("retired", 1)]).await;
    let second = current(&status);
    assert_ne!(first, second);
    for (filter, expected) in [
        ("secret_id = retired", vec![&old.id, &revoked.id]),
        ("secret_id = retired AND status = KEY_STATUS_ACTIVE", vec![&old.id]),
        ("secret_id = current", vec![&new.id]),
        ("secret_id = unknown", vec![]),
        (&format!("secret_id = {first}"), vec![&old.id, &revoked.id]),
        ("key_prefix = ory_ak AND secret_id = current", vec![&new.id]),
        ("key_prefix = other", vec![]),
    ] {
        assert_eq!(ids(&live, filter).await.iter().collect::<Vec<_>>(), expected, "{filter}");
    }
    assert_eq!(list(&live, &["--secret", "retired", "--status", "active"]).await, format!("{}\n", old.id));
    assert_eq!(list(&live, &["--secret", &second]).await, format!("{}\n", new.id));
    for (state, keys) in [("current", 1.0), ("retired", 1.0)] {
        let id = if state == "current" { &second } else { &first };
        let metric = format!("talos_hmac_secret_keys{{secret_id=\"{id}\",state=\"{state}\"}}");
        assert_eq!(live.talos.metric(&metric).await, keys, "{metric}");
    }

    live.change(&format!("secrets: {{hmac: {{current: {SECOND}}}}}\n")).await;
    let status = until_counted(&live, "/signing/secrets", &[("current", 1), ("removed", 1)]).await;
    assert!(status.at("/problems").to_string().contains(&first), "{status:#}");
    let warning = "active keys need a secret or prefix that no configuration has";
    assert!(live.talos.process.log().contains(warning), "{}", live.talos.process.log());
    assert!(!is_valid(&live, &old).await);
    // With the last key that needs it, the problem goes away.
    live.talos.revoke(&old).await;
    until("the problem is gone", async || {
        (counts(&self::status(&live).await, "/signing/secrets") == [("current".to_owned(), 1)]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_earlier_releases_learn_their_secret_when_they_are_verified() {
    let config = format!("secrets: {{hmac: {{current: {FIRST}}}}}\nlast_used: {{flush_interval: 1s}}\n");
    let live = Live::start(&config).await;
    let (seen, unseen) = (live.talos.issue(json!({})).await, live.talos.issue(json!({})).await);
    live.talos.setup.sql("UPDATE api_keys SET secret_id = '', key_prefix = ''");
    until_counted(&live, "/signing/secrets", &[("current", 0), ("unknown", 2)]).await;
    assert_eq!(ids(&live, "secret_id = unknown").await, [seen.id.clone(), unseen.id.clone()]);
    assert!(is_valid(&live, &seen).await);
    until("the row knows its secret", async || {
        (ids(&live, "secret_id = unknown").await == [unseen.id.clone()]).then_some(())
    })
    .await;
    assert_eq!(ids(&live, "secret_id = current AND key_prefix = ory_ak").await, [seen.id]);
    // A process that starts without the secret says so, too.
    until_counted(&live, "/signing/secrets", &[("current", 1), ("unknown", 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_prefix_is_reported_at_the_start() {
    let config = |prefix: &str| {
        format!(
            "secrets: {{hmac: {{current: {FIRST}}}}}\ncredentials: {{api_keys: {{prefix: {{{prefix}}}}}}}\n"
        )
    };
    let live = Live::start(&config("current: one")).await;
    live.talos.issue(json!({})).await;
    live.change(&config("current: two, retired: [one]")).await;
    until_counted(&live, "/signing/prefixes", &[("current", 0), ("retired", 1)]).await;
    assert_eq!(list(&live, &["--prefix", "one"]).await.lines().count(), 1);
    live.put_config(&config("current: two"));
    let again = live.talos.setup.start().await;
    until("the second process tells of the prefix", async || {
        let status = again.metrics.get("/status").await.expect(200).json();
        status.at("/problems").to_string().contains("prefix one").then_some(())
    })
    .await;
}
