//! The contents of answers to a Check.

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use prost::Message;
use serde_json::{Value, json};

use crate::rig::check::Check;
use crate::rig::http::assert_envelope;
use crate::rig::support::{Json, Must, claims, unix_now, until};
use crate::rig::talos::{NETWORK, Setup, Talos};

#[tokio::test(flavor = "multi_thread")]
async fn both_forms_of_headers_give_the_same_answer() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({ "scopes": ["a"] })).await;
    let asks = [
        Check::bearer(&key.secret).header("x-talos-foo", "mallory"),
        Check::api_key(&key.secret),
        Check::bearer(&key.secret).api_key_too(&key.secret),
        Check::bearer("garbage"),
        Check::default(),
        Check::bearer(&key.secret).api_key_too("other"),
    ];
    for (number, ask) in asks.into_iter().enumerate() {
        // An id that Talos makes would differ.
        let ask = ask.header("x-request-id", "same");
        let text = talos.check(ask.clone()).await;
        let raw = talos.check(ask.raw()).await;
        assert_eq!(text, raw, "ask {number}");
    }
}

impl Check {
    fn api_key_too(self, credential: &str) -> Check {
        self.header("x-api-key", credential)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_envoy_joined_are_two_credentials() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let asks = [
        Check::bearer(&key.secret).header("authorization", format!("Bearer {}", key.secret)),
        Check::api_key(&key.secret).api_key_too(&key.secret),
        Check::api_key(&key.secret).api_key_too("other"),
    ];
    for ask in asks {
        talos.check(ask.clone()).await.denied(400);
        talos.check(ask.raw()).await.denied(400);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_header_overwrites_in_the_words_of_every_envoy_version() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({ "scopes": ["a", "b"] })).await;
    for ask in [Check::bearer(&key.secret), Check::api_key(&key.secret)] {
        let allowed = talos.check(ask).await.allowed();
        for option in &allowed.ok.headers {
            #[allow(deprecated, reason = "Envoy up to 1.36 reads only this")]
            let append = option.append.as_ref().map(|append| append.value);
            assert_eq!(append, Some(false), "{option:?}");
            assert_eq!(option.append_action(), HeaderAppendAction::OverwriteIfExistsOrAdd, "{option:?}");
            let name = option.header.as_ref().map(|header| header.key.clone()).must("a header");
            assert!(!allowed.removes(&name), "{name} is set and removed: the removal wins");
        }
        assert_eq!(allowed.header("x-talos-key-id"), Some(key.id.clone()));
        assert_eq!(allowed.header("x-talos-actor-id").as_deref(), Some("alice"));
        assert_eq!(allowed.header("x-talos-scopes").as_deref(), Some("a b"));
        assert_eq!(allowed.header("x-talos-network-id").as_deref(), Some(NETWORK));
        assert_eq!(allowed.token().split('.').count(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_that_carried_the_key_is_removed_unless_overwritten() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let by_api_key = talos.check(Check::api_key(&key.secret)).await.allowed();
    assert!(by_api_key.removes("x-api-key"));
    let by_bearer = talos.check(Check::bearer(&key.secret)).await.allowed();
    assert!(by_bearer.header("authorization").is_some());
    // No scopes: the header that a client may have forged goes, seen or not.
    assert!(by_bearer.removes("x-talos-scopes"));
    assert_eq!(by_bearer.header("x-talos-scopes"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_headers_are_removed_in_every_mode() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let asks = [
        Check::bearer(&key.secret),
        Check::default().route("talos.mode", "optional"),
        Check::default().route("talos.mode", "off"),
        Check::bearer(&key.secret).route("talos.mode", "off"),
    ];
    for (number, ask) in asks.into_iter().enumerate() {
        let forged = ["x-talos-foo", "x-talos-actor-id", "x_talos_bar", "x-talos_actor_id"];
        let ask = forged.iter().fold(ask, |ask, name| ask.header(name, "mallory"));
        for ask in [ask.clone(), ask.raw()] {
            let allowed = talos.check(ask).await.allowed();
            for name in forged {
                let safe =
                    allowed.removes(name) || allowed.header(name).is_some_and(|value| value != "mallory");
                assert!(safe, "ask {number}: {name} stays: {:?}", allowed.ok);
            }
            for name in ["x-talos-key-id", "x-talos-actor-id", "x-talos-scopes", "x-talos-network-id"] {
                let safe = allowed.removes(name) != allowed.header(name).is_some();
                assert!(safe, "ask {number}: {name} is neither set nor removed, or both: {:?}", allowed.ok);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_tells_envoy_who_it_was() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({ "scopes": ["a", "b"] })).await;
    let allowed = talos.check(Check::bearer(&key.secret)).await.allowed();
    assert_eq!(allowed.fact("key_id"), json!(key.id));
    assert_eq!(allowed.fact("actor_id"), json!("alice"));
    assert_eq!(allowed.fact("network_id"), json!(NETWORK));
    assert_eq!(allowed.fact("scopes"), json!(["a", "b"]));
    assert_eq!(allowed.fact("visibility"), json!("secret"));
    assert_eq!((allowed.fact("decision"), allowed.fact("reason")), (json!("allow"), json!("ok")));
    for (mode, reason) in [("optional", "anonymous"), ("off", "off")] {
        let allowed = talos.check(Check::default().route("talos.mode", mode)).await.allowed();
        assert_eq!((allowed.fact("decision"), allowed.fact("reason")), (json!("allow"), json!(reason)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_has_a_challenge_and_the_error_envelope() {
    let talos = Talos::start().await;
    let cases =
        [(Check::default(), false), (Check::bearer("garbage"), true), (Check::api_key("garbage"), true)];
    for (ask, shown) in cases {
        let denied = talos.check(ask).await.denied(401);
        let challenge = denied.header("www-authenticate").must("a challenge");
        assert!(challenge.starts_with("Bearer realm=\""), "{challenge}");
        assert_eq!(challenge.contains("error=\"invalid_token\""), shown, "{challenge}");
        assert_eq!(denied.header("content-type"), Some("application/json"));
        assert_envelope(&serde_json::from_str(&denied.body).must("a JSON body"), 401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_client_gets_a_short_plain_message() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let cases = [
        (Check::default(), 401),
        (Check::bearer("garbage"), 401),
        (Check::bearer(&key.secret).route("talos.scopes", "x"), 403),
    ];
    for (ask, status) in cases {
        for kind in ["application/grpc", "application/grpc+proto"] {
            let denied = talos.check(ask.clone().header("content-type", kind)).await.denied(status);
            let plain = !denied.body.contains(['{', '\n']) && (1..100).contains(&denied.body.len());
            assert!(plain, "{:?}", denied.body);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_over_long_credential_is_400() {
    let talos = Talos::start().await;
    let long = "x".repeat(17 * 1024);
    talos.check(Check::bearer(&long)).await.denied(400);
    talos.check(Check::api_key(&long).raw()).await.denied(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_minted_token_ends_no_later_than_its_key() {
    let talos = Talos::start().await;
    let short = talos.issue(json!({ "ttl": "60s" })).await;
    let end = crate::rig::support::unix_seconds(short.resource.text("/expire_time"));
    let claims =
        crate::rig::support::claims(&talos.check(Check::bearer(&short.secret)).await.allowed().token());
    assert!(claims.at("/exp").as_f64().must("exp") <= end.ceil(), "{claims:#}");

    let long = talos.issue(json!({})).await;
    let claims =
        crate::rig::support::claims(&talos.check(Check::bearer(&long.secret)).await.allowed().token());
    let life = claims.at("/exp").as_f64().must("exp") - claims.at("/iat").as_f64().must("iat");
    assert_eq!(life, 600.0, "authz.token_ttl and credentials.clock_skew");
}

/// A backend whose clock is behind takes a token that was made this moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_minted_token_is_valid_for_clocks_that_are_behind() {
    const MAX_TTL: &str = "TALOS_CREDENTIALS_DERIVED_TOKENS_MAX_TTL";
    // The skew, the largest age of a token, and by what it is dated back.
    for (skew, max_ttl, earlier) in
        [("0s", "24h", 0), ("90s", "24h", 90), ("5m", "6m", 60), ("5m", "2h", 300)]
    {
        let setup = Setup::new().set("TALOS_CREDENTIALS_CLOCK_SKEW", skew).set(MAX_TTL, max_ttl);
        let talos = setup.set("TALOS_CREDENTIALS_DERIVED_TOKENS_DEFAULT_TTL", "60s").start().await;
        let key = talos.issue(json!({})).await;
        let macaroon = talos.derive(&key, json!({ "algorithm": "TOKEN_ALGORITHM_MACAROON" })).await;
        for credential in [&key.secret, &macaroon] {
            let before = unix_now().floor() as i64;
            let token = talos.check(Check::bearer(credential)).await.allowed().token();
            let after = unix_now().floor() as i64;
            let claim = |name: &str| claims(&token).at(name).as_i64().must(name);
            assert!((before - earlier..=after - earlier).contains(&claim("/iat")), "{skew} {max_ttl}");
            assert_eq!(claim("/nbf"), claim("/iat"));
            // The token is valid for its whole life, also when it is presented here.
            talos.check(Check::bearer(&token)).await.allowed();
        }
        let derived = claims(&talos.derive(&key, json!({})).await);
        assert!(derived.at("/iat").as_f64().must("iat") >= unix_now().floor() - 60.0, "{derived:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_is_too_large_is_logged_once_and_counted() {
    let talos = Talos::start().await;
    let before = talos.metric("talos_streams_refused_total").await;
    for _ in 0..2 {
        let message = Check::default().header("x-large", "a".repeat(5 * 1024 * 1024)).build().encode_to_vec();
        // The client may learn of the end before it has sent all.
        if let Ok(answer) = talos.grpc().await.check_bytes(message).await {
            assert_eq!(answer.code, 8, "{}", answer.text);
        }
    }
    let counted = async || (talos.metric("talos_streams_refused_total").await == before + 2.0).then_some(());
    until("both are counted", counted).await;
    let log = talos.process.log();
    assert_eq!(log.matches("remove with_request_body").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_set_that_can_only_verify_lets_requests_pass_without_a_token() {
    let setup = Setup::new();
    let path = setup.path("signing-keys.json");
    let mut keys: Value = serde_json::from_str(&std::fs::read_to_string(&path).must("the keys")).must("JSON");
    for key in keys["keys"].as_array_mut().must("a list") {
        key.as_object_mut().must("a key").remove("d").must("its private part");
    }
    std::fs::write(&path, keys.to_string()).must("writing public keys");
    let talos = setup.start().await;
    let key = talos.issue(json!({})).await;
    let allowed = talos.check(Check::bearer(&key.secret)).await.allowed();
    assert_eq!(allowed.header("authorization"), None);
}
