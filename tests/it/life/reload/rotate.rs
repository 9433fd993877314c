//! Rotations, as an operator makes them, under load; and what is taken away is gone at once.

use serde_json::{Value, json};

use super::load::Load;
use super::{FIRST, Live, SECOND, key_set};
use crate::rig::check::Check;
use crate::rig::support::{Json, claims, unix_now, until};
use crate::rig::talos::JWKS;

/// A configuration as the steps of a rotation change it.
#[derive(Clone)]
struct Config {
    hmac: Value,
    issuer: &'static str,
    issuer_retired: Value,
    prefix: Value,
    macaroon_prefix: Value,
    signing_key_id: &'static str,
    keys: String,
}

impl Config {
    fn yaml(&self) -> String {
        // JSON is YAML.
        json!({
            "secrets": { "hmac": self.hmac },
            "credentials": {
                "issuer": self.issuer,
                "issuer_retired": self.issuer_retired,
                "api_keys": { "prefix": self.prefix },
                "derived_tokens": {
                    "macaroon": { "prefix": self.macaroon_prefix },
                    "jwt": { "signing_keys": { "urls": [self.keys] }, "signing_key_id": self.signing_key_id }
                }
            }
        })
        .to_string()
    }
}

/// A process with one secret, one issuer, one prefix and the signing key `a`.
async fn start(keys: &Value) -> (Live, Config) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("keys.json");
    std::fs::write(&file, keys.to_string()).expect("writing a key set");
    let config = Config {
        hmac: json!({ "current": FIRST }),
        issuer: "https://one.test",
        issuer_retired: json!([]),
        prefix: json!({ "current": "one" }),
        macaroon_prefix: json!({ "current": "mone" }),
        signing_key_id: "a",
        keys: format!("file://{}", file.display()),
    };
    (Live::start_in(dir, &config.yaml()).await, config)
}

fn kid(token: &str) -> String {
    // The header is JSON in base64url, as the claims are: read it with their reader.
    let (header, _) = token.split_once('.').unwrap_or_default();
    claims(&format!(".{header}.")).text("/kid").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_valid_request_is_refused_while_everything_is_rotated() {
    let (a, b) = (key_set("a"), key_set("b"));
    let both = json!({ "keys": [a["keys"][0], b["keys"][0]] });
    let (live, mut config) = start(&a).await;
    let first = live.talos.issue(json!({})).await;
    let load = Load::start(&live.talos, &first.secret).await;
    let macaroon = live.talos.derive(&first, json!({ "algorithm": "TOKEN_ALGORITHM_MACAROON" })).await;
    load.use_tokens(&[&macaroon, &live.talos.derive(&first, json!({})).await]).await;

    // The HMAC secret: the new one makes keys, the old one still verifies.
    config.hmac = json!({ "current": SECOND, "retired": [FIRST] });
    live.change(&config.yaml()).await;
    let second = live.talos.issue(json!({})).await;
    load.add_key(&second.secret).await;
    load.goes_on(300).await;

    // The signing key: published, then used, then the old one withdrawn.
    let generation = live.generation().await;
    live.put("keys.json", &both.to_string());
    live.is_in_force_after(generation).await;
    assert_eq!(live.talos.public.get(JWKS).await.json().at("/keys").as_array().map(Vec::len), Some(2));
    config.signing_key_id = "b";
    live.change(&config.yaml()).await;
    let token = live.talos.derive(&second, json!({})).await;
    assert_eq!(kid(&token), "b");
    assert_eq!(kid(&live.talos.check(Check::bearer(&first.secret)).await.allowed().token()), "b");
    load.goes_on(300).await;
    load.use_tokens(&[&macaroon, &token]).await;
    let generation = live.generation().await;
    live.put("keys.json", &b.to_string());
    live.is_in_force_after(generation).await;
    load.goes_on(300).await;

    // The issuer.
    config.issuer = "https://two.test";
    config.issuer_retired = json!(["https://one.test"]);
    live.change(&config.yaml()).await;
    let token = live.talos.derive(&first, json!({})).await;
    assert_eq!(claims(&token)["iss"], "https://two.test");
    load.goes_on(300).await;
    load.use_tokens(&[&macaroon, &token]).await;

    // The prefixes.
    config.prefix = json!({ "current": "two", "retired": ["one"] });
    config.macaroon_prefix = json!({ "current": "mtwo", "retired": ["mone"] });
    live.change(&config.yaml()).await;
    let third = live.talos.issue(json!({})).await;
    assert!(third.secret.starts_with("two_v1_"), "{}", third.secret);
    load.add_key(&third.secret).await;
    load.goes_on(300).await;

    let answered = load.end().await;
    println!("{answered} requests answered, none refused");
    assert_eq!(live.reloads("refused").await, 0.0);
    assert_eq!(live.talos.metric("talos_config_last_reload_successful").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_removed_prefixes_and_secrets_are_refused_at_once() {
    let (live, mut config) = start(&key_set("a")).await;
    config.prefix = json!({ "current": "one", "retired": ["two"], "public_current": "pub" });
    live.change(&config.yaml()).await;
    let first = live.talos.issue(json!({})).await;
    let public = live.talos.issue(json!({ "visibility": "KEY_VISIBILITY_PUBLIC" })).await;
    let token = live.talos.derive(&first, json!({})).await;
    let macaroon = live.talos.derive(&first, json!({ "algorithm": "TOKEN_ALGORITHM_MACAROON" })).await;
    let all = [&first.secret, &public.secret, &token, &macaroon];
    let is_gone = async |credential: &str, step: &str| {
        assert!(!live.is_valid(credential).await, "verify: {step}");
        assert!(!live.talos.check(Check::bearer(credential)).await.passes(), "Check: {step}");
    };
    // All of them are in the cache.
    for credential in all {
        assert!(live.talos.check(Check::bearer(credential)).await.passes());
    }

    config.prefix = json!({ "current": "one" });
    live.change(&config.yaml()).await;
    is_gone(&public.secret, "its prefix is gone").await;
    assert!(live.is_valid(&first.secret).await && live.is_valid(&token).await);

    config.macaroon_prefix = json!({ "current": "mtwo" });
    live.change(&config.yaml()).await;
    is_gone(&macaroon, "its prefix is gone").await;
    assert!(live.is_valid(&first.secret).await && live.is_valid(&token).await);

    config.issuer = "https://two.test";
    live.change(&config.yaml()).await;
    is_gone(&token, "its issuer is gone").await;
    let token = live.talos.derive(&first, json!({})).await;

    let generation = live.generation().await;
    config.signing_key_id = "b";
    live.put("keys.json", &key_set("b").to_string());
    live.put_config(&config.yaml());
    live.is_in_force_after(generation).await;
    is_gone(&token, "its signing key is gone").await;
    assert!(live.is_valid(&first.secret).await);

    config.hmac = json!({ "current": SECOND });
    live.change(&config.yaml()).await;
    is_gone(&first.secret, "its secret is gone").await;

    // A secret that returns verifies its keys again.
    config.hmac = json!({ "current": SECOND, "retired": [FIRST] });
    live.change(&config.yaml()).await;
    assert!(live.is_valid(&first.secret).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_value_ends_at_its_time_without_a_reload() {
    let (live, mut config) = start(&key_set("a")).await;
    let first = live.talos.issue(json!({})).await;
    let token = live.talos.derive(&first, json!({})).await;
    let end = unix_now().floor() as i64 + 6;
    let retired = |value: &str| json!([{ "value": value, "expires_at": end }]);
    config.hmac = json!({ "current": SECOND, "retired": retired(FIRST) });
    live.change(&config.yaml()).await;
    let second = live.talos.issue(json!({})).await;
    config.issuer = "https://two.test";
    config.issuer_retired = retired("https://one.test");
    config.prefix = json!({ "current": "two", "retired": retired("one") });
    live.change(&config.yaml()).await;
    let generation = live.generation().await;
    // The first ends with its secret and its prefix, the second with its prefix, the token with its
    // issuer.
    for credential in [&first.secret, &second.secret, &token] {
        let mut accepted = 0;
        until("the retired value ends", async || {
            let asked = unix_now();
            let checked = live.talos.check(Check::bearer(credential)).await.passes();
            let valid = live.is_valid(credential).await;
            if checked || valid {
                accepted += 1;
                assert!(asked < end as f64, "accepted at {asked}, after its end at {end}");
                return None;
            }
            assert!(unix_now() >= end as f64, "refused before its end at {end}");
            Some(())
        })
        .await;
        assert!(accepted > 0 || credential != &first.secret, "it was never accepted");
    }
    assert_eq!(live.generation().await, generation, "nothing was reloaded");
}
