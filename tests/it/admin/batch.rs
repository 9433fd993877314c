//! Many at once: importing and verifying.

use serde_json::{Value, json};

use crate::rig::http::{Call, Version};
use crate::rig::support::{Json, assert_no_null};
use crate::rig::talos::{IMPORTED, Setup, Talos};

const BATCH_IMPORT: &str = "/v2alpha1/admin/importedApiKeys:batchCreate";
const BATCH_VERIFY: &str = "/v2alpha1/admin/apiKeys:batchVerify";

fn item(raw_key: &str) -> Value {
    json!({ "raw_key": raw_key, "name": "n", "actor_id": "a" })
}

async fn import(talos: &Talos, items: Vec<Value>) -> Value {
    talos.admin.post(BATCH_IMPORT, &json!({ "requests": items })).await.expect(200).json()
}

async fn count(talos: &Talos) -> usize {
    let listed = talos.admin.get(&format!("{IMPORTED}?page_size=1000")).await.json();
    listed.at("/imported_api_keys").as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_of_a_batch_succeeds_or_fails_by_itself() {
    let talos = Talos::start().await;
    talos.import("known", json!({})).await;
    let mut bad_scope = item("b");
    bad_scope["scopes"] = json!(["a b"]);
    let items = vec![item("a"), bad_scope, item("known"), item("c"), item("c"), item("")];
    let reply = import(&talos, items).await;
    assert_no_null(&reply);
    assert_eq!(reply.at("/success_count"), 2);
    assert_eq!(reply.at("/failure_count"), 4);
    let results = reply.at("/results").as_array().unwrap();
    let codes: Vec<&str> = results
        .iter()
        .map(|result| result["error_code"].as_str().unwrap_or_default())
        .map(|code| code.trim_start_matches("BATCH_CREATE_IMPORTED_API_KEYS_ERROR_"))
        .collect();
    assert_eq!(codes, ["", "INVALID_ARGUMENT", "ALREADY_EXISTS", "", "ALREADY_EXISTS", "INVALID_ARGUMENT"]);
    for (index, result) in results.iter().enumerate() {
        assert_eq!(result["index"], index);
    }
    assert!(results[1].text("/error_message").contains("scopes[0]"));
    assert_eq!(results[0].text("/imported_api_key/status"), "KEY_STATUS_ACTIVE");
    assert_eq!(talos.verify("c").await["is_valid"], true);
    assert_eq!(talos.verify("b").await["is_valid"], false);
}

/// Keys that verify through the API, but that no HTTP request can carry, aren't imported.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_no_request_can_carry_is_refused_with_its_row() {
    let talos = Talos::start().await;
    let bad = ["crlf-0123\r\n", "lf-0123\n", " blank-0123", "blank-0123\t", "nul\0-0123"];
    let items = bad.iter().map(|raw_key| item(raw_key)).chain([item("a good-0123")]).collect();
    let reply = import(&talos, items).await;
    assert_eq!((reply.at("/success_count"), reply.at("/failure_count")), (&json!(1), &json!(5)));
    for (index, raw_key) in bad.iter().enumerate() {
        let message = reply.text(&format!("/results/{index}/error_message"));
        assert!(message.starts_with("raw_key: ") && message.contains("no request can carry"), "{message}");
        assert!(!message.contains("0123"), "{message}");
        let alone = talos.admin.post(IMPORTED, &item(raw_key)).await.expect_bad_request();
        assert_eq!(alone, message);
        assert_eq!(talos.verify(raw_key).await["is_valid"], false);
    }
    assert_eq!(count(&talos).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_failures_is_an_error() {
    let talos = Talos::start().await;
    talos.import("known", json!({})).await;
    let only = |item| json!({ "requests": [item] });
    let reply = talos.admin.post(BATCH_IMPORT, &only(item("known"))).await;
    reply.expect_error(409, "API_KEY_EXISTS");
    let reply = talos.admin.post(BATCH_IMPORT, &only(item(""))).await;
    assert!(reply.expect_bad_request().contains("raw_key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_keys_and_not_one_more() {
    let talos = Talos::start().await;
    let keys = |count: usize| (0..count).map(|number| item(&format!("key-{number}"))).collect::<Vec<_>>();
    for bad in [json!({}), json!({ "requests": [] }), json!({ "requests": keys(1001) })] {
        let message = talos.admin.post(BATCH_IMPORT, &bad).await.expect_bad_request();
        assert!(message.contains("requests"), "{message}");
    }
    assert_eq!(count(&talos).await, 0);
    assert_eq!(import(&talos, keys(1000)).await.at("/success_count"), 1000);
    assert_eq!(count(&talos).await, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_item_is_named_and_stops_the_batch() {
    let talos = Talos::start().await;
    for (bad, field) in [
        (json!({ "raw_key": "b", "nmae": "n" }), "requests[1].nmae"),
        (json!({ "raw_key": 5 }), "requests[1].raw_key"),
        (json!("b"), "requests[1]"),
    ] {
        let body = json!({ "requests": [item("a"), bad] });
        let message = talos.admin.post(BATCH_IMPORT, &body).await.expect_bad_request();
        assert!(message.contains(field), "{message}");
    }
    assert_eq!(count(&talos).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_can_be_sent_again() {
    let talos = Talos::start().await;
    let mut first = item("a");
    first["request_id"] = json!("import-1");
    let again = import(&talos, vec![first.clone(), item("b")]).await;
    let repeated = import(&talos, vec![first.clone(), item("c")]).await;
    assert_eq!(repeated.at("/results/0"), again.at("/results/0"));
    first["name"] = json!("other");
    let reply = import(&talos, vec![first, item("d")]).await;
    let code = "BATCH_CREATE_IMPORTED_API_KEYS_ERROR_ALREADY_EXISTS";
    assert_eq!(reply.text("/results/0/error_code"), code);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_of_a_large_batch_is_recognised() {
    let talos = Talos::start().await;
    let with_id = |number: usize, request_id: String| {
        let mut item = item(&format!("key-{number}"));
        item["request_id"] = json!(request_id);
        item["credits"] = json!({ "remaining": (number + 1).to_string() });
        item
    };
    // More than one statement reads.
    let mut items: Vec<Value> = (0..90).map(|number| with_id(number, format!("import-{number}"))).collect();
    let first = import(&talos, items.clone()).await;
    assert_eq!(first.at("/success_count"), 90);
    assert_eq!(import(&talos, items.clone()).await, first);
    items[50]["name"] = json!("other");
    let reply = import(&talos, items).await;
    let code = "BATCH_CREATE_IMPORTED_API_KEYS_ERROR_ALREADY_EXISTS";
    for number in 0..90 {
        let result = format!("/results/{number}");
        if number == 50 {
            assert_eq!(reply.at(&result).text("/error_code"), code);
        } else {
            assert_eq!(reply.at(&result), first.at(&result));
        }
    }
    // Two ids, also in MySQL, which ignores spaces at the end of texts.
    let pair = vec![with_id(100, "pair".to_owned()), with_id(101, "pair ".to_owned())];
    let reply = import(&talos, pair).await;
    for number in 0..2 {
        assert_eq!(
            reply.at("/results")[number].text("/imported_api_key/status"),
            "KEY_STATUS_ACTIVE",
            "{reply:#}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quota_holds_within_a_batch() {
    let talos = Setup::new().set("TALOS_QUOTA_API_KEYS_MAX", "2").start().await;
    let reply = import(&talos, vec![item("a"), item("b"), item("c")]).await;
    assert_eq!(reply.at("/success_count"), 2);
    let code = "BATCH_CREATE_IMPORTED_API_KEYS_ERROR_RESOURCE_EXHAUSTED";
    assert_eq!(reply.text("/results/2/error_code"), code);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_credentials_are_verified_in_order() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({ "scopes": ["read"] })).await;
    let token = talos.derive(&key, json!({})).await;
    let revoked = talos.issue(json!({})).await;
    talos.revoke(&revoked).await;
    let credentials =
        [key.secret.as_str(), "nonsense", &token, "", &revoked.secret, &"x".repeat(16 * 1024 + 1)];
    let requests: Vec<Value> = (0..100).map(|n| json!({ "credential": credentials[n % 6] })).collect();
    let reply = talos.admin.post(BATCH_VERIFY, &json!({ "requests": requests })).await.expect(200);
    assert_eq!(reply.header("ory-talos-cache"), Some("MISS"));
    let reply = reply.json();
    assert_no_null(&reply);
    let expected = ["", "NOT_FOUND", "", "INVALID_FORMAT", "REVOKED", "INVALID_FORMAT"];
    let results = reply.at("/results").as_array().unwrap();
    assert_eq!(results.len(), 100);
    for (n, result) in results.iter().enumerate() {
        let code = result["error_code"].as_str().unwrap_or_default();
        assert_eq!(code.trim_start_matches("VERIFICATION_ERROR_"), expected[n % 6], "{n}");
        assert_eq!(result["is_valid"], code.is_empty());
    }
    assert_eq!(results[0].text("/key_id"), key.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_directives_hold_for_all_of_a_batch() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let body = json!({ "requests": [{ "credential": key.secret }, { "credential": key.secret }] });
    let ask = async |directive: &str| {
        let call = Call::post(BATCH_VERIFY).json(&body).header("cache-control", directive);
        let reply = talos.admin.send(Version::Http1, call).await.expect(200);
        reply.header("ory-talos-cache").unwrap_or_default().to_owned()
    };
    assert_eq!(ask("no-store").await, "SKIP");
    ask("max-age=1").await;
    assert_eq!(ask("max-age=1").await, "HIT");
    assert_eq!(ask("no-cache").await, "SKIP");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_bounds_and_names_what_is_wrong() {
    let talos = Talos::start().await;
    let many: Vec<Value> = (0..101).map(|_| json!({ "credential": "x" })).collect();
    for (body, field) in [
        (json!({}), "requests"),
        (json!({ "requests": [] }), "requests"),
        (json!({ "requests": many }), "requests"),
        (json!({ "requests": [{ "nonesuch": 1 }] }), "requests[0].nonesuch"),
        (json!({ "requests": [{ "credential": 1 }] }), "requests[0].credential"),
        (json!({ "requests": {} }), "requests"),
    ] {
        let message = talos.admin.post(BATCH_VERIFY, &body).await.expect_bad_request();
        assert!(message.contains(field), "{message}");
    }
}
