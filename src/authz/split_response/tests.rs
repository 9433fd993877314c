use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use prost::Message;
use talos_proto::CheckResponse;
use uuid::Uuid;

use super::*;
use crate::authz::response::{Extras, encode_ok, encode_with_extras, kept_len, write_kept};
use crate::cache::memory::EncodedResponse;
use crate::clock::Timestamp;
use crate::config::Authz;
use crate::credential::claims::{Grant, Subject, claims_json};
use crate::key::{ActorId, Key, KeyId, Metadata, Scopes};

const CONDITIONS: Conditions = Conditions { generation: 1, token: Some(None) };

fn key(n: u128, actor: &str, metadata: Option<&str>) -> Key {
    Key {
        actor: ActorId::from_stored(actor).unwrap(),
        scopes: Scopes::parse_spaced("orders:read orders:write").unwrap(),
        metadata: metadata.map(|json| Metadata::from_json(json.to_owned()).unwrap()),
        ..Key::sample(KeyId::Issued(Uuid::from_u128(n)), Timestamp::from_secs(1_790_000_000))
    }
}

/// Returns a token with these claims; its signature is made up.
fn minted(key: &Key, n: u128) -> Minted {
    let now = Timestamp::from_secs(1_790_000_000);
    let grant = Grant {
        issuer: "https://keys.example.com",
        id: Uuid::from_u128(n << 64),
        issued_at: now,
        expires: now,
        audiences: &[],
        scopes: &key.scopes,
        custom: &serde_json::Map::new(),
    };
    let claims_json = claims_json(&Subject::of_key(key), &grant);
    let encode = |text: &[u8]| URL_SAFE_NO_PAD.encode(text);
    let header = encode(br#"{"alg":"EdDSA","typ":"JWT","kid":"k-1"}"#);
    let signature = encode(&[n as u8; 64]);
    let token = format!("{header}.{}.{signature}", encode(claims_json.as_bytes()));
    Minted { token, claims_json, issued_at: now, expires: now }
}

fn split(templates: &Templates, key: &Key, minted: Option<&Minted>) -> (EncodedResponse, SplitResponse) {
    let principal = Principal::of_key(key);
    let end = Timestamp::from_secs(1_790_000_123);
    let token = minted.map(|minted| minted.token.as_str());
    let encoded = encode_ok(&Authz::default(), &principal, token, end);
    (encoded, split_ok(templates, CONDITIONS, &Authz::default(), &principal, minted))
}

/// Returns what is sent, whose length was told before.
fn sent(kept: &SplitResponse, extras: Option<&Extras>) -> Vec<u8> {
    let mut out = b"before".to_vec();
    write_kept(kept, Timestamp::from_secs(1_790_000_123), extras, &mut out);
    assert_eq!(out.len(), 6 + kept_len(kept, extras));
    out.split_off(6)
}

proptest! {
    /// A response that was kept is, byte for byte, the one that was encoded, with and without
    /// what one request adds.
    #[test]
    fn what_was_kept_is_what_was_encoded(
        n in any::<u128>(), actor in "[^\\p{Cc}]{1,40}", member in "[a-z\"\\\\ü]{0,9}", has in any::<[bool; 2]>(),
    ) {
        let [has_metadata, has_token] = has;
        let json = serde_json::json!({ "metadata": member, "act": [1, { "x": member }] }).to_string();
        let key = key(n, &actor, has_metadata.then_some(&json));
        let minted = has_token.then(|| minted(&key, n));
        let (encoded, kept) = split(&Templates::default(), &key, minted.as_ref());
        prop_assert_eq!(&sent(&kept, None), &encoded.bytes);
        let mut extras = Extras::default();
        prop_assert_eq!(&sent(&kept, Some(&extras)), &encoded.bytes);
        extras.remove_header(b"x-api-key");
        prop_assert_eq!(sent(&kept, Some(&extras)), encode_with_extras(encoded, &extras));
    }

    /// Keys that differ in nothing but their own values, of any length, share all the rest.
    #[test]
    fn keys_that_differ_in_their_values_share_a_template(a in any::<[u32; 2]>(), b in any::<[u32; 2]>()) {
        let templates = Templates::default();
        let make = |[n, text]: [u32; 2]| {
            let key = key(n.into(), &format!("user:{text}"), Some(&format!(r#"{{"team":"{text}"}}"#)));
            split(&templates, &key, Some(&minted(&key, n.into()))).1
        };
        let (one, two) = (make(a), make(b));
        prop_assert!(one.shares_template(&two));
        prop_assert!(two.own_bytes() < 720, "{}", two.own_bytes());
    }
}

#[test]
fn a_response_decodes_to_all_its_parts() {
    let key = key(7, "user:7", Some(r#"{"team":"blue"}"#));
    let minted = minted(&key, 7);
    let (_, kept) = split(&Templates::default(), &key, Some(&minted));
    let response = CheckResponse::decode(&*sent(&kept, None)).unwrap();
    let fields = response.dynamic_metadata.unwrap().fields;
    let names: Vec<&str> = fields.keys().map(String::as_str).collect();
    let expected = [
        "actor_id",
        "decision",
        "fresh_until",
        "key_id",
        "metadata",
        "network_id",
        "reason",
        "scopes",
        "visibility",
    ];
    assert_eq!(names, expected);
    let headers = response.ok_response.unwrap().headers;
    let headers: Vec<_> = headers.into_iter().filter_map(|option| option.header).collect();
    let value = |name: &str| {
        let found = headers.iter().find(|header| header.key == name);
        String::from_utf8(found.unwrap().value.to_vec()).unwrap()
    };
    assert_eq!(headers.len(), 5);
    assert_eq!(value("x-talos-key-id"), key.id.to_string());
    assert_eq!(value("x-talos-actor-id"), "user:7");
    assert_eq!(value("x-talos-scopes"), "orders:read orders:write");
    assert_eq!(value("authorization"), format!("Bearer {}", minted.token));
}
