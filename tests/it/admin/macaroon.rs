//! Macaroons derived from keys, and pymacaroons, which reads, narrows and mints them as we do.

use serde_json::{Value, json};

use crate::rig::check::Check;
use crate::rig::python::{mint_macaroon, narrow_macaroon, open_macaroon};
use crate::rig::support::{Json, Must, assert_no_null, unix_now, unix_seconds};
use crate::rig::talos::{DERIVE, HMAC_SECRET, IMPORTED, ISSUER, Key, NETWORK, Setup, Talos, VERIFY};

const OLD_SECRET: &str = "a-secret-that-was-replaced-by-another-012345";
const PREFIX: &str = "TALOS_CREDENTIALS_DERIVED_TOKENS_MACAROON_PREFIX_CURRENT";
const RETIRED: &str = "TALOS_CREDENTIALS_DERIVED_TOKENS_MACAROON_PREFIX_RETIRED";

async fn derive(talos: &Talos, key: &Key, mut fields: Value) -> Value {
    fields["credential"] = key.secret.as_str().into();
    fields["algorithm"] = "TOKEN_ALGORITHM_MACAROON".into();
    talos.admin.post(DERIVE, &fields).await.expect(200).json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_macaroon_is_derived_and_verified_like_a_jwt() {
    needs!(Python);
    let talos = Talos::start().await;
    let fields = json!({
        "scopes": ["a", "b:*"],
        "metadata": { "team": "blue" },
        "ip_restriction": { "allowed_cidrs": ["127.0.0.0/8"] },
    });
    for key in [talos.issue(fields.clone()).await, talos.import("legacy-0123456789", fields).await] {
        let asked = json!({
            "scopes": ["b:read"],
            "ttl": "120s",
            "audiences": ["billing"],
            "custom_claims": { "plan": "gold", "sub": "mallory", "iss": "mallory", "acl": [] },
        });
        let answer = derive(&talos, &key, asked).await;
        assert_no_null(&answer);
        let token = answer.text("/token/token");
        assert!(token.starts_with("mc_v1_AgE"), "{token}");
        assert_eq!(answer.texts("/token/scopes"), ["b:read"]);
        assert_eq!(answer.texts("/token/audiences"), ["billing"]);

        let found = open_macaroon(HMAC_SECRET, token, &[]).await;
        assert_eq!(found.text("/again"), token, "two writers, one form");
        assert_eq!(found.text("/location"), ISSUER);
        let claims = found.at("/caveats/0");
        assert_eq!(answer.at("/token/claims"), claims);
        assert_eq!(found.at("/identifier"), &json!({ "jti": claims.text("/jti") }));
        assert_eq!(found.at("/caveats").as_array().map(Vec::len), Some(1));
        assert_eq!(claims.text("/sub"), key.id);
        assert_eq!(claims.text("/iss"), ISSUER);
        assert_eq!(claims.text("/nid"), NETWORK);
        assert_eq!(claims.text("/plan"), "gold");
        assert_eq!(claims.texts("/acl"), ["127.0.0.0/8"]);
        let end = claims.at("/exp").as_f64().unwrap_or_default();
        assert_eq!(end - claims.at("/iat").as_f64().unwrap_or_default(), 120.0);
        assert_eq!(unix_seconds(answer.text("/token/expire_time")), end);

        let verified = talos.verify(token).await;
        assert_no_null(&verified);
        assert_eq!(verified.at("/is_valid"), true, "{verified:#}");
        assert_eq!(verified.text("/key_id"), key.id);
        assert_eq!(verified.text("/actor_id"), "alice");
        assert_eq!(verified.text("/issuer"), ISSUER);
        assert_eq!(verified.texts("/scopes"), ["b:read"]);
        assert_eq!(verified.texts("/audiences"), ["billing"]);
        assert_eq!(verified.at("/metadata"), &json!({ "team": "blue" }));
        assert_eq!(verified.text("/expire_time"), answer.text("/token/expire_time"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_macaroon_needs_no_signing_key() {
    let setup = Setup::new().unset("TALOS_CREDENTIALS_DERIVED_TOKENS_JWT_SIGNING_KEYS_URLS");
    let talos = setup.start().await;
    let key = talos.issue(json!({ "scopes": ["a"] })).await;
    talos.admin.post(DERIVE, &json!({ "credential": key.secret })).await.expect(409);
    let token = derive(&talos, &key, json!({})).await;
    let token = token.text("/token/token");
    assert_eq!(talos.verify(token).await.texts("/scopes"), ["a"]);
    let allowed = talos.check(Check::bearer(token)).await.allowed();
    assert!(allowed.removes("authorization"), "a macaroon never goes upstream");
    assert_eq!(allowed.header("authorization"), None);
    assert_eq!(allowed.header("x-talos-key-id"), Some(key.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_parent_has_is_refused() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({ "scopes": ["a", "b:*"], "ttl": "60s" })).await;
    let token = derive(&talos, &key, json!({ "ttl": "10s" })).await;
    let token = token.text("/token/token");
    for (mut body, status) in [
        (json!({ "scopes": ["c"], "ttl": "10s" }), 403),
        (json!({ "ttl": "3600s" }), 400),
        (json!({ "ttl": "10s", "custom_claims": { "x": "y".repeat(4096) } }), 400),
    ] {
        body["credential"] = key.secret.as_str().into();
        body["algorithm"] = "TOKEN_ALGORITHM_MACAROON".into();
        talos.admin.post(DERIVE, &body).await.expect(status);
    }
    let again = json!({ "credential": token, "algorithm": "TOKEN_ALGORITHM_MACAROON" });
    talos.admin.post(DERIVE, &again).await.expect_error(400, "INVALID_TOKEN_TYPE");
    talos.self_revoke(token).await.expect_error(400, "DERIVED_TOKEN_NOT_REVOCABLE");
    assert_eq!(talos.verify(token).await["is_valid"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_too_long_to_be_presented_is_not_derived() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let many = |count: usize| -> Vec<String> { (0..count).map(|number| format!("{number:0100}")).collect() };
    for algorithm in ["TOKEN_ALGORITHM_JWT", "TOKEN_ALGORITHM_MACAROON"] {
        let body =
            |count| json!({ "credential": key.secret, "algorithm": algorithm, "audiences": many(count) });
        let message = talos.admin.post(DERIVE, &body(130)).await.expect_bad_request();
        assert!(message.contains("audiences") && message.contains("16384"), "{message}");
        let longest = talos.admin.post(DERIVE, &body(110)).await.expect(200).json();
        assert_eq!(talos.verify(longest.text("/token/token")).await["is_valid"], true);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn caveats_that_a_holder_adds_are_enforced() {
    needs!(Python);
    let talos = Talos::start().await;
    let key = talos.issue(json!({ "scopes": ["a:*", "b"] })).await;
    let token = derive(&talos, &key, json!({})).await;
    let token = token.text("/token/token");
    let soon = unix_now().floor() + 600.0;

    let caveat = json!({ "iss": ISSUER, "scp": ["a:read", "c"], "exp": soon as u64, "acl": ["127.0.0.0/8"] });
    let narrow = narrow_macaroon(HMAC_SECRET, token, &caveat).await;
    let verified = talos.verify(&narrow).await;
    assert_eq!(verified["is_valid"], true, "{verified:#}");
    assert_eq!(verified.texts("/scopes"), ["a:read"]);
    assert_eq!(unix_seconds(verified.text("/expire_time")), soon);
    let wider = json!({ "iss": ISSUER, "scp": ["a:*"], "exp": soon as u64 + 600 });
    let narrower = narrow_macaroon(HMAC_SECRET, &narrow, &wider).await;
    assert_eq!(talos.verify(&narrower).await.texts("/scopes"), ["a:read"], "nothing comes back");

    for (caveat, code) in [
        (json!({ "iss": ISSUER, "acl": ["192.0.2.0/24"] }), "VERIFICATION_ERROR_IP_NOT_ALLOWED"),
        (json!({ "iss": ISSUER, "exp": 1_760_000_000 }), "VERIFICATION_ERROR_EXPIRED"),
        (json!({ "iss": ISSUER, "nonesuch": 1 }), "VERIFICATION_ERROR_SIGNATURE_INVALID"),
        (json!({ "iss": "https://evil.test" }), "VERIFICATION_ERROR_SIGNATURE_INVALID"),
        (json!({ "exp": soon as u64 }), "VERIFICATION_ERROR_SIGNATURE_INVALID"),
    ] {
        let verified = talos.verify(&narrow_macaroon(HMAC_SECRET, token, &caveat).await).await;
        assert_eq!(verified["is_valid"], false, "{caveat}");
        assert_eq!(verified.text("/error_code"), code, "{caveat}");
    }
    assert_eq!(talos.verify(token).await.texts("/scopes"), ["a:*", "b"], "the original is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_macaroon_that_pymacaroons_minted_is_as_good_as_ours() {
    needs!(Python);
    let talos = Setup::new().set("TALOS_SECRETS_HMAC_RETIRED", OLD_SECRET).start().await;
    let now = unix_now() as u64;
    let claims = |changes: Value| {
        let mut claims = json!({
            "jti": "db35592f-5c0d-4393-bda8-ba95ec40ff4e", "sub": "4208b506-e7e1-48bf-b14d-6806775084df",
            "iss": ISSUER, "iat": now, "nbf": now, "exp": now + 600, "nid": NETWORK, "act": "bob",
            "scp": ["a", "b"], "vis": "secret",
        });
        claims.as_object_mut().must("an object").extend(changes.as_object().must("an object").clone());
        claims
    };
    for secret in [HMAC_SECRET, OLD_SECRET] {
        let token = mint_macaroon(secret, &claims(json!({}))).await;
        let verified = talos.verify(&token).await;
        assert_eq!(verified["is_valid"], true, "{verified:#}");
        assert_eq!(verified.text("/actor_id"), "bob");
        assert_eq!(verified.texts("/scopes"), ["a", "b"]);
    }
    let other_network = json!({ "nid": "6c5a2a2e-6f0e-4c4b-9d5a-0c6b2d3e4f50" });
    for (secret, changes, code) in [
        ("a-secret-that-nobody-knows-0123456789", json!({}), "VERIFICATION_ERROR_SIGNATURE_INVALID"),
        (HMAC_SECRET, json!({ "iss": "https://evil.test" }), "VERIFICATION_ERROR_SIGNATURE_INVALID"),
        (HMAC_SECRET, json!({ "exp": now - 1 }), "VERIFICATION_ERROR_EXPIRED"),
        (HMAC_SECRET, json!({ "nbf": now + 400 }), "VERIFICATION_ERROR_EXPIRED"),
        (HMAC_SECRET, other_network, "VERIFICATION_ERROR_NOT_FOUND"),
        (HMAC_SECRET, json!({ "acl": ["192.0.2.0/24"] }), "VERIFICATION_ERROR_IP_NOT_ALLOWED"),
    ] {
        let verified = talos.verify(&mint_macaroon(secret, &claims(changes.clone())).await).await;
        assert_eq!(verified["is_valid"], false, "{changes}");
        assert_eq!(verified.text("/error_code"), code, "{changes}");
    }
    let bound = mint_macaroon(HMAC_SECRET, &claims(json!({ "aud": ["billing"] }))).await;
    for (expected, valid) in [("billing", true), ("mail", false)] {
        let body = json!({ "credential": bound, "expected_audiences": [expected] });
        assert_eq!(talos.admin.post(VERIFY, &body).await.expect(200).json()["is_valid"], valid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_prefix_counts_until_it_expires_and_never_makes_a_key() {
    let talos = Setup::new().set(PREFIX, "old").start().await;
    let key = talos.issue(json!({})).await;
    let token = derive(&talos, &key, json!({})).await;
    let token = token.text("/token/token");
    assert!(token.starts_with("old_v1_"), "{token}");
    let setup = talos.setup.clone().unset(PREFIX);
    talos.stop().await;

    for (expires_at, valid) in [("2100-01-01T00:00:00Z", true), ("2020-01-01T00:00:00Z", false)] {
        let setup = setup.clone().set(&format!("{RETIRED}_0_VALUE"), "old");
        let talos = setup.set(&format!("{RETIRED}_0_EXPIRES_AT"), expires_at).start().await;
        let verified = talos.verify(token).await;
        assert_eq!(verified["is_valid"], valid, "{verified:#}");
        if !valid {
            assert_eq!(verified.text("/error_code"), "VERIFICATION_ERROR_NOT_FOUND");
        }
        let body = json!({ "name": "n", "actor_id": "a", "raw_key": token });
        talos.admin.post(IMPORTED, &body).await.expect_bad_request();
        talos.self_revoke(token).await.expect_error(400, "DERIVED_TOKEN_NOT_REVOCABLE");
        talos.stop().await;
    }
}
