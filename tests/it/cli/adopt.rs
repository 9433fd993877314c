//! `migrate adopt`: keys move from one server to another with the same secrets, by what the first
//! one lists.

use serde_json::{Value, json};

use super::Ran;
use crate::rig::check::Check;
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{IMPORTED, ISSUED, Key, NETWORK, Setup, Talos, VERIFY};

/// Servers of this setup have everything in common but the database.
fn setup() -> Setup {
    Setup::new()
        .set("TALOS_CREDENTIALS_API_KEYS_PREFIX_PUBLIC_CURRENT", "pub")
        .set("TALOS_LAST_USED_FLUSH_INTERVAL", "50ms")
}

/// A list of a server as the command prints it.
async fn list(talos: &Talos, kind: &str) -> String {
    let endpoint = talos.admin.url("");
    let words = ["keys", kind, "list", "--all", "--format", "json", "-e", &endpoint];
    Ran::from(Setup::bare().run(&words).await).ok()
}

/// Writes the files into the directory of the setup and adopts them.
async fn adopt(setup: &Setup, files: &[(&str, &str)], options: &[&str]) -> Ran {
    for (name, text) in files {
        std::fs::write(setup.path(name), text).must(name);
    }
    let names = files.iter().map(|(name, _)| *name);
    let words: Vec<&str> =
        ["migrate", "adopt"].into_iter().chain(names).chain(options.iter().copied()).collect();
    Ran::from(setup.run(&words).await)
}

fn counts(adopted: usize, unchanged: usize, different: usize) -> [usize; 3] {
    [adopted, unchanged, different]
}

#[track_caller]
fn counted(ran: &Ran) -> [usize; 3] {
    ["ADOPTED", "UNCHANGED", "DIFFERENT"].map(|name| ran.field(name).parse().must(name))
}

/// Revokes with a body of the test's own.
async fn revoke(talos: &Talos, path: &str, key: &Key, body: Value) {
    talos.admin.post(&format!("{path}/{}:revoke", key.id), &body).await.expect(204);
}

/// Keys of every kind and state, and what else has a secret: everything that B must judge as A
/// does.
async fn keys_of_all_sorts(talos: &Talos) -> Vec<(&'static str, Key)> {
    let full = json!({
        "name": "schlüssel 鍵", "actor_id": "user:42", "scopes": ["b", "a:*"], "ttl": "1h",
        "metadata": { "team": "blue", "n": [1, 2.5, null] },
        "ip_restriction": { "allowed_cidrs": ["127.0.0.0/8", "2001:db8::/32"] },
        "rate_limit_policy": { "quota": "9", "window": "60s" },
    });
    let public = json!({ "visibility": "KEY_VISIBILITY_PUBLIC" });
    let elsewhere = json!({ "ip_restriction": { "allowed_cidrs": ["192.0.2.0/24"] } });
    let mut keys = vec![
        ("full", talos.issue(full.clone()).await),
        ("public", talos.issue(public.clone()).await),
        ("from elsewhere", talos.issue(elsewhere).await),
        ("expired", talos.issue(json!({ "ttl": "1s" })).await),
        ("imported", talos.import("legacy-1-0123456789", full).await),
        ("imported public", talos.import("legacy-2-0123456789", public).await),
        ("imported expired", talos.import("legacy-3-0123456789", json!({ "ttl": "1s" })).await),
    ];
    for (what, path, body) in [
        ("revoked for nothing", ISSUED, json!({})),
        ("compromised", ISSUED, json!({ "reason": "REVOCATION_REASON_KEY_COMPROMISE" })),
        ("imported and superseded", IMPORTED, json!({ "reason": "REVOCATION_REASON_SUPERSEDED" })),
        (
            "withdrawn",
            ISSUED,
            json!({ "reason": "REVOCATION_REASON_PRIVILEGE_WITHDRAWN", "description": "left \"us\"" }),
        ),
    ] {
        let key = match path {
            ISSUED => talos.issue(json!({})).await,
            _ => talos.import("legacy-4-0123456789", json!({})).await,
        };
        revoke(talos, path, &key, body).await;
        keys.push((what, key));
    }
    for (grace, [old, new]) in [
        (None, ["rotated", "its successor"]),
        (Some("1h"), ["rotated with grace", "its successor meanwhile"]),
        (Some("1s"), ["rotated with a grace that is over", "its successor afterwards"]),
    ] {
        let key = talos.issue(json!({ "scopes": ["a"] })).await;
        let body = grace.map_or(json!({}), |grace| json!({ "grace_period": grace }));
        let answer = talos.admin.post(&format!("{ISSUED}/{}:rotate", key.id), &body).await.expect(201).json();
        let successor = Key {
            id: answer.text("/issued_api_key/key_id").to_owned(),
            secret: answer.text("/secret").to_owned(),
            resource: answer.at("/issued_api_key").clone(),
        };
        keys.extend([(old, key), (new, successor)]);
    }
    keys
}

/// The error code of a verification, empty when valid.
async fn judgement(talos: &Talos, key: &Key) -> String {
    let body = json!({ "credential": key.secret });
    let call = talos.admin.post(VERIFY, &body).await.expect(200).json();
    call.get("error_code").map(|code| code.as_str().must("a text").to_owned()).unwrap_or_default()
}

fn find<'k>(keys: &'k [(&'static str, Key)], what: &str) -> &'k Key {
    keys.iter().find(|(name, _)| *name == what).map(|(_, key)| key).must(what)
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_judges_every_key_as_the_first_does() {
    let (a, b) = (setup().start().await, setup().start().await);
    let a_setup = a.setup.clone();
    let keys = keys_of_all_sorts(&a).await;
    for what in ["expired", "imported expired", "rotated with a grace that is over"] {
        until(what, async || (!judgement(&a, find(&keys, what)).await.is_empty()).then_some(())).await;
    }
    let tokens = [
        a.derive(find(&keys, "full"), json!({ "custom_claims": { "c": 1 } })).await,
        a.derive(find(&keys, "full"), json!({ "algorithm": "TOKEN_ALGORITHM_MACAROON" })).await,
        a.derive(find(&keys, "imported"), json!({ "audiences": ["x"], "ttl": "5m" })).await,
    ];
    // Uses are noted by its end at the latest: from here on its lists stay as they are.
    a.stop().await;
    let a = a_setup.start().await;
    let of_a = (list(&a, "issued").await, list(&a, "imported").await);
    assert!(of_a.0.contains("last_used_time") && of_a.1.contains("last_used_time"), "{of_a:?}");

    let files = [("issued.json", of_a.0.as_str()), ("imported.json", of_a.1.as_str())];
    let ran = adopt(&b.setup, &files, &[]).await.expect(0);
    assert_eq!(counted(&ran), counts(keys.len(), 0, 0), "{ran:?}");
    assert_eq!((list(&b, "issued").await, list(&b, "imported").await), of_a, "the lists of both are alike");
    for (what, key) in &keys {
        assert_eq!(b.verify(&key.secret).await, a.verify(&key.secret).await, "{what}");
    }
    for token in &tokens {
        let (of_a, of_b) = (a.verify(token).await, b.verify(token).await);
        assert_eq!((&of_a["is_valid"], &of_b), (&json!(true), &of_a));
        b.check(Check::bearer(token)).await.allowed();
    }
    b.check(Check::bearer(&find(&keys, "rotated with grace").secret)).await.allowed();
    // Whole in every other way: it can be derived from, rotated and revoked.
    b.derive(find(&keys, "imported"), json!({})).await;
    let full = find(&keys, "full");
    b.admin.post(&format!("{ISSUED}/{}:rotate", full.id), &json!({})).await.expect(201);
    assert_eq!(judgement(&b, full).await, "VERIFICATION_ERROR_REVOKED");
    assert_eq!(judgement(&a, full).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grace_period_ends_where_the_key_went_to() {
    let (a, b) = (setup().start().await, setup().start().await);
    let key = a.issue(json!({})).await;
    let rotate = format!("{ISSUED}/{}:rotate", key.id);
    a.admin.post(&rotate, &json!({ "grace_period": "3s" })).await.expect(201);
    let issued = list(&a, "issued").await;
    assert!(issued.contains("supersede_time"), "{issued}");
    adopt(&b.setup, &[("issued.json", &issued)], &[]).await.expect(0);
    until("the grace period is over", async || {
        (judgement(&b, &key).await == "VERIFICATION_ERROR_REVOKED").then_some(())
    })
    .await;
    // Listed as over by now, and all the same the same.
    let again = adopt(&b.setup, &[("issued.json", &list(&a, "issued").await)], &[]).await.expect(0);
    assert_eq!(counted(&again), counts(0, 2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn again_changes_nothing_and_what_differs_is_left_alone() {
    let (a, b) = (setup().start().await, setup().start().await);
    let (one, two) = (a.issue(json!({})).await, a.issue(json!({ "metadata": { "a": 1 } })).await);
    let imported = a.import("legacy-0123456789", json!({})).await;
    let before = (list(&a, "issued").await, list(&a, "imported").await);
    let files =
        |lists: &(String, String)| [("issued.json", lists.0.clone()), ("imported.json", lists.1.clone())];
    let run = async |lists: &(String, String), options: &[&str]| {
        let files = files(lists);
        adopt(&b.setup, &files.each_ref().map(|(name, text)| (*name, text.as_str())), options).await
    };

    let ran = run(&before, &["--dry-run"]).await.expect(0);
    assert_eq!((ran.field("WOULD ADOPT"), ran.field("UNCHANGED")), ("3", "0"));
    assert_eq!(judgement(&b, &one).await, "VERIFICATION_ERROR_NOT_FOUND");
    assert_eq!(counted(&run(&before, &[]).await.expect(0)), counts(3, 0, 0));
    // A use is no change.
    until("the use is noted", async || {
        b.verify(&one.secret).await;
        list(&b, "issued").await.contains("last_used_time").then_some(())
    })
    .await;
    assert_eq!(counted(&run(&before, &[]).await.expect(0)), counts(0, 3, 0));

    // A revocation here isn't undone, one there doesn't come over, and neither goes unsaid.
    b.revoke(&one).await;
    revoke(&a, IMPORTED, &imported, json!({})).await;
    let third = a.issue(json!({})).await;
    let after = (list(&a, "issued").await, list(&a, "imported").await);
    for options in [&["--dry-run", "--format", "json"][..], &["--format", "json"]] {
        let ran = run(&after, options).await.expect(1);
        let output: Value = serde_json::from_str(&ran.stdout).must("JSON");
        let is_dry = options.contains(&"--dry-run");
        let expected = json!({
            "dry_run": is_dry, "adopted": 1, "unchanged": 1, "different": 2, "differences": [
                { "key_id": one.id, "fields": ["status", "update_time", "revocation_reason"] },
                { "key_id": imported.id, "fields": ["status", "update_time"] },
            ],
        });
        assert_eq!(output, expected);
        let line = format!("issued.json: issued_api_keys[0]: {} exists with another status, ", one.id);
        assert!(ran.stderr.contains(&line), "{}", ran.stderr);
        assert!(ran.stderr.contains("imported.json: imported_api_keys[0]: "), "{}", ran.stderr);
    }
    assert_eq!(judgement(&b, &one).await, "VERIFICATION_ERROR_REVOKED");
    assert_eq!(judgement(&b, &imported).await, "");
    for key in [&two, &third] {
        assert_eq!(judgement(&b, key).await, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_remembers_a_key_as_unknown_learns_of_it() {
    let a = setup().start().await;
    let b = setup().set("TALOS_CACHE_NEGATIVE_TTL", "1h").start().await;
    let keys = [a.issue(json!({})).await, a.import("legacy-0123456789", json!({})).await];
    for key in &keys {
        b.check(Check::api_key(&key.secret)).await.denied(401);
        assert_eq!(judgement(&b, key).await, "VERIFICATION_ERROR_NOT_FOUND");
    }
    let files = [("i", list(&a, "issued").await), ("j", list(&a, "imported").await)];
    adopt(&b.setup, &files.each_ref().map(|(name, text)| (*name, text.as_str())), &[]).await.expect(0);
    for key in &keys {
        until("the key is known", async || b.check(Check::api_key(&key.secret)).await.passes().then_some(()))
            .await;
        assert_eq!(judgement(&b, key).await, "");
    }
}

/// A key as a list has it.
fn item(number: u32, changes: Value) -> Value {
    let mut item = json!({
        "key_id": format!("00000000-0000-4000-8000-{number:012}"), "name": "n", "actor_id": "a", "scopes": [],
        "status": "KEY_STATUS_ACTIVE", "visibility": "KEY_VISIBILITY_SECRET", "create_time": "2026-01-01T00:00:00Z",
    });
    for (field, value) in changes.as_object().must("an object") {
        item[field] = value.clone();
    }
    item
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_key_keeps_all_out() {
    let setup = setup();
    let good = json!({ "issued_api_keys": [item(1, json!({}))], "next_page_token": "" }).to_string();
    for (changes, output) in [
        (json!({ "nonesuch": "s3cret" }), "bad.json: issued_api_keys[1]: nonesuch: is not a known field"),
        (
            json!({ "status": "KEY_STATUS_EXPIRED", "expire_time": "2999-01-01T00:00:00Z" }),
            "issued_api_keys[1]: status: ",
        ),
        (json!({ "key_id": "0".repeat(64) }), "issued_api_keys[1]: key_id: "),
        (json!({ "scopes": ["s3 cret"] }), "issued_api_keys[1]: scopes[0]: "),
        (
            json!({ "key_id": item(2, json!({}))["key_id"], "name": "s3cret" }),
            "key_id: also in bad.json: issued_api_keys[0], with a different name",
        ),
    ] {
        let bad = json!({ "issued_api_keys": [item(2, json!({})), item(3, changes)], "next_page_token": "" });
        let files = [("good.json", good.as_str()), ("bad.json", &bad.to_string())];
        let ran = adopt(&setup, &files, &[]).await.expect(64);
        assert!(ran.stderr.contains(output), "{output}: {}", ran.stderr);
        assert!(!ran.stderr.contains("s3cret") && ran.stdout.is_empty(), "{ran:?}");
    }
    adopt(&setup, &[("cut.json", &good[..good.len() - 9])], &[]).await.expect(64);
    Ran::from(setup.run(&["migrate", "adopt", "nonesuch.json"]).await).expect(64);
    Ran::from(setup.run(&["migrate", "adopt"]).await).expect(64);
    let talos = setup.start().await;
    assert_eq!(list(&talos, "issued").await, "{\"issued_api_keys\":[],\"next_page_token\":\"\"}\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_batch_comes_from_stdin() {
    let setup = setup();
    let lines: String = (0..2_001).map(|number| format!("{}\n", item(number, json!({})))).collect();
    let run = async || {
        let mut command = setup.program(env!("CARGO_BIN_EXE_talos"));
        command.args(["migrate", "adopt", "-", "--format", "json"]);
        super::feed(command, &lines).await.json()
    };
    assert_eq!(run().await.at("/adopted"), 2_001);
    assert_eq!(run().await.at("/unchanged"), 2_001);
    let talos = setup.start().await;
    let listed: Value = serde_json::from_str(&list(&talos, "issued").await).must("JSON");
    assert_eq!(listed.at("/issued_api_keys").as_array().map(Vec::len), Some(2_001));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_and_no_database_is_needed_to_check() {
    let setup = Setup::bare().set("DB_DSN", "sqlite://talos.db");
    let page = json!({ "issued_api_keys": [item(1, json!({}))], "next_page_token": "more" }).to_string();
    adopt(&setup, &[("f.json", &page)], &["--dry-run"]).await.expect(1);
    assert!(!setup.path("talos.db").exists(), "asking made a database");
    let ran = adopt(&setup, &[("f.json", &page)], &[]).await.expect(0);
    assert!(ran.stderr.contains("f.json: the list is incomplete"), "{}", ran.stderr);
    let ran = adopt(&setup, &[("f.json", &page)], &["--dry-run"]).await.expect(0);
    assert_eq!((ran.field("WOULD ADOPT"), ran.field("UNCHANGED")), ("0", "1"));
    // The same key in another network is another key.
    adopt(&setup, &[("f.json", &page)], &["--network", "s3cret"]).await.expect(64);
    for (network, adopted) in [("3774b4ac-520e-45a9-a0cc-6b029890c7ae", "1"), (NETWORK, "0")] {
        let ran = adopt(&setup, &[("f.json", &page)], &["--network", network]).await.expect(0);
        assert_eq!(ran.field("ADOPTED"), adopted);
    }
}
