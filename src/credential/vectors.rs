//! Credentials made by independent libraries (PyJWT, cryptography, pymacaroons, base58).

use std::time::Duration;

use serde_json::Value;

use super::claims::{Authority, Expectation};
use super::jwk::KeySet;
use super::secrets::{HmacSecret, HmacSecrets};
use super::{Form, Presented, classify, imported, jwt, macaroon};
use crate::clock::Timestamp;
use crate::key::verdict::Denial;
use crate::key::{NetworkId, Scope};

const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../tests/vectors/credentials.json")).unwrap()
}

fn list<'a>(vectors: &'a Value, name: &str) -> &'a Vec<Value> {
    let list = vectors[name].as_array().unwrap();
    assert!(!list.is_empty(), "{name}");
    list
}

fn secrets(vectors: &Value) -> HmacSecrets {
    let secret = |text: &Value| HmacSecret::new(text.as_str().unwrap().as_bytes(), None);
    let retired = vectors["secrets"]["retired"].as_array().unwrap().iter().map(secret).collect();
    HmacSecrets::new(secret(&vectors["secrets"]["current"]), retired)
}

fn form(credential: &Value) -> Form<'_> {
    classify(Presented::new(credential.as_str().unwrap()).unwrap(), ["mc"])
}

#[test]
fn issued_keys() {
    let vectors = vectors();
    let secrets = secrets(&vectors);
    for case in list(&vectors, "api_keys") {
        let Form::Issued(parts) = form(&case["credential"]) else {
            panic!("{case}");
        };
        assert_eq!(parts.prefix(), case["prefix"], "{case}");
        let proof = parts.prove(&secrets, NOW);
        assert_eq!(proof.is_some(), case["checksum_valid"], "{case}");
        if let Some(proof) = proof {
            assert_eq!(proof.key_id.to_string(), case["key_id"], "{case}");
            assert_eq!(proof.issued_at.as_secs(), case["timestamp"], "{case}");
        }
    }
    for case in list(&vectors, "tampered_api_keys") {
        let Form::Issued(parts) = form(&case["credential"]) else {
            panic!("{case}");
        };
        assert_eq!(parts.prove(&secrets, NOW), None, "{case}");
    }
}

#[test]
fn imported_keys() {
    let vectors = vectors();
    for case in list(&vectors, "imported_keys") {
        let network = NetworkId::parse(case["network_id"].as_str().unwrap()).unwrap();
        let raw_key = case["raw_key"].as_str().unwrap();
        assert_eq!(form(&case["raw_key"]), Form::Imported);
        assert_eq!(imported::key_id(network, raw_key).to_string(), case["key_id"]);
    }
}

#[test]
fn jwts() {
    let vectors = vectors();
    let mut keys = KeySet::default();
    keys.read(&vectors["jwks"].to_string()).unwrap();
    for case in list(&vectors, "jwts") {
        assert_eq!(form(&case["token"]), Form::Jwt, "{case}");
        assert_judged(&vectors, case, |expected| {
            jwt::verify(&keys, case["token"].as_str().unwrap(), expected)
        });
    }
}

#[test]
fn macaroons() {
    let vectors = vectors();
    let secrets = secrets(&vectors);
    for case in list(&vectors, "macaroons") {
        let Form::Macaroon(parts) = form(&case["token"]) else {
            panic!("{case}");
        };
        assert_judged(&vectors, case, |expected| macaroon::verify(&secrets, &parts, expected));
    }
}

/// Verifies a token from an address that it allows, if it has any, and from another.
fn assert_judged(
    vectors: &Value,
    case: &Value,
    verify: impl Fn(&Expectation<'_>) -> Result<Authority, Denial>,
) {
    let from = |client: &str| {
        verify(&Expectation {
            network: NetworkId::SINGLE,
            now: NOW,
            clock_skew: Duration::from_secs(300),
            issuers: &[vectors["issuer"].as_str().unwrap()],
            audiences: &[],
            client: client.parse().ok(),
            max_age: None,
        })
    };
    match from("10.1.2.3") {
        Ok(authority) => {
            assert_eq!(case["valid"], true, "{case}");
            let claims = &case["claims"];
            assert_eq!(authority.key_id, claims["sub"]);
            assert_eq!(authority.actor.unwrap().as_str(), claims["act"]);
            let scopes: Vec<&str> = authority.scopes.iter().map(Scope::as_str).collect();
            assert_eq!(serde_json::json!(scopes), claims["scp"]);
            let metadata: Value = serde_json::from_str(authority.metadata.unwrap().json()).unwrap();
            assert_eq!(metadata, claims["meta"]);
            assert_eq!(Value::Object(authority.custom), serde_json::json!({ "tenant": claims["tenant"] }));
            assert_eq!(from("192.0.2.1").is_ok(), claims.get("acl").is_none(), "{case}");
        }
        Err(denial) => assert_eq!(denial.error_code(), case["error_code"], "{case}"),
    }
}

/// Tokens minted here verify with the vectors' keys, with both algorithms.
#[test]
fn minted_with_the_vectors_keys() {
    let vectors = vectors();
    let mut keys = KeySet::default();
    keys.read(&vectors["jwks"].to_string()).unwrap();
    for kid in ["ed-1", "rsa-1"] {
        let claims = serde_json::json!({
            "sub": "k", "iss": "i", "exp": NOW.as_secs() + 10, "nid": NetworkId::SINGLE.to_string(),
        });
        let signer = keys.signing(Some(kid)).unwrap();
        let token = jwt::sign(signer, &claims.to_string()).unwrap();
        assert_eq!(token.len(), jwt::signed_len(signer, &claims.to_string()));
        let expected = Expectation {
            network: NetworkId::SINGLE,
            now: NOW,
            clock_skew: Duration::ZERO,
            issuers: &["i"],
            audiences: &[],
            client: None,
            max_age: None,
        };
        assert_eq!(jwt::verify(&keys, &token, &expected).unwrap().key_id, "k");
    }
}
