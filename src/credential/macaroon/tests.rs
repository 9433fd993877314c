//! Tests of macaroons: what they allow with holders' caveats, and what is refused.

use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use serde_json::{Value, json};

use super::*;
use crate::key::{AddressList, NetworkId, Scope, Scopes, covers};

const NOW: i64 = 1_790_000_000;
const ISSUERS: [&str; 2] = ["https://i", "https://old"];

fn secret(text: &str, expires: Option<i64>) -> HmacSecret {
    HmacSecret::new(text.as_bytes(), expires.map(Timestamp::from_secs))
}

fn secrets() -> HmacSecrets {
    HmacSecrets::new(secret("current", None), vec![secret("retired", None)])
}

fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "sub": "k", "iss": ISSUERS[0], "exp": NOW + 100, "nbf": NOW - 100,
        "nid": NetworkId::SINGLE.to_string(), "scp": ["a:*", "b"],
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn minted(claims: &Value) -> String {
    let issuer = claims["iss"].as_str().unwrap_or_default();
    make(&secrets(), "mc", issuer, Uuid::nil(), &claims.to_string())
}

/// Adds a caveat as a holder does, who needs only the last signature.
fn with_caveat(token: &str, caveat: &str) -> String {
    let bytes = decoded(token);
    let mut macaroon = Macaroon::parse(&bytes).unwrap();
    macaroon.caveats.push(caveat.as_bytes());
    macaroon.signature = hmac_sha256(&macaroon.signature, caveat.as_bytes());
    encoded(&macaroon.write())
}

fn decoded(token: &str) -> Vec<u8> {
    BASE64URL.decode(token.strip_prefix("mc_v1_").unwrap()).unwrap()
}

fn encoded(bytes: &[u8]) -> String {
    format!("mc_v1_{}", BASE64URL.encode(bytes))
}

fn verify_from(client: Option<IpAddr>, secrets: &HmacSecrets, token: &str) -> Result<Authority, Denial> {
    verify_as(client, secrets, token, None)
}

fn verify_as(
    client: Option<IpAddr>,
    secrets: &HmacSecrets,
    token: &str,
    max_age: Option<Duration>,
) -> Result<Authority, Denial> {
    let parts = Parts::split(token, "mc").unwrap();
    let expected = Expectation {
        network: NetworkId::SINGLE,
        now: Timestamp::from_secs(NOW),
        clock_skew: Duration::from_secs(5),
        issuers: &ISSUERS,
        audiences: &[],
        client,
        max_age,
    };
    verify(secrets, &parts, &expected)
}

fn verified(token: &str) -> Result<Authority, Denial> {
    verify_from(Some(IpAddr::from([10, 1, 2, 3])), &secrets(), token)
}

#[test]
fn a_macaroon_says_what_its_claims_say() {
    let token = minted(&claims(json!({ "act": "u", "aud": "x", "plan": "gold", "iat": 5, "vis": "public" })));
    let authority = verified(&token).unwrap();
    assert_eq!(authority.format, TokenFormat::Macaroon);
    assert_eq!(authority.key_id, "k");
    assert_eq!(authority.actor.unwrap().as_str(), "u");
    assert_eq!(authority.scopes.to_string(), "a:* b");
    assert_eq!(authority.audiences, ["x"]);
    assert_eq!(authority.expires, Timestamp::from_secs(NOW + 100));
    assert_eq!(Value::from(authority.custom), json!({ "plan": "gold" }));
    let identifier = Macaroon::parse(&decoded(&token)).unwrap().identifier.to_vec();
    assert_eq!(identifier, br#"{"jti":"00000000-0000-0000-0000-000000000000"}"#);
}

#[test]
fn claims_are_judged_like_those_of_a_jwt() {
    for (changes, denial) in [
        (json!({ "exp": NOW }), Denial::Expired),
        (json!({ "nbf": NOW + 6 }), Denial::Expired),
        (json!({ "iss": "https://evil" }), Denial::SignatureInvalid),
        (json!({ "iss": null }), Denial::SignatureInvalid),
        (json!({ "nid": "6c5a2a2e-6f0e-4c4b-9d5a-0c6b2d3e4f50" }), Denial::NotFound),
        (json!({ "nid": null }), Denial::NotFound),
        (json!({ "acl": ["192.0.2.0/24"] }), Denial::AddressNotAllowed),
        (json!({ "acl": ["all"] }), Denial::SignatureInvalid),
        (json!({ "scp": ["a b"] }), Denial::SignatureInvalid),
        (json!({ "vis": "nonesuch" }), Denial::SignatureInvalid),
        (json!({ "exp": "soon" }), Denial::SignatureInvalid),
    ] {
        assert_eq!(verified(&minted(&claims(changes.clone()))).unwrap_err(), denial, "{changes}");
    }
    let elsewhere = make(&secrets(), "mc", "https://evil", Uuid::nil(), &claims(json!({})).to_string());
    assert_eq!(verified(&elsewhere).unwrap_err(), Denial::SignatureInvalid, "another location");
}

/// The setting in force limits the age of tokens, whatever their `exp`.
#[test]
fn an_old_token_has_expired() {
    let hour = Some(Duration::from_secs(3_600));
    let (nearly, whole) = (Some(Duration::from_millis(3_599_500)), NOW - 3_600);
    let ends = |changes: Value, max_age| {
        let verified = verify_as(None, &secrets(), &minted(&claims(changes)), max_age);
        verified.map(|authority| authority.expires.as_secs() - NOW)
    };
    for (changes, max_age, expected) in [
        (json!({ "iat": whole, "exp": NOW + 9_999 }), None, Ok(9_999)),
        (json!({ "iat": whole + 1, "exp": NOW + 9_999 }), hour, Ok(1)),
        (json!({ "iat": whole, "exp": NOW + 9_999 }), hour, Err(Denial::Expired)),
        (json!({ "iat": whole + 1, "exp": NOW + 9_999 }), nearly, Ok(1)),
        (json!({ "iat": i64::MIN, "exp": i64::MAX }), hour, Err(Denial::Expired)),
        (json!({ "iat": NOW, "exp": NOW + 60 }), hour, Ok(60)),
        // Without `iat`, `nbf` counts. Without both, only a token that expires soon is accepted.
        (json!({ "exp": NOW + 9_999 }), hour, Ok(3_500)),
        (json!({ "nbf": null, "exp": NOW + 3_600 }), hour, Ok(3_600)),
        (json!({ "nbf": null, "exp": NOW + 3_601 }), hour, Err(Denial::Expired)),
    ] {
        assert_eq!(ends(changes.clone(), max_age), expected, "{changes} {max_age:?}");
    }
}

#[test]
fn a_caveat_takes_away() {
    let token = minted(&claims(json!({ "acl": ["10.0.0.0/8"] })));
    let iss = ISSUERS[0];
    for (caveat, outcome) in [
        (json!({ "iss": iss }), Ok("a:* b")),
        (json!({ "iss": ISSUERS[1] }), Ok("a:* b")),
        (json!({ "iss": iss, "scp": ["a:x", "b"] }), Ok("a:x b")),
        (json!({ "iss": iss, "scp": ["a:x:*"] }), Ok("a:x:*")),
        (json!({ "iss": iss, "scp": ["b:*", "b", "c"] }), Ok("b")),
        (json!({ "iss": iss, "scp": ["c", "*", "a"] }), Ok("")),
        (json!({ "iss": iss, "scp": [] }), Ok("")),
        (json!({ "iss": iss, "exp": NOW + 1 }), Ok("a:* b")),
        (json!({ "iss": iss, "exp": NOW }), Err(Denial::Expired)),
        (json!({ "iss": iss, "exp": i64::MIN }), Err(Denial::Expired)),
        (json!({ "iss": iss, "nbf": NOW + 5 }), Ok("a:* b")),
        (json!({ "iss": iss, "nbf": NOW + 6 }), Err(Denial::Expired)),
        (json!({ "iss": iss, "nbf": i64::MAX }), Err(Denial::Expired)),
        (json!({ "iss": iss, "acl": ["10.1.0.0/16"] }), Ok("a:* b")),
        (json!({ "iss": iss, "acl": ["0.0.0.0/0"] }), Ok("a:* b")),
        (json!({ "iss": iss, "acl": ["10.2.0.0/16"] }), Err(Denial::AddressNotAllowed)),
        (json!({ "iss": iss, "acl": ["192.0.2.0/24"] }), Err(Denial::AddressNotAllowed)),
        (json!({ "iss": iss, "acl": [] }), Err(Denial::AddressNotAllowed)),
        (json!({ "iss": "https://evil" }), Err(Denial::SignatureInvalid)),
        (json!({ "exp": NOW + 1 }), Err(Denial::SignatureInvalid)),
        (json!({ "iss": iss, "aud": "x" }), Err(Denial::SignatureInvalid)),
    ] {
        let narrowed = verified(&with_caveat(&token, &caveat.to_string()));
        let narrowed = narrowed.map(|authority| authority.scopes.to_string());
        assert_eq!(narrowed, outcome.map(str::to_owned), "{caveat}");
    }
}

#[test]
fn later_caveats_give_nothing_back() {
    let caveat = |fields: Value| {
        let mut caveat = json!({ "iss": ISSUERS[0] });
        caveat.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        caveat.to_string()
    };
    let token = minted(&claims(json!({})));
    let token = with_caveat(&token, &caveat(json!({ "scp": ["b"], "exp": NOW + 7, "acl": ["10.1.0.0/16"] })));
    let token = with_caveat(&token, &caveat(json!({ "scp": ["a:*", "b"], "exp": NOW + 90 })));
    let token = with_caveat(&token, &caveat(json!({ "acl": ["10.0.0.0/8"] })));
    let authority = verified(&token).unwrap();
    assert_eq!(authority.scopes.to_string(), "b");
    assert_eq!(authority.expires, Timestamp::from_secs(NOW + 7));
    assert_eq!(authority.addresses, AddressList::parse(&["10.1.0.0/16"]).unwrap());
    let outside = verify_from(Some(IpAddr::from([10, 2, 0, 1])), &secrets(), &token);
    assert_eq!(outside.unwrap_err(), Denial::AddressNotAllowed);
    assert_eq!(verify_from(None, &secrets(), &token).unwrap_err(), Denial::AddressNotAllowed);
}

#[test]
fn a_retired_secret_verifies_until_it_expires() {
    let token = minted(&claims(json!({})));
    let rotated = |expires| HmacSecrets::new(secret("next", None), vec![secret("current", expires)]);
    let until = |expires| verify_from(None, &rotated(expires), &token).map(|authority| authority.expires);
    assert_eq!(until(None), Ok(Timestamp::from_secs(NOW + 100)));
    assert_eq!(until(Some(NOW + 9)), Ok(Timestamp::from_secs(NOW + 9)));
    assert_eq!(until(Some(NOW)), Err(Denial::SignatureInvalid));
}

#[test]
fn other_dresses_of_a_good_macaroon_are_refused() {
    let token = minted(&claims(json!({})));
    let bytes = decoded(&token);
    let standard = base64::engine::general_purpose::STANDARD.encode(&bytes);
    let text = String::from_utf8(bytes.clone().split_off(bytes.len() - 32)).unwrap_or_default();
    let caveats = (0..64).fold(token.clone(), |token, _| with_caveat(&token, r#"{"iss":"https://i"}"#));
    for wrong in [
        "mc_v1_".to_owned(),
        "mc_v1_AgEZ".to_owned(),
        format!("mc_v1_{standard}="),
        format!("mc_v1_{}", base64::engine::general_purpose::URL_SAFE.encode([&bytes[..], b"0"].concat())),
        format!("{token}="),
        format!("{token}\n"),
        format!("{token}A"),
        format!("mc_v1_ {}", &token[6..]),
        format!("mc_v1_{text}"),
        encoded(&[&bytes[..], &[0]].concat()),
        caveats,
    ] {
        assert_eq!(verified(&wrong).unwrap_err(), Denial::SignatureInvalid, "{wrong}");
    }
    let claims = Macaroon::parse(&bytes).unwrap().caveats[0].to_vec();
    let mut naked = Macaroon::parse(&bytes).unwrap();
    naked.caveats.clear();
    assert!(verified(&encoded(&naked.write())).is_err(), "the claims taken away");
    naked.signature = sign(secrets().current(), naked.identifier, &[]);
    assert!(verified(&encoded(&naked.write())).is_err(), "no claims at all");
    naked.caveats = vec![&claims, &claims];
    naked.signature = sign(secrets().current(), naked.identifier, &naked.caveats);
    assert!(verified(&encoded(&naked.write())).is_err(), "claims are no caveat");
}

/// Generates caveats from few values, so that they often overlap.
fn caveat() -> impl Strategy<Value = Value> {
    let scope = prop_oneof![Just("a:*"), Just("a:x"), Just("a:x:*"), Just("b"), Just("b:*"), Just("c")];
    let block = prop_oneof![
        Just("10.0.0.0/8"),
        Just("10.1.0.0/16"),
        Just("10.1.2.3/32"),
        Just("192.0.2.0/24"),
        Just("0.0.0.0/0"),
        Just("::/0"),
    ];
    let issuer = prop_oneof![20 => Just(ISSUERS[0]), 9 => Just(ISSUERS[1]), 1 => Just("https://evil")];
    (
        issuer,
        // Rare, so that most tokens allow something.
        prop::option::weighted(0.3, NOW - 2..NOW + 20),
        prop::option::weighted(0.3, NOW - 20..NOW + 8),
        prop::option::weighted(0.8, prop::collection::hash_set(scope, 0..5)),
        prop::option::weighted(0.2, prop::collection::vec(block, 0..4)),
    )
        .prop_map(|(iss, exp, nbf, scp, acl)| {
            let mut caveat = json!({ "iss": iss, "exp": exp, "nbf": nbf, "scp": scp, "acl": acl });
            caveat.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            caveat
        })
}

/// Returns whether one caveat allows a client a scope. A naive implementation of the rules.
fn lets(caveat: &Value, client: IpAddr, scope: &str) -> bool {
    let number = |name: &str, default| caveat.get(name).and_then(Value::as_i64).unwrap_or(default);
    let any = |name: &str, test: &dyn Fn(&str) -> bool| {
        let list = caveat.get(name).and_then(Value::as_array);
        list.is_none_or(|list| list.iter().filter_map(Value::as_str).any(test))
    };
    let holds = |block: &str| block.parse::<ipnet::IpNet>().unwrap().contains(&client);
    ISSUERS.contains(&caveat["iss"].as_str().unwrap())
        && number("nbf", NOW) <= NOW + 5
        && NOW < number("exp", i64::MAX)
        && any("scp", &|granted| covers(granted, scope))
        && any("acl", &holds)
}

proptest! {
    /// A token allows exactly what all its caveats allow.
    #[test]
    fn the_authority_is_the_intersection_of_all_caveats(
        caveats in prop::collection::vec(caveat(), 0..4),
        client in prop_oneof![Just([10, 1, 2, 3]), Just([10, 9, 9, 9]), Just([192, 0, 2, 1])],
        asked in prop_oneof![Just("a:x"), Just("a:x:y"), Just("a:*"), Just("b"), Just("b:x"), Just("c"), Just("a:y")],
    ) {
        let client = IpAddr::from(client);
        let base = claims(json!({}));
        let mut token = minted(&base);
        for caveat in &caveats {
            token = with_caveat(&token, &caveat.to_string());
        }
        let authority = verify_from(Some(client), &secrets(), &token);
        let granted = authority
            .as_ref()
            .is_ok_and(|authority| authority.scopes.grant(&Scope::parse(asked).unwrap()));
        let expected = caveats.iter().chain([&base]).all(|caveat| lets(caveat, client, asked));
        prop_assert_eq!(granted, expected, "{:?}", authority);
        if let Ok(authority) = authority {
            let ends = caveats.iter().chain([&base]).filter_map(|caveat| caveat["exp"].as_i64()).min();
            prop_assert_eq!(Some(authority.expires.as_secs()), ends);
            prop_assert!(Scopes::parse(&["a:*", "b"]).unwrap().grant_all(&authority.scopes));
        }
    }

    #[test]
    fn one_changed_character_is_one_too_many(
        caveats in prop::collection::vec(caveat(), 0..3), at: prop::sample::Index, other in "[A-Za-z0-9_-]",
    ) {
        let token = caveats.iter().fold(minted(&claims(json!({}))), |token, caveat| {
            with_caveat(&token, &caveat.to_string())
        });
        let at = 6 + at.index(token.len() - 6);
        let changed = format!("{}{other}{}", &token[..at], &token[at + 1..]);
        let outcome = verified(&changed);
        prop_assert!(changed == token || outcome.err() == Some(Denial::SignatureInvalid), "{changed}");
    }

    #[test]
    fn one_changed_bit_is_one_too_many(at: prop::sample::Index, bit in 0..8) {
        let mut bytes = decoded(&minted(&claims(json!({}))));
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        prop_assert_eq!(verified(&encoded(&bytes)).unwrap_err(), Denial::SignatureInvalid);
    }

    #[test]
    fn any_bytes_are_refused_and_nothing_worse(bytes: Vec<u8>, text in any::<String>()) {
        let framed = [&[2, 1, 1, b'l', 2, 1, b'i', 0][..], &bytes].concat();
        for token in [encoded(&bytes), encoded(&framed), format!("mc_v1_{text}")] {
            prop_assert_eq!(verified(&token).unwrap_err(), Denial::SignatureInvalid);
        }
    }

    /// Without the secret, a holder can't replace the first caveat.
    #[test]
    fn a_chain_that_begins_elsewhere_is_refused(link: [u8; 32], changes in caveat()) {
        let claims = claims(changes).to_string();
        let (location, identifier) = (ISSUERS[0].as_bytes(), &b"{}"[..]);
        let signature = hmac_sha256(&link, claims.as_bytes());
        let forged = Macaroon { location, identifier, caveats: vec![claims.as_bytes()], signature };
        prop_assert_eq!(verified(&encoded(&forged.write())).unwrap_err(), Denial::SignatureInvalid);
    }
}
