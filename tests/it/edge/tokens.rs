//! Derived tokens that a client presents itself.

use serde_json::json;

use super::{Edge, challenge};
use crate::rig::http::{BOTH, Call};
use crate::rig::python::{narrow_macaroon, verify_jwt};
use crate::rig::support::{Json, claims, unix_now, until};
use crate::rig::talos::{HMAC_SECRET, ISSUER, JWKS, Setup, generate};

#[tokio::test(flavor = "multi_thread")]
async fn a_derived_jwt_goes_upstream_as_it_is() {
    needs!(Envoy, Python);
    let edge = Edge::start().await;
    let key = edge.talos.issue(json!({ "scopes": ["reports:read", "a"] })).await;
    let token = edge.talos.derive(&key, json!({ "scopes": ["reports:read"], "ttl": "60s" })).await;
    for version in BOTH {
        let forged = Call::get("/reports").header("x-talos-actor-id", "mallory");
        for call in [forged.clone().bearer(&token), forged.api_key(&token)] {
            let seen = edge.passes(version, call).await;
            assert_eq!(seen.token(), token);
            assert_eq!(seen.header("x-api-key"), None);
            assert_eq!(seen.header("x-talos-actor-id"), Some("alice"));
            assert_eq!(seen.header("x-talos-key-id"), Some(key.id.as_str()));
            assert_eq!(seen.header("x-talos-scopes"), Some("reports:read"));
        }
    }
    let claims = verify_jwt(&edge.talos.public.url(JWKS), ISSUER, &token).await;
    assert_eq!(claims.text("/sub"), key.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_derived_jwt_must_have_the_scope_of_the_route() {
    needs!(Envoy);
    let edge = Edge::start().await;
    let key = edge.talos.issue(json!({ "scopes": ["reports:read", "a"] })).await;
    let token = edge.talos.derive(&key, json!({ "scopes": ["a"] })).await;
    for version in BOTH {
        let reply = edge.refuses(version, Call::get("/reports").bearer(&token), 403).await;
        assert!(challenge(&reply).contains("insufficient_scope"), "{}", challenge(&reply));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_derived_jwt_is_never_accepted_after_its_time() {
    needs!(Envoy);
    let edge = Edge::start().await;
    let key = edge.talos.issue(json!({})).await;
    for version in BOTH {
        let token = edge.talos.derive(&key, json!({ "ttl": "1s" })).await;
        let end = claims(&token).at("/exp").as_f64().unwrap_or_default();
        until("the token expires", async || {
            let asked = unix_now();
            let reply = edge.send(version, Call::get("/").bearer(&token)).await;
            if reply.status == 200 {
                assert!(asked < end, "accepted at {asked}, after its end at {end}");
                return None;
            }
            reply.expect(401);
            Some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_that_is_not_ours_or_was_changed_is_refused() {
    needs!(Envoy);
    let edge = Edge::start().await;
    let key = edge.talos.issue(json!({})).await;
    let good = edge.talos.derive(&key, json!({})).await;
    let foreign = Edge::with_other_keys().await;
    let foreign_key = foreign.issue(json!({})).await;
    let foreign_token = foreign.derive(&foreign_key, json!({})).await;

    let parts: Vec<&str> = good.split('.').collect();
    let other: Vec<&str> = foreign_token.split('.').collect();
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIiwia2lkIjoiaXQtMSJ9"; // {"alg":"none","typ":"JWT","kid":"it-1"}
    let bad = [
        foreign_token.clone(),
        format!("{}.{}.{}", parts[0], other[1], parts[2]),
        format!("{}.{}.{}", parts[0], parts[1], other[2]),
        format!("{none}.{}.{}", parts[1], parts[2]),
        format!("{}.{}.AAAA", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}.{}.", parts[0], parts[1]),
        "eyJhbGciOiJFZERTQSJ9.e30.AAAA".to_owned(),
        "eyJ.eyJ.eyJ".to_owned(),
    ];
    for version in BOTH {
        edge.passes(version, Call::get("/").bearer(&good)).await;
        for token in &bad {
            for path in ["/", "/anonymous"] {
                let reply = edge.refuses(version, Call::get(path).bearer(token), 401).await;
                assert!(challenge(&reply).contains("error=\"invalid_token\""), "{token}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_rsa_key_signs_rs256_that_a_backend_verifies() {
    needs!(Envoy, Python);
    let setup = Setup::new();
    let file = setup.path("rsa.json");
    generate("rsa", &file);
    let urls = format!("file://{}", file.display());
    let edge =
        Edge::with(setup.set("TALOS_CREDENTIALS_DERIVED_TOKENS_JWT_SIGNING_KEYS_URLS", &urls), &[]).await;
    let key = edge.talos.issue(json!({})).await;
    for version in BOTH {
        let seen = edge.passes(version, Call::get("/").bearer(&key.secret)).await;
        let claims = verify_jwt(&edge.talos.public.url(JWKS), ISSUER, seen.token()).await;
        assert_eq!(claims.text("/sub"), key.id);
        assert!(seen.token().starts_with("eyJ"), "{}", seen.token());
    }
    let keys = edge.talos.public.get(JWKS).await.expect(200).json();
    assert_eq!(keys.text("/keys/0/kty"), "RSA");
}

impl Edge {
    /// A Talos with the same issuer and key name but a signing key of its own.
    async fn with_other_keys() -> crate::rig::talos::Talos {
        let setup = Setup::new();
        let file = setup.path("other.json");
        generate("eddsa", &file);
        let urls = format!("file://{}", file.display());
        setup.set("TALOS_CREDENTIALS_DERIVED_TOKENS_JWT_SIGNING_KEYS_URLS", &urls).start().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_macaroon_goes_upstream_as_a_jwt_with_what_is_left_of_it() {
    needs!(Envoy, Python);
    let edge = Edge::start().await;
    let metadata = json!({ "team": "blue" });
    let key = edge.talos.issue(json!({ "scopes": ["reports:*", "a"], "metadata": metadata })).await;
    let asked = json!({
        "algorithm": "TOKEN_ALGORITHM_MACAROON",
        "scopes": ["reports:*"],
        "ttl": "60s",
        "custom_claims": { "plan": "gold" },
    });
    let token = edge.talos.derive(&key, asked).await;
    let soon = unix_now() as u64 + 20;
    let caveat = json!({ "iss": ISSUER, "scp": ["reports:read", "a"], "exp": soon, "acl": ["127.0.0.0/8"] });
    let token = narrow_macaroon(HMAC_SECRET, &token, &caveat).await;
    for version in BOTH {
        let forged = Call::get("/reports").header("x-talos-actor-id", "mallory");
        for call in [forged.clone().bearer(&token), forged.api_key(&token)] {
            let seen = edge.passes(version, call).await;
            seen.assert_without(&token);
            assert_eq!(seen.header("x-api-key"), None);
            assert_eq!(seen.header("x-talos-actor-id"), Some("alice"));
            assert_eq!(seen.header("x-talos-key-id"), Some(key.id.as_str()));
            assert_eq!(seen.header("x-talos-scopes"), Some("reports:read"));
            let claims = verify_jwt(&edge.talos.public.url(JWKS), ISSUER, seen.token()).await;
            assert_eq!(claims.text("/sub"), key.id);
            assert_eq!(claims.text("/act"), "alice");
            assert_eq!(claims.texts("/scp"), ["reports:read"]);
            assert_eq!(claims.texts("/acl"), ["127.0.0.0/8"]);
            assert_eq!(claims.text("/meta/team"), "blue");
            assert_eq!(claims.text("/plan"), "gold");
            assert_eq!(claims.at("/exp"), soon, "no longer than the macaroon");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_macaroon_must_satisfy_the_route() {
    needs!(Envoy, Python);
    let edge = Edge::start().await;
    let key = edge.talos.issue(json!({ "scopes": ["reports:read", "a"] })).await;
    let good = edge.talos.derive(&key, json!({ "algorithm": "TOKEN_ALGORITHM_MACAROON" })).await;
    let (less, far) =
        (json!({ "iss": ISSUER, "scp": ["a"] }), json!({ "iss": ISSUER, "acl": ["192.0.2.0/24"] }));
    let without = narrow_macaroon(HMAC_SECRET, &good, &less).await;
    let elsewhere = narrow_macaroon(HMAC_SECRET, &good, &far).await;
    let forged = format!("{}A", &good[..good.len() - 1]);
    let forged = if forged == good { format!("{}E", &good[..good.len() - 1]) } else { forged };
    for version in BOTH {
        edge.passes(version, Call::get("/reports").bearer(&good)).await;
        edge.passes(version, Call::get("/").bearer(&without)).await;
        let reply = edge.refuses(version, Call::get("/reports").bearer(&without), 403).await;
        assert!(challenge(&reply).contains("insufficient_scope"), "{}", challenge(&reply));
        edge.refuses(version, Call::get("/").bearer(&elsewhere), 403).await;
        edge.refuses(version, Call::get("/anonymous").bearer(&forged), 401).await;
    }
}
