//! Tests of the accepted forms of listings, and of the messages about invalid ones.

use serde_json::{Value, json};

use super::*;
use crate::key::Status;

const UUID: &str = "b2a748d2-4516-456f-8781-314b6a4507d0";
const HASH: &str = "3774b4ac520e75a920cc6b029890c7ae0e8ed4987f25ec0f6a9c2125fd42122b";

fn now() -> Timestamp {
    Timestamp::from_rfc3339("2026-06-01T00:00:00Z").unwrap()
}

/// Returns a key with these fields changed, or removed where the value is null.
fn key(id: &str, changes: Value) -> Value {
    let mut key = json!({
        "key_id": id, "name": "n", "actor_id": "a", "scopes": [], "status": "KEY_STATUS_ACTIVE",
        "visibility": "KEY_VISIBILITY_SECRET", "create_time": "2026-01-01T00:00:00Z",
    });
    for (field, value) in changes.as_object().unwrap() {
        key[field] = value.clone();
    }
    key
}

fn read(text: &str) -> Result<Listing, String> {
    let mut reader = Reader::new(NetworkId::SINGLE, now());
    reader.read("f.json", text);
    reader.finish()
}

fn one(changes: Value) -> Result<Key, String> {
    read(&key(UUID, changes).to_string()).map(|mut listing| listing.keys.remove(0).0)
}

#[test]
fn keys_in_every_form() {
    let (issued, imported) = (key(UUID, json!({})), key(HASH, json!({})));
    let page = |list: &str, key: &Value| json!({ list: [key], "next_page_token": "" });
    let (first, second) = (page("issued_api_keys", &issued), page("imported_api_keys", &imported));
    for (text, locations) in [
        (
            format!("{first}{second}"),
            ["f.json: document 1: issued_api_keys[0]", "f.json: document 2: imported_api_keys[0]"],
        ),
        (
            json!({ "imported_api_keys": [imported], "issued_api_keys": [issued] }).to_string(),
            ["f.json: issued_api_keys[0]", "f.json: imported_api_keys[0]"],
        ),
        (json!([issued, imported]).to_string(), ["f.json: [0]", "f.json: [1]"]),
        (format!("[{issued}]\n[{imported}]"), ["f.json: document 1: [0]", "f.json: document 2: [0]"]),
        (format!("{issued}\n{imported}\n"), ["f.json: document 1", "f.json: document 2"]),
    ] {
        let listing = read(&text).unwrap();
        let found: Vec<String> = listing.keys.iter().map(|(_, location)| location.to_string()).collect();
        assert_eq!(found, locations, "{text}");
        let ids: Vec<String> = listing.keys.iter().map(|(key, _)| key.id.to_string()).collect();
        assert_eq!(ids, [UUID, HASH], "{text}");
    }
    for empty in ["[]", r#"{"imported_api_keys":[],"next_page_token":""}"#, r#"{"next_page_token":""}"#] {
        assert!(read(empty).unwrap().keys.is_empty(), "{empty}");
    }
}

#[test]
fn rows_are_checked_as_lists_are() {
    let table: Arc<str> = "issued_api_keys".into();
    let mut reader = Reader::new(NetworkId::SINGLE, now());
    reader.row(&table, KeyKind::Issued, UUID, Ok(key(UUID, json!({})).to_string()));
    let listing = reader.finish().unwrap();
    let [(key_read, location)] = listing.keys.as_slice() else { panic!("{listing:?}") };
    assert_eq!(key_read.id.to_string(), UUID);
    assert_eq!(location.to_string(), format!("issued_api_keys, key {UUID}"));

    let mut reader = Reader::new(NetworkId::SINGLE, now());
    reader.row(&table, KeyKind::Issued, "a\u{1b}", Err("status: must be 1".to_owned()));
    reader.row(&table, KeyKind::Issued, HASH, Ok(key(HASH, json!({})).to_string()));
    let message = reader.finish().unwrap_err();
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines.first(), Some(&"issued_api_keys, key a\\u{1b}: status: must be 1"));
    assert!(message.contains(&format!("issued_api_keys, key {HASH}: key_id: must be a UUID")), "{message}");
}

#[test]
fn every_field_is_kept() {
    let key = one(json!({
        "scopes": ["b", "a"], "metadata": { "z": 1, "a": [null] }, "visibility": "KEY_VISIBILITY_PUBLIC",
        "ip_restriction": { "allowed_cidrs": ["10.0.0.0/8"] },
        "rate_limit_policy": { "quota": "5", "unit": "content-bytes", "window": "60s" },
        "update_time": "2026-02-01T00:00:00.123456Z", "expire_time": "2027-01-01T00:00:00Z",
        "last_used_time": "2026-03-01T00:00:00Z", "supersede_time": "2026-07-01T00:00:00Z",
    }))
    .unwrap();
    let text = |time: Option<Timestamp>| time.map(Timestamp::to_rfc3339).unwrap_or_default();
    assert_eq!(key.scopes.to_string(), "b a");
    assert_eq!(key.metadata.as_ref().unwrap().json(), r#"{"z":1,"a":[null]}"#);
    assert_eq!(key.visibility.claim(), "public");
    assert_eq!(key.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8"]);
    let policy = key.rate_policy.unwrap();
    assert_eq!((policy.quota, policy.window.as_secs(), policy.unit.name()), (5, 60, "content-bytes"));
    assert_eq!(key.created.to_rfc3339(), "2026-01-01T00:00:00Z");
    assert_eq!(key.updated.to_rfc3339(), "2026-02-01T00:00:00.123456Z");
    assert_eq!(text(key.expires), "2027-01-01T00:00:00Z");
    assert_eq!(text(key.last_used), "2026-03-01T00:00:00Z");
    assert_eq!(text(key.superseded), "2026-07-01T00:00:00Z");
    assert_eq!((key.network, key.mutation), (NetworkId::SINGLE, 0));
}

#[test]
fn states() {
    let (active, revoked, expired) = ("KEY_STATUS_ACTIVE", "KEY_STATUS_REVOKED", "KEY_STATUS_EXPIRED");
    let (past, future) = ("2026-05-01T00:00:00Z", "2026-07-01T00:00:00Z");
    let superseded = "REVOCATION_REASON_SUPERSEDED";
    for (fields, status, reason) in [
        (json!({ "status": active }), Status::Active, None),
        (
            json!({ "status": active, "revocation_reason": "REVOCATION_REASON_UNSPECIFIED" }),
            Status::Active,
            None,
        ),
        // Expired since it was listed.
        (json!({ "status": active, "expire_time": past }), Status::Expired, None),
        (json!({ "status": expired, "expire_time": past }), Status::Expired, None),
        (json!({ "status": revoked }), Status::Revoked, Some("REVOCATION_REASON_UNSPECIFIED")),
        (json!({ "status": revoked, "revocation_reason": superseded }), Status::Revoked, Some(superseded)),
        // The grace period is over, in the listing or since.
        (
            json!({ "status": revoked, "revocation_reason": superseded, "supersede_time": past }),
            Status::Revoked,
            None,
        ),
        (json!({ "status": active, "supersede_time": past }), Status::Revoked, None),
        // Revoked within the grace period.
        (
            json!({ "status": revoked, "revocation_reason": superseded, "supersede_time": future }),
            Status::Revoked,
            Some(superseded),
        ),
        (json!({ "status": active, "supersede_time": future }), Status::Active, None),
    ] {
        let key = one(fields.clone()).unwrap();
        assert_eq!(key.status(now()), status, "{fields}");
        assert_eq!(key.revocation.map(|revocation| revocation.reason.name()), reason, "{fields}");
    }
    let withdrawn = json!({
        "status": revoked, "revocation_reason": "REVOCATION_REASON_PRIVILEGE_WITHDRAWN", "revocation_description": "why",
    });
    assert_eq!(one(withdrawn).unwrap().revocation.unwrap().description.as_deref(), Some("why"));
}

#[test]
fn a_bad_field_is_named() {
    let (revoked, expired) = ("KEY_STATUS_REVOKED", "KEY_STATUS_EXPIRED");
    for (fields, start) in [
        (json!({ "nonesuch": 1 }), "f.json: nonesuch: is not a known field"),
        (json!({ "secret": "s3cret" }), "f.json: secret: is not a known field"),
        (json!({ "non\u{1b}such": 1 }), "f.json: non\\u{1b}such: is not"),
        (json!({ "ip_restriction": { "cidrs": [] } }), "f.json: ip_restriction.cidrs: is not"),
        (json!({ "key_id": null }), "f.json: key_id: must be"),
        (json!({ "key_id": "s3cret" }), "f.json: key_id: must be"),
        (json!({ "name": "" }), "f.json: name: "),
        (json!({ "actor_id": null }), "f.json: actor_id: "),
        (json!({ "scopes": "s3cret" }), "f.json: scopes: "),
        (json!({ "scopes": ["a", "s3 cret"] }), "f.json: scopes[1]: "),
        (json!({ "metadata": [] }), "f.json: metadata: "),
        (json!({ "status": null }), "f.json: status: "),
        (json!({ "status": "KEY_STATUS_UNSPECIFIED" }), "f.json: status: "),
        (json!({ "status": "s3cret" }), "f.json: status: "),
        (json!({ "status": expired }), "f.json: status: is KEY_STATUS_EXPIRED"),
        (
            json!({ "status": expired, "expire_time": "2026-06-01T00:00:01Z" }),
            "f.json: status: is KEY_STATUS_EXPIRED",
        ),
        (json!({ "revocation_reason": "REVOCATION_REASON_SUPERSEDED" }), "f.json: revocation_reason: "),
        (json!({ "status": revoked, "revocation_reason": "s3cret" }), "f.json: revocation_reason: "),
        (
            json!({ "status": revoked, "revocation_description": "s3cret" }),
            "f.json: revocation_description: ",
        ),
        (json!({ "visibility": "s3cret" }), "f.json: visibility: "),
        (
            json!({ "ip_restriction": { "allowed_cidrs": ["s3cret"] } }),
            "f.json: ip_restriction.allowed_cidrs[0]: ",
        ),
        (json!({ "rate_limit_policy": { "quota": "s3cret" } }), "f.json: rate_limit_policy.quota: "),
        (json!({ "rate_limit_policy": { "quota": "0", "window": "60s" } }), "f.json: rate_limit_policy: "),
        (json!({ "create_time": null }), "f.json: create_time: is missing"),
        (json!({ "expire_time": "s3cret" }), "f.json: expire_time: must be a time"),
        (json!({ "supersede_time": 1 }), "f.json: supersede_time: must be"),
    ] {
        let problem = one(fields.clone()).unwrap_err();
        assert!(problem.starts_with(start), "{fields}: {problem}");
        assert!(!problem.contains("s3cret"), "{problem}");
    }
}

#[test]
fn a_bad_document_is_reported_with_its_location() {
    let (issued, imported) = (key(UUID, json!({})), key(HASH, json!({})));
    for (text, problem) in [
        (String::new(), "f.json: is empty"),
        ("{\"s3cret\"".to_owned(), "f.json: invalid JSON at line 1, column 9"),
        (format!("{issued}\n\"s3cret\""), "f.json: document 2: must be a list of keys"),
        ("null".to_owned(), "f.json: must be a list of keys"),
        ("{}".to_owned(), "f.json: key_id: must be"),
        ("[[]]".to_owned(), "f.json: [0]: must be a JSON object"),
        (json!([issued, "s3cret"]).to_string(), "f.json: [1]: must be a JSON object"),
        (
            json!({ "issued_api_keys": [imported] }).to_string(),
            "f.json: issued_api_keys[0]: key_id: must be a UUID",
        ),
        (
            json!({ "imported_api_keys": [issued] }).to_string(),
            "f.json: imported_api_keys[0]: key_id: must be 64",
        ),
        (json!({ "issued_api_keys": { "s3cret": 1 } }).to_string(), "f.json: issued_api_keys and"),
        (json!({ "issued_api_keys": [], "total": 1 }).to_string(), "f.json: total: is not a known field"),
        (r#"{"issued_api_keys":[],"issued_api_keys":[]}"#.to_owned(), "f.json: issued_api_keys and"),
        (r#"{"key_id":"a","key_id":"b"}"#.to_owned(), "f.json: key_id: stands there twice"),
    ] {
        let message = read(&text).unwrap_err();
        assert!(message.starts_with(problem) && !message.contains('\n'), "{text}: {message}");
        assert!(!message.contains("s3cret"), "{message}");
    }
}

#[test]
fn a_repeated_key_must_be_identical() {
    let key = |changes: Value| key(UUID, changes);
    let with = |second: Value| {
        let first = key(json!({ "metadata": { "a": 1, "b": 2 }, "last_used_time": null }));
        read(&json!([first, second]).to_string())
    };
    let same = with(key(json!({
        "metadata": { "b": 2, "a": 1 }, "last_used_time": "2026-03-01T00:00:00Z",
    })));
    let same = same.unwrap();
    assert_eq!((same.keys.len(), same.repeated), (1, 1));
    let other = with(key(json!({ "metadata": { "a": 1 }, "status": "KEY_STATUS_REVOKED" })));
    assert_eq!(
        other.unwrap_err(),
        "f.json: [1]: key_id: also in f.json: [0], with a different metadata, status"
    );

    // The same key in several files.
    let mut reader = Reader::new(NetworkId::SINGLE, now());
    reader.read("one", &key(json!({})).to_string());
    reader.read("two", &key(json!({})).to_string());
    reader.read("three", &key(json!({ "name": "other" })).to_string());
    let message = reader.finish().unwrap_err();
    assert_eq!(message, "three: key_id: also in one, with a different name");
}

#[test]
fn the_number_of_listed_problems_is_bounded() {
    let message = read(&json!(vec![1; 50]).to_string()).unwrap_err();
    assert_eq!(message.lines().count(), MAX_REPORTED + 1);
    assert!(message.ends_with("\nand 30 more"), "{message}");
}

#[test]
fn an_incomplete_listing_is_reported() {
    let page = |list: &str, token: &str| json!({ list: [], "next_page_token": token }).to_string();
    for (pages, unfinished) in [
        (vec![page("issued_api_keys", "more"), page("issued_api_keys", "")], vec![]),
        (vec![page("issued_api_keys", "")], vec![]),
        (vec![page("issued_api_keys", "more")], vec!["f.json"]),
        (vec![page("issued_api_keys", "more"), page("imported_api_keys", "")], vec!["f.json: document 1"]),
    ] {
        assert_eq!(read(&pages.concat()).unwrap().unfinished, unfinished, "{pages:?}");
    }
}
