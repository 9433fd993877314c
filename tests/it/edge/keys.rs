//! Keys of all kinds and in all states, presented by a client.

use serde_json::json;

use super::{Edge, challenge};
use crate::rig::http::{BOTH, Call, assert_envelope};
use crate::rig::python::verify_jwt;
use crate::rig::support::{Json, unix_now, unix_seconds, until};
use crate::rig::talos::{ISSUER, JWKS, NETWORK};

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_it_is_401_with_a_challenge() {
    needs!(Envoy);
    let edge = Edge::start().await;
    for version in BOTH {
        let reply = edge.refuses(version, Call::get("/orders"), 401).await;
        let challenge = challenge(&reply);
        assert!(challenge.starts_with("Bearer realm=\""), "{challenge}");
        assert!(!challenge.contains("error="), "no credential was shown: {challenge}");
        assert_envelope(&reply.json(), 401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_becomes_a_jwt_that_a_backend_verifies_and_goes_no_further() {
    needs!(Envoy, Python);
    let edge = Edge::start().await;
    for version in BOTH {
        let fields = json!({ "scopes": ["orders:read", "orders:write"], "metadata": { "team": "blue" } });
        let key = edge.talos.issue(fields).await;
        for call in [
            Call::get("/orders?page=2").bearer(&key.secret),
            Call::get("/orders?page=2").api_key(&key.secret),
        ] {
            let seen = edge.passes(version, call).await;
            seen.assert_without(&key.secret);
            assert_eq!(seen.path, "/orders?page=2");
            assert_eq!(seen.header("x-api-key"), None);
            let identity = [
                ("x-talos-actor-id", "alice"),
                ("x-talos-key-id", key.id.as_str()),
                ("x-talos-network-id", NETWORK),
                ("x-talos-scopes", "orders:read orders:write"),
            ];
            assert_eq!(seen.identity(), identity);

            let claims = verify_jwt(&edge.talos.public.url(JWKS), ISSUER, seen.token()).await;
            assert_eq!(claims.text("/sub"), key.id);
            assert_eq!(claims.text("/act"), "alice");
            assert_eq!(claims.text("/nid"), NETWORK);
            assert_eq!(claims.texts("/scp"), ["orders:read", "orders:write"]);
            assert_eq!(claims.text("/vis"), "secret");
            assert_eq!(claims.text("/meta/team"), "blue");
            assert_eq!(claims.get("acl"), None);
            assert_eq!(claims.get("aud"), None);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jwt_is_minted_once_and_used_again() {
    needs!(Envoy);
    let edge = Edge::start().await;
    let key = edge.talos.issue(json!({})).await;
    let first = edge.passes(BOTH[0], Call::get("/").bearer(&key.secret)).await;
    for version in BOTH {
        let again = edge.passes(version, Call::get("/").api_key(&key.secret)).await;
        assert_eq!(again.token(), first.token());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_admin_revoked_is_refused_on_the_very_next_request() {
    needs!(Envoy);
    let edge = Edge::start().await;
    for version in BOTH {
        let key = edge.talos.issue(json!({})).await;
        edge.passes(version, Call::get("/").bearer(&key.secret)).await;
        edge.talos.revoke(&key).await;
        let reply = edge.refuses(version, Call::get("/").bearer(&key.secret), 401).await;
        assert!(challenge(&reply).contains("error=\"invalid_token\""), "{}", challenge(&reply));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_its_holder_revoked_is_refused_on_the_very_next_request() {
    needs!(Envoy);
    let edge = Edge::start().await;
    for version in BOTH {
        let key = edge.talos.issue(json!({})).await;
        edge.passes(version, Call::get("/").bearer(&key.secret)).await;
        edge.talos.self_revoke(&key.secret).await.expect(200);
        edge.refuses(version, Call::get("/").bearer(&key.secret), 401).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_never_accepted_after_its_time() {
    needs!(Envoy);
    let edge = Edge::start().await;
    for version in BOTH {
        let key = edge.talos.issue(json!({ "ttl": "1s" })).await;
        let end = unix_seconds(key.resource.text("/expire_time"));
        let mut accepted = 0;
        until("the key expires", async || {
            let asked = unix_now();
            let reply = edge.send(version, Call::get("/").bearer(&key.secret)).await;
            if reply.status == 200 {
                accepted += 1;
                assert!(asked < end, "accepted at {asked}, after its end at {end}");
                return None;
            }
            assert!(unix_now() >= end, "refused before its end at {end}");
            reply.expect(401);
            Some(())
        })
        .await;
        assert!(accepted > 0, "the key was never accepted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_cannot_tell_an_expired_a_revoked_and_an_unknown_key_apart() {
    needs!(Envoy);
    let edge = Edge::start().await;
    let expired = edge.talos.issue(json!({ "ttl": "1s" })).await;
    let revoked = edge.talos.issue(json!({})).await;
    let unknown = edge.talos.issue(json!({})).await;
    edge.talos.revoke(&revoked).await;
    let (all_but_last, last) = unknown.secret.split_at(unknown.secret.len() - 1);
    let unknown = format!("{all_but_last}{}", if last == "2" { "3" } else { "2" });
    let end = unix_seconds(expired.resource.text("/expire_time"));
    until("the key expires", async || (unix_now() > end).then_some(())).await;
    for version in BOTH {
        let mut refusals = Vec::new();
        for credential in [&expired.secret, &revoked.secret, &unknown] {
            let reply = edge.refuses(version, Call::get("/").bearer(credential), 401).await;
            refusals.push((challenge(&reply).to_owned(), reply.text_without_id()));
        }
        assert_eq!(refusals[0], refusals[1]);
        assert_eq!(refusals[0], refusals[2]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_key_works() {
    needs!(Envoy, Python);
    let edge = Edge::start().await;
    for version in BOTH {
        let raw_key = format!("legacy-{version:?}-0123456789");
        let key = edge.talos.import(&raw_key, json!({ "actor_id": "bob", "scopes": ["a"] })).await;
        let seen = edge.passes(version, Call::get("/").api_key(&raw_key)).await;
        seen.assert_without(&raw_key);
        assert_eq!(seen.header("x-talos-key-id"), Some(key.id.as_str()));
        assert_eq!(seen.header("x-talos-actor-id"), Some("bob"));
        let claims = verify_jwt(&edge.talos.public.url(JWKS), ISSUER, seen.token()).await;
        assert_eq!(claims.text("/sub"), key.id);
    }
}

/// Every raw key that the admin plane imports can be presented in a request.
#[tokio::test(flavor = "multi_thread")]
async fn every_imported_key_can_be_presented() {
    needs!(Envoy);
    let edge = Edge::start().await;
    for raw_key in
        ["a key-0123", "a\tkey-0123", "k\"e;y=%20&+-0123", "a, key-0123", "schlüssel-0123", "鍵-0123"]
    {
        let key = edge.talos.import(raw_key, json!({})).await;
        for version in BOTH {
            let seen = edge.passes(version, Call::get("/").api_key(raw_key)).await;
            assert_eq!(seen.header("x-talos-key-id"), Some(key.id.as_str()), "{raw_key}");
        }
    }
}
