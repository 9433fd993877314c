//! Listing keys: pages, their tokens, filters.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::rig::support::{Json, Must, assert_no_null, unix_now, until};
use crate::rig::talos::{ISSUED, Key, Setup, Talos};

/// The key ids of an answer.
#[track_caller]
fn ids(page: &Value) -> Vec<&str> {
    let keys = page.at("/issued_api_keys").as_array().must("a list of keys");
    keys.iter().map(|key| key.text("/key_id")).collect()
}

/// Percent-encodes a value of a query.
pub(super) fn query(text: &str) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    encoded.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_every_key_once() {
    let talos = Talos::start().await;
    let mut issued = BTreeSet::new();
    for _ in 0..5 {
        issued.insert(talos.issue(json!({})).await.id);
    }
    let mut listed = Vec::new();
    let mut sizes = Vec::new();
    let mut token = String::new();
    loop {
        let page = talos.admin.get(&format!("{ISSUED}?page_size=2&page_token={}", query(&token))).await;
        let page = page.expect(200).json();
        assert_no_null(&page);
        sizes.push(ids(&page).len());
        listed.extend(ids(&page).into_iter().map(str::to_owned));
        token = page.text("/next_page_token").to_owned();
        if token.is_empty() {
            break;
        }
        assert!(sizes.len() < 10, "the pages have no end");
    }
    assert_eq!(listed.len(), 5, "{listed:?}");
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), issued);
    assert_eq!(sizes, [2, 2, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_list_is_a_list() {
    let talos = Talos::start().await;
    let page = talos.admin.get(ISSUED).await.expect(200).json();
    assert_eq!(page, json!({ "issued_api_keys": [], "next_page_token": "" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_that_was_tampered_with_is_400() {
    let setup = Setup::new();
    let talos = setup.start().await;
    for _ in 0..3 {
        talos.issue(json!({})).await;
    }
    let page = talos.admin.get(&format!("{ISSUED}?page_size=1")).await.expect(200).json();
    let good = page.text("/next_page_token");
    let flipped: String = good
        .char_indices()
        .map(|(at, letter)| if at == 5 { if letter == 'A' { 'B' } else { 'A' } } else { letter })
        .collect();
    let cut = &good[..good.len() - 4];
    for bad in [flipped.as_str(), cut, "garbage", "AAAA", "%00", "✓"] {
        let reply = talos.admin.get(&format!("{ISSUED}?page_size=1&page_token={}", query(bad))).await;
        let message = reply.expect_bad_request();
        assert!(message.contains("page_token"), "{bad}: {message}");
    }
    talos.admin.get(&format!("{ISSUED}?page_size=1&page_token={}", query(good))).await.expect(200);

    let other =
        setup.set("TALOS_SECRETS_HMAC_CURRENT", "another-secret-of-more-than-32-characters").start().await;
    let reply = other.admin.get(&format!("{ISSUED}?page_token={}", query(good))).await;
    reply.expect_bad_request();
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_choose_by_actor_and_status() {
    let talos = Talos::start().await;
    let alice: Key = talos.issue(json!({ "actor_id": "alice" })).await;
    let gone = talos.issue(json!({ "actor_id": "alice" })).await;
    let bob = talos.issue(json!({ "actor_id": "bob \"the\" builder" })).await;
    talos.revoke(&gone).await;
    let cases = [
        (r#"actor_id="alice""#, vec![&alice, &gone]),
        (r#"actor_id = "bob \"the\" builder""#, vec![&bob]),
        (r#"actor_id="nobody""#, vec![]),
        ("status=KEY_STATUS_ACTIVE", vec![&alice, &bob]),
        (r#"status = "KEY_STATUS_REVOKED""#, vec![&gone]),
        (r#"actor_id="alice" AND status=KEY_STATUS_ACTIVE"#, vec![&alice]),
        ("status=KEY_STATUS_EXPIRED", vec![]),
    ];
    for (filter, wanted) in cases {
        let page = talos.admin.get(&format!("{ISSUED}?filter={}", query(filter))).await.expect(200).json();
        let got: BTreeSet<&str> = ids(&page).into_iter().collect();
        assert_eq!(got, wanted.iter().map(|key| key.id.as_str()).collect(), "{filter}");
    }
    for filter in
        ["nom=x", "actor_id", "status=BLUE", "actor_id=\"a\" OR status=KEY_STATUS_ACTIVE", "actor_id=\"a"]
    {
        let reply = talos.admin.get(&format!("{ISSUED}?filter={}", query(filter))).await;
        let message = reply.expect_bad_request();
        assert!(message.contains("filter"), "{filter}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_parameters_are_refused_by_name() {
    let talos = Talos::start().await;
    for (parameters, name) in
        [("page_size=many", "page_size"), ("page_size=-1", "page_size"), ("pagesize=2", "pagesize")]
    {
        let message = talos.admin.get(&format!("{ISSUED}?{parameters}")).await.expect_bad_request();
        assert!(message.contains(name), "{parameters}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn newest_first_is_the_other_order_on_every_page() {
    let talos = Talos::start().await;
    let now = unix_now();
    for at in 0..9 {
        // Some have expired by the time of the list, and some are revoked.
        let key = talos.issue(json!({ "ttl": if at % 3 == 1 { "1s" } else { "1h" } })).await;
        if at % 3 == 2 {
            talos.revoke(&key).await;
        }
    }
    until("the keys of a second have expired", async || (unix_now() > now + 2.0).then_some(())).await;
    for filter in ["", "status=KEY_STATUS_ACTIVE", "status=KEY_STATUS_REVOKED", "status=KEY_STATUS_EXPIRED"] {
        let mut lists = vec![];
        for order in ["create_time", " create_time  desc "] {
            let (mut listed, mut token) = (vec![], String::new());
            loop {
                let (filter, order, token_given) = (query(filter), query(order), query(&token));
                let path =
                    format!("{ISSUED}?page_size=2&filter={filter}&order_by={order}&page_token={token_given}");
                let page = talos.admin.get(&path).await.expect(200).json();
                listed.extend(ids(&page).into_iter().map(str::to_owned));
                token = page.text("/next_page_token").to_owned();
                if token.is_empty() {
                    break;
                }
                let other = format!("{ISSUED}?filter={filter}&page_token={}", query(&token));
                if order != "create_time" {
                    assert!(talos.admin.get(&other).await.expect_bad_request().contains("page_token"));
                }
            }
            lists.push(listed);
        }
        assert_eq!(lists[0].len(), if filter.is_empty() { 9 } else { 3 }, "{filter}");
        lists[1].reverse();
        assert_eq!(lists[0], lists[1], "{filter}");
    }
    for order in ["name", "create_time asc desc", "create_time,name", "desc"] {
        let reply = talos.admin.get(&format!("{ISSUED}?order_by={}", query(order))).await;
        assert!(reply.expect_bad_request().contains("order_by"), "{order}");
    }
}
