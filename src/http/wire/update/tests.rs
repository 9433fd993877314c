//! Tests of update masks and of what they update.

use super::*;

fn mask(text: &str) -> Result<UpdateMask, ApiError> {
    update_mask(vec![("update_mask".to_owned(), text.to_owned())])
}

fn changes(mask_text: &str, body: &str) -> Update {
    update(&mask(mask_text).unwrap(), serde_json::from_str(body).unwrap()).unwrap().1
}

#[test]
fn a_mask_names_what_can_be_changed() {
    let fields = |names: &[&'static str]| Ok::<_, ()>(UpdateMask::Fields(names.to_vec()));
    for (text, expected) in [
        ("name", fields(&["name"])),
        ("name,scopes", fields(&["name", "scopes"])),
        ("issued_api_key.metadata", fields(&["metadata"])),
        ("ip_restriction.allowed_cidrs", fields(&["ip_restriction"])),
        ("*", fields(&UPDATABLE)),
        ("", Ok(UpdateMask::Populated)),
    ] {
        assert_eq!(mask(text).map_err(drop), expected, "{text}");
    }
    for text in [
        "key_id",
        "actor_id",
        "visibility",
        "status",
        "suspension",
        "created_by",
        "nmae",
        "name,",
        ",",
        " name",
        "rate_limit_policy.quota",
        "metadata.team",
        "Name",
        "**",
        "secret",
        "name;scopes",
    ] {
        let error = mask(text).unwrap_err();
        assert_eq!(error.field.as_deref(), Some("update_mask"), "{text}");
    }
    assert!(update_mask(vec![("mask".to_owned(), "name".to_owned())]).is_err());
}

#[test]
fn an_expiry_counts_by_name_or_where_nothing_was_read() {
    let body = r#"{"expire_time":"2031-01-01T00:00:00Z","ttl":"1h"}"#;
    for mask in ["*", "name"] {
        let body = body.replace('{', r#"{"name":"n","#);
        assert_eq!(changes(mask, &body).expiry, None, "{mask}");
    }
    let time = crate::clock::Timestamp::from_rfc3339("2031-01-01T00:00:00Z").unwrap();
    let alone = r#"{"expire_time":"2031-01-01T00:00:00Z"}"#;
    assert_eq!(changes("", alone).expiry, Some(Expiry::At(time)));
    let read = alone.replace('{', r#"{"create_time":"2026-01-01T00:00:00Z","#);
    assert_eq!(changes("", &read).expiry, None);
    assert_eq!(changes("expire_time", body).expiry, Some(Expiry::At(time)));
    let hour = std::time::Duration::from_secs(3_600);
    assert_eq!(changes("issued_api_key.ttl", body).expiry, Some(Expiry::After(hour)));
    assert_eq!(changes("", r#"{"ttl":"1h"}"#).expiry, Some(Expiry::After(hour)));
    let refused = |mask_text, body| {
        let body = serde_json::from_str(body).unwrap();
        super::update(&mask(mask_text).unwrap(), body).unwrap_err().field
    };
    assert_eq!(changes("", r#"{"ttl":"0s"}"#).expiry, None);
    assert_eq!(refused("ttl", r#"{"ttl":"0s"}"#).as_deref(), Some("ttl"));
    assert_eq!(refused("ttl", "{}").as_deref(), Some("ttl"));
    assert_eq!(refused("expire_time", r#"{"expire_time":"soon"}"#).as_deref(), Some("expire_time"));
    assert_eq!(refused("expire_time,ttl", body).as_deref(), Some("update_mask"));
    assert_eq!(refused("", body).as_deref(), Some("ttl"));
}

#[test]
fn credits_that_were_read_set_none() {
    let body = r#"{"name":"n","credits":{"remaining":"5","refill":{"amount":9,"every":"day"}}}"#;
    let set = |mask: &str, body: &str| changes(mask, body).credits;
    let given = set("", body).unwrap().unwrap();
    assert_eq!((given.remaining, given.refill.unwrap().amount), (5, 9));
    assert_eq!(set("credits", body), Some(Some(given)));
    let read = body.replace('{', r#"{"create_time":"2026-01-01T00:00:00Z","#);
    let read = read.replacen(r#""credits":{"create_time":"2026-01-01T00:00:00Z","#, r#""credits":{"#, 1);
    let read = read.replacen(r#""refill":{"create_time":"2026-01-01T00:00:00Z","#, r#""refill":{"#, 1);
    for (mask, body) in [("*", body), ("name", body), ("", read.as_str())] {
        assert_eq!(set(mask, body), None, "{mask} {body}");
    }
    assert_eq!(set("credits", &read), Some(Some(given)));
    assert_eq!(set("credits", "{}"), Some(None), "it takes them away");
    assert_eq!(
        set("", r#"{"credits":{"refill":{"amount":7,"every":"week"}}}"#).unwrap().unwrap().remaining,
        7
    );
    for (part, field) in [
        (r#"{"remaining":-1}"#, "remaining"),
        (r#"{"remaining":"1000000000000001"}"#, "remaining"),
        (r#"{"refill":{"amount":0,"every":"day"}}"#, "refill.amount"),
        (r#"{"refill":{"amount":1}}"#, "refill.every"),
        (r#"{"refill":{"amount":1,"every":"year"}}"#, "refill.every"),
        (r#"{"refill":{"amount":1,"every":"day","at":"noon"}}"#, "refill.at"),
    ] {
        let body = serde_json::from_str(&format!(r#"{{"credits":{part}}}"#)).unwrap();
        let error = super::update(&mask("").unwrap(), body).unwrap_err();
        assert_eq!(error.field.as_deref(), Some(format!("credits.{field}").as_str()), "{part}");
    }
}

#[test]
fn without_a_mask_what_is_set_counts() {
    let update = changes("", r#"{"name":"n","scopes":[],"status":"KEY_STATUS_REVOKED","metadata":{}}"#);
    assert_eq!(update.name.unwrap().as_str(), "n");
    assert!(update.scopes.is_none());
    assert!(update.metadata.unwrap().is_some());
    assert!(update.addresses.is_none() && update.rate_policy.is_none());
}

#[test]
fn with_a_mask_what_it_names_counts_set_or_not() {
    let update = changes("scopes,metadata,rate_limit_policy,ip_restriction", r#"{"name":"n"}"#);
    assert!(update.name.is_none());
    assert_eq!(update.scopes.unwrap().iter().count(), 0);
    assert_eq!(update.metadata, Some(None));
    assert_eq!(update.rate_policy, Some(None));
    assert!(update.addresses.unwrap().is_empty());
    assert!(super::update(&mask("name").unwrap(), KeyBody::default()).is_err());
}

#[test]
fn a_rate_limit_is_the_default_of_the_list() {
    let list = r#""name":"n","rate_limit_policies":[{"name":"burst","quota":5,"window":"1s"},
        {"name":"default","quota":"10","window":"60s","scope":"ACTOR"}]"#;
    let alias =
        |quota: u32| format!(r#""name":"n","rate_limit_policy":{{"quota":"{quota}","window":"60s"}}"#);
    for mask_text in ["", "*", "rate_limit_policies", "rate_limit_policy,rate_limit_policies"] {
        let update = changes(mask_text, &format!("{{{list}}}"));
        assert_eq!(update.rate_policy, None, "{mask_text}");
        assert_eq!(update.rate_policies.unwrap().as_slice().len(), 2, "{mask_text}");
    }
    // Both fields, as a response has them that is sent back.
    let both = changes("", &format!("{{{list},{}}}", alias(10).replace(r#""name":"n","#, "")));
    assert_eq!((both.rate_policy, both.rate_policies.unwrap().as_slice().len()), (None, 2));
    let apart =
        serde_json::from_str(&format!("{{{list},{}}}", alias(11).replace(r#""name":"n","#, ""))).unwrap();
    let error = super::update(&mask("").unwrap(), apart).unwrap_err();
    assert_eq!(error.field.as_deref(), Some("rate_limit_policy"));
    let alone = changes("", &format!("{{{}}}", alias(11)));
    assert_eq!((alone.rate_policy.unwrap().unwrap().quota, alone.rate_policies), (11, None));
    let all = changes("*", &format!("{{{}}}", alias(11)));
    assert_eq!(all.rate_policy.unwrap().unwrap().quota, 11);
    assert!(all.rate_policies.unwrap().is_unset(), "the list isn't in the body, so it is cleared");
    assert_eq!(changes("", r#"{"rate_limit_policies":[]}"#).rate_policies, None);
}

#[test]
fn a_rate_limit_that_is_refused_is_named() {
    for (policy, field) in [
        (r#"{"quota":1,"window":"1s"}"#, "[1].name"),
        (r#"{"name":"A","quota":1,"window":"1s"}"#, "[1].name"),
        (r#"{"name":"ok","quota":1,"window":"1s"}"#, "[1].name"),
        (r#"{"name":"a","window":"1s"}"#, "[1].quota"),
        (r#"{"name":"a","quota":1}"#, "[1].window"),
        (r#"{"name":"a","quota":1,"window":"soon"}"#, "[1].window"),
        (r#"{"name":"a","quota":1,"window":"1s","unit":"content-bytes"}"#, "[1].unit"),
        (r#"{"name":"a","quota":1,"window":"1s","unit":"cows"}"#, "[1].unit"),
        (r#"{"name":"a","quota":1,"window":"1s","scope":"ALL"}"#, "[1].scope"),
        (r#"{"name":"a","quota":1,"window":"1s","enforce":"NOBODY"}"#, "[1].enforce"),
        (r#"{"name":"a","quota":1,"window":"2s","enforce":"ENVOY"}"#, "[1].window"),
    ] {
        let body = format!(r#"{{"rate_limit_policies":[{{"name":"ok","quota":1,"window":"1s"}},{policy}]}}"#);
        let error = super::update(&mask("").unwrap(), serde_json::from_str(&body).unwrap()).unwrap_err();
        assert_eq!(error.field.as_deref(), Some(format!("rate_limit_policies{field}").as_str()), "{policy}");
    }
}
