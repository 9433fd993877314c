//! Answers to Asks: equal to those of a Check, and only where a Check without I/O allows.

use std::collections::BTreeMap;

use prost::Message;
use serde_json::json;
use talos_proto::edge::{Ask, CountedAs, Entry, Extension, NoEntryReason, Use, Used};

use super::setup;
use crate::rig::check::{Allowed, Check};
use crate::rig::edge_module::{Module, Server};
use crate::rig::support::{Must, unix_now, unix_seconds, until};
use crate::rig::talos::{ISSUED, Key};

/// A Check, so that the server's cache holds the key, then a question about it.
async fn checked_and_asked(
    server: &Server,
    module: &mut Module,
    key: &Key,
    extensions: &[(&str, &str)],
) -> (Entry, Allowed) {
    let check =
        extensions.iter().fold(Check::api_key(&key.secret), |check, (name, value)| check.route(name, value));
    let check = check.from("192.0.2.7").build();
    server.checked(&check).await;
    let extensions = extensions.iter();
    let extensions =
        extensions.map(|(key, value)| Extension { key: (*key).to_owned(), value: (*value).to_owned() });
    let ask = Ask { extensions: extensions.collect(), ..module.question(&key.secret) };
    let entry = module.ask(ask).await.must_be("an entry");
    (entry, server.grpc().await.check(&check).await.allowed())
}

trait MustBe<T> {
    fn must_be(self, what: &str) -> T;
}

impl<T> MustBe<T> for Result<T, NoEntryReason> {
    #[track_caller]
    fn must_be(self, what: &str) -> T {
        match self {
            Ok(value) => value,
            Err(reason) => panic!("{what}: {reason:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_is_what_a_check_is_answered() {
    let server = Server::start(setup()).await;
    let mut module = server.module().await;
    let keys = [
        server
            .talos
            .issue(json!({ "scopes": ["a:b", "c"], "metadata": { "plan": { "tier": 3 }, "x": "\u{fc}" } }))
            .await,
        server
            .talos
            .issue(json!({ "actor_id": "gr\u{fc}n", "ip_restriction": { "allowed_cidrs": ["192.0.2.0/24", "2001:db8::/32"] } }))
            .await,
        server.talos.import("legacy-key-of-somebody", json!({ "scopes": ["a:b", "c"] })).await,
    ];
    let routes: [&[(&str, &str)]; 4] = [
        &[],
        &[("talos.token", "none")],
        &[("talos.audience", "orders")],
        &[("talos.mode", "optional"), ("talos.visibility", "secret")],
    ];
    for key in &keys {
        for route in routes {
            let (entry, allowed) = checked_and_asked(&server, &mut module, key, route).await;
            let pairs =
                |pairs: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>| pairs.collect::<BTreeMap<_, _>>();
            let set = pairs(&mut entry.set_headers.iter().map(|one| (one.name.to_vec(), one.value.to_vec())));
            let expected = allowed.ok.headers.iter().filter_map(|option| option.header.clone());
            let expected = pairs(&mut expected.map(|one| (one.key.into_bytes(), one.value.into_bytes())));
            assert_eq!(set, expected, "{route:?}");
            let mut removed: Vec<String> =
                entry.remove_headers.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
            // What carried the credential is for the module to remove.
            removed.push("x-api-key".to_owned());
            removed.sort();
            let mut expected = allowed.ok.headers_to_remove.clone();
            expected.sort();
            assert_eq!(removed, expected, "{route:?}");
            let metadata = entry.metadata.clone().must("metadata").encode_to_vec();
            let metadata = envoy_types::pb::google::protobuf::Struct::decode(&metadata[..]).must("metadata");
            let mut expected = allowed.metadata.clone().must("metadata");
            expected.fields.remove("fresh_until").must("a time");
            assert_eq!(metadata.fields, expected.fields, "{route:?}");
            assert_eq!(&entry.policy[..], b"fingerprint");
        }
    }
    let (entry, _) = checked_and_asked(&server, &mut module, &keys[1], &[]).await;
    assert_eq!(entry.addresses, ["192.0.2.0/24", "2001:db8::/32"]);
    let micros = unix_now() * 1e6;
    let expires = entry.expires_micros as f64;
    let refresh = entry.refresh_at_micros.must("a token is renewed") as f64;
    assert!(refresh > micros && refresh < micros + 151.0 * 1e6);
    // A token of 300 s is used until a quarter of that is left.
    assert!(expires > refresh && expires < micros + 226.0 * 1e6);
    let end = entry.key_end_micros.must("the longest life of a key") as f64;
    assert!(end > micros + 364.0 * 86_400.0 * 1e6);
    assert!(server.talos.metric("talos_edge_asks_total").await >= 13.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_check_answers_for_what_it_must_count_or_refuse() {
    let server = Server::start(setup()).await;
    let talos = &server.talos;
    let mut module = server.module().await;
    let policy = json!({ "quota": "100", "window": "60s" });
    let plain = talos.issue(json!({ "scopes": ["a"] })).await;
    let limited = talos.issue(json!({ "rate_limit_policy": policy })).await;
    let credits = talos.issue(json!({ "credits": { "remaining": "100" } })).await;
    let jwt = talos.derive(&plain, json!({})).await;
    let macaroon = talos.derive(&plain, json!({ "algorithm": "TOKEN_ALGORITHM_MACAROON" })).await;
    for credential in [&plain.secret, &limited.secret, &credits.secret, &jwt, &macaroon] {
        server.checked(&Check::bearer(credential).build()).await;
    }
    module.ask_for(&plain.secret).await.must_be("a plain key");
    for (credential, reason) in [
        (&limited.secret, NoEntryReason::NoEntryCheckOnly),
        (&credits.secret, NoEntryReason::NoEntryCheckOnly),
        (&jwt, NoEntryReason::NoEntryNotCached),
        (&macaroon, NoEntryReason::NoEntryNotCached),
        (&"garbage".to_owned(), NoEntryReason::NoEntryNotCached),
    ] {
        assert_eq!(module.ask_for(credential).await.unwrap_err(), reason, "{credential}");
    }
    for (name, value) in [
        ("talos.mode", "off"),
        ("talos.scopes", "b"),
        ("talos.any_scope", "b c"),
        ("talos.unknown", "x"),
        ("talos.mode", "never"),
    ] {
        let extension = Extension { key: name.to_owned(), value: value.to_owned() };
        let ask = Ask { extensions: vec![extension], ..module.question(&plain.secret) };
        let reason = module.ask(ask).await.unwrap_err();
        assert_eq!(reason, NoEntryReason::NoEntryCheckOnly, "{name} {value}");
    }
    let ask = module.question(&plain.secret);
    let too_many = vec![Extension::default(); 17];
    let too_large = vec![Extension { key: "x".to_owned(), value: "x".repeat(2_048) }];
    for (ask, reason) in [
        (Ask { generation: 77, ..ask.clone() }, NoEntryReason::NoEntryOtherSettings),
        (Ask { rule: Some(0), ..ask.clone() }, NoEntryReason::NoEntryInvalid),
        (Ask { index: vec![1; 31].into(), ..ask.clone() }, NoEntryReason::NoEntryInvalid),
        (Ask { policy: vec![1; 33].into(), ..ask.clone() }, NoEntryReason::NoEntryInvalid),
        (Ask { host: vec![b'a'; 256].into(), ..ask.clone() }, NoEntryReason::NoEntryInvalid),
        (Ask { extensions: too_many, ..ask.clone() }, NoEntryReason::NoEntryInvalid),
        (Ask { extensions: too_large, ..ask.clone() }, NoEntryReason::NoEntryInvalid),
    ] {
        assert_eq!(module.ask(ask).await.unwrap_err(), reason);
    }
    module.ask_for(&plain.secret).await.must_be("the stream goes on");
    // Of another network or process.
    let elsewhere = Ask { index: vec![1; 32].into(), ..module.question("") };
    assert_eq!(module.ask(elsewhere).await.unwrap_err(), NoEntryReason::NoEntryNotCached);
}

#[tokio::test(flavor = "multi_thread")]
async fn uses_are_counted_and_noted_as_those_of_checks() {
    let setup = setup()
        .set("TALOS_USAGE_FLUSH_INTERVAL", "100ms")
        .set("TALOS_LAST_USED_FLUSH_INTERVAL", "100ms")
        .set("TALOS_AUTHZ_ROUTES", "[{name: orders, path: {prefix: /orders}}]");
    let server = Server::start(setup).await;
    let mut module = server.module().await;
    assert_eq!(module.settings.rules.len(), 1);
    let key = server.talos.issue(json!({})).await;
    let check = Check::bearer(&key.secret).path("/orders/1").build();
    server.grpc().await.check(&check).await.allowed();
    let ask = Ask { rule: Some(0), ..module.question(&key.secret) };
    let counted_as = module.ask(ask).await.must_be("an entry").counted_as;
    assert_eq!(counted_as.as_ref().map(|row| row.route.as_str()), Some("orders"));
    let unreadable = Use { counted_as: Some(CountedAs::default()), count: 9, ..Use::default() };
    let later = (unix_now() as i64 + 3_600) * 1_000_000;
    let one = Use { counted_as, count: 41, last_micros: later, client: "192.0.2.9".to_owned() };
    module.used(Used { uses: vec![unreadable, one] });
    let path = format!("/v2alpha1/admin/usage?filter=key_id={}&group_by=route", key.id);
    until("all 42 are counted", async || {
        let report = server.talos.admin.get(&path).await.expect(200).json();
        let rows = report["rows"].as_array().must("rows");
        let count = rows.iter().find(|row| row["route"] == "orders")?["count"].as_u64()?;
        assert!(count <= 42, "{report}");
        (count == 42).then_some(())
    })
    .await;
    assert!(server.talos.metric("talos_edge_uses_total").await >= 41.0);
    let used = async || {
        let key = server.talos.admin.get(&format!("{ISSUED}/{}", key.id)).await.expect(200).json();
        Some(key.get("last_used_time")?.as_str()?.to_owned())
    };
    let used = until("its use is noted", used).await;
    assert!(unix_seconds(&used) <= unix_now());
}
