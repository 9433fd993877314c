//! Invalid requests to every route: each gets the right 4xx that names the field, and changes
//! nothing.

use serde_json::{Value, json};

use crate::rig::http::{Call, Reply, Version, assert_envelope};
use crate::rig::support::Json;
use crate::rig::talos::{DERIVE, IMPORTED, ISSUED, Key, SELF_REVOKE, Talos, VERIFY};

/// A route that takes a body, a body that it would take, and the members that it refuses instead of
/// one of those.
struct Route {
    method: &'static str,
    path: String,
    good: Value,
    bad: Vec<(&'static str, Value)>,
}

/// Members that have the same rules wherever a key is made or changed.
fn bad_members() -> Vec<(&'static str, Value)> {
    let many: Vec<String> = (0..101).map(|number| format!("s{number}")).collect();
    let blocks: Vec<String> = (0..101).map(|number| format!("10.0.{number}.0/24")).collect();
    let nested = (0..20).fold(json!({}), |inner, _| json!({ "in": inner }));
    vec![
        ("name", json!(5)),
        ("name", json!("n".repeat(256))),
        ("name", json!("a\u{0}b")),
        ("scopes", json!("a")),
        ("scopes", json!({ "0": "a" })),
        ("scopes", json!([["a"]])),
        ("scopes", json!(["a b"])),
        ("scopes", json!(["a", "a"])),
        ("scopes", json!(["s".repeat(129)])),
        ("scopes", json!(many)),
        ("metadata", json!([])),
        ("metadata", json!("text")),
        ("metadata", nested),
        ("metadata", json!({ "filler": "x".repeat(4096) })),
        ("ip_restriction", json!([])),
        ("ip_restriction", json!([["10.0.0.0/8"]])),
        ("ip_restriction", json!({ "allowed_cidrs": ["10.0.0.0/33"] })),
        ("ip_restriction", json!({ "allowed_cidrs": ["10.0.0.1"] })),
        ("ip_restriction", json!({ "allowed_cidrs": blocks })),
        ("ip_restriction", json!({ "allowed_cidrs": [], "nonesuch": 1 })),
        ("rate_limit_policy", json!("100/s")),
        ("rate_limit_policy", json!(["100", "60s", "requests"])),
        ("rate_limit_policy", json!({ "quota": "1.5", "window": "60s" })),
        ("rate_limit_policy", json!({ "quota": "9223372036854775808", "window": "60s" })),
        ("rate_limit_policy", json!({ "quota": "-1", "window": "60s" })),
        ("rate_limit_policy", json!({ "quota": "10" })),
        ("rate_limit_policy", json!({ "quota": "10", "window": "soon" })),
        ("rate_limit_policy", json!({ "quota": "10", "window": "11y" })),
        ("rate_limit_policy", json!({ "quota": "10", "window": "60s", "unit": "apples" })),
        ("visibility", json!("KEY_VISIBILITY_BLUE")),
        ("visibility", json!("key_visibility_secret")),
        ("visibility", json!(1)),
        ("nonesuch", json!(null)),
        ("Name", json!("n")),
    ]
}

/// Members that a request to make a key has besides.
fn bad_new_members() -> Vec<(&'static str, Value)> {
    let more = vec![
        ("name", json!("")),
        ("name", json!(null)),
        ("actor_id", json!("")),
        ("actor_id", json!(null)),
        ("actor_id", json!("a".repeat(256))),
        ("actor_id", json!({ "id": "a" })),
        ("actor_id", json!(" ")),
        ("actor_id", json!(" a")),
        ("actor_id", json!("a\u{a0}")),
        ("ttl", json!("-1s")),
        ("ttl", json!("1e3s")),
        ("ttl", json!("10")),
        ("ttl", json!("500ms")),
        ("ttl", json!("11y")),
        ("ttl", json!(3600)),
        ("request_id", json!("r".repeat(37))),
        ("request_id", json!("a\nb")),
    ];
    [bad_members(), more].concat()
}

fn bad_credentials() -> Vec<(&'static str, Value)> {
    vec![
        ("credential", json!("")),
        ("credential", json!(null)),
        ("credential", json!(["x"])),
        ("credential", json!("x".repeat(16 * 1024 + 1))),
    ]
}

/// All of `bad` as the only item of a batch.
fn in_batch(item: &Value, bad: Vec<(&'static str, Value)>) -> Vec<(&'static str, Value)> {
    let changed = bad.into_iter().map(|(member, value)| {
        let mut item = item.clone();
        item[member] = value;
        ("requests", json!([item]))
    });
    changed.collect()
}

fn routes(issued: &Key, imported: &Key) -> Vec<Route> {
    let post = |path: &str, good: &Value, bad| Route {
        method: "POST",
        path: path.to_owned(),
        good: good.clone(),
        bad,
    };
    let new = json!({ "name": "n", "actor_id": "a" });
    let import = json!({ "name": "n", "actor_id": "a", "raw_key": "never-imported" });
    let raw_keys = vec![
        ("raw_key", json!("")),
        ("raw_key", json!(null)),
        ("raw_key", json!("x".repeat(16 * 1024 + 1))),
        ("raw_key", json!(issued.secret)),
        ("raw_key", json!("eyJhIjoxfQ.eyJhIjoxfQ.AAAA")),
        ("raw_key", json!("mc_v1_AAAA")),
    ];
    let bad_import = [bad_new_members(), raw_keys].concat();
    let credential = json!({ "credential": issued.secret });
    let bad_verify = [
        bad_credentials(),
        vec![("expected_audiences", json!("a")), ("expected_audiences", json!([1])), ("nonesuch", json!(1))],
    ]
    .concat();
    let bad_derive = [
        bad_credentials(),
        vec![
            ("algorithm", json!("JWT")),
            ("algorithm", json!(1)),
            ("ttl", json!("soon")),
            ("ttl", json!("-1s")),
            ("ttl", json!("1ms")),
            ("ttl", json!("25h")),
            ("scopes", json!([""])),
            ("scopes", json!(["a", "a"])),
            ("audiences", json!("a")),
            ("audiences", json!([null])),
            ("custom_claims", json!([])),
            ("custom_claims", json!({ "filler": "x".repeat(4096) })),
            ("nonesuch", json!(1)),
        ],
    ]
    .concat();
    let bad_reasons = vec![
        ("reason", json!("KEY_COMPROMISE")),
        ("reason", json!("REVOCATION_REASON_BLUE")),
        ("reason", json!("")),
        ("reason", json!(1)),
    ];
    let withdrawn = json!({ "reason": "REVOCATION_REASON_PRIVILEGE_WITHDRAWN" });
    let bad_revoke = [
        bad_reasons.clone(),
        vec![
            ("description", json!(["why"])),
            ("description", json!("d".repeat(1_025))),
            ("description", json!("a\u{0}b")),
            ("nonesuch", json!(1)),
        ],
    ]
    .concat();
    let bad_self_revoke = [
        bad_reasons,
        vec![
            ("reason", json!("REVOCATION_REASON_PRIVILEGE_WITHDRAWN")),
            ("credential", json!(["x"])),
            ("nonesuch", json!(1)),
        ],
    ]
    .concat();
    let bad_rotate = [
        bad_members(),
        vec![
            ("name", json!("")),
            ("grace_period", json!("soon")),
            ("grace_period", json!("-1s")),
            ("grace_period", json!("11y")),
            ("grace_period", json!(60)),
        ],
    ]
    .concat();
    let bad_update = [
        bad_members(),
        vec![
            ("actor_id", json!("somebody else")),
            ("key_id", json!("another")),
            ("status", json!(1)),
            ("create_time", json!(1)),
        ],
    ]
    .concat();
    let issued = format!("{ISSUED}/{}", issued.id);
    let imported = format!("{IMPORTED}/{}", imported.id);
    let patch = |path: &str| Route {
        method: "PATCH",
        path: path.to_owned(),
        good: json!({ "name": "m" }),
        bad: bad_update.clone(),
    };
    let bad_lists = |most: usize, item: &Value| {
        let long: Vec<&Value> = vec![item; most + 1];
        vec![
            ("requests", json!([])),
            ("requests", json!(null)),
            ("requests", json!({})),
            ("requests", json!([5])),
            ("requests", json!([["x"]])),
            ("requests", json!(long)),
            ("nonesuch", json!(1)),
        ]
    };
    let batch_import = [bad_lists(1_000, &import), in_batch(&import, bad_import.clone())].concat();
    vec![
        post(ISSUED, &new, bad_new_members()),
        post(IMPORTED, &import, bad_import),
        post(&format!("{IMPORTED}:batchCreate"), &json!({ "requests": [import] }), batch_import),
        post(VERIFY, &credential, bad_verify),
        post(
            "/v2alpha1/admin/apiKeys:batchVerify",
            &json!({ "requests": [credential] }),
            bad_lists(100, &credential),
        ),
        post(DERIVE, &credential, bad_derive),
        post(&format!("{issued}:rotate"), &json!({}), bad_rotate),
        post(&format!("{issued}:revoke"), &withdrawn, bad_revoke.clone()),
        post(&format!("{imported}:revoke"), &withdrawn, bad_revoke.clone()),
        post(&format!("{}:revoke", issued.replace("issuedApiKeys", "apiKeys")), &withdrawn, bad_revoke),
        post(SELF_REVOKE, &credential, bad_self_revoke),
        patch(&issued),
        patch(&imported),
    ]
}

/// Everything that an admin can see of the keys.
async fn keys(talos: &Talos) -> [Value; 2] {
    let list = async |path| talos.admin.get(&format!("{path}?page_size=1000")).await.expect(200).json();
    [list(ISSUED).await, list(IMPORTED).await]
}

async fn send(talos: &Talos, route: &Route, body: impl Into<bytes::Bytes>) -> Reply {
    let call = Call::new(route.method, &route.path).body("application/json", body);
    talos.admin.send(Version::Http1, call).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_member_is_refused_by_name_and_changes_nothing() {
    let talos = Talos::start().await;
    let (issued, imported) = (talos.issue(json!({})).await, talos.import("there-already", json!({})).await);
    let before = keys(&talos).await;
    for route in routes(&issued, &imported) {
        for (member, value) in &route.bad {
            let mut body = route.good.clone();
            body[member] = value.clone();
            let shown: String = format!("{} {} {body}", route.method, route.path).chars().take(300).collect();
            let reply = send(&talos, &route, body.to_string()).await;
            assert_eq!(reply.status, 400, "{shown}: {}", reply.text());
            let field = reply.json().text("/error/details/0/metadata/field").to_owned();
            assert!(field.contains(member), "{shown}: names {field} and not {member}");
            let message = reply.expect_bad_request();
            assert!(message.len() < 500, "{shown}: the message repeats what was sent: {message}");
        }
    }
    assert_eq!(keys(&talos).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_body_that_is_no_object_of_json_is_refused_and_changes_nothing() {
    let talos = Talos::start().await;
    let (issued, imported) = (talos.issue(json!({})).await, talos.import("there-already", json!({})).await);
    let before = keys(&talos).await;
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    for route in routes(&issued, &imported) {
        let good = route.good.to_string();
        let values: Vec<&Value> =
            route.good.as_object().into_iter().flat_map(|members| members.values()).collect();
        let bad: Vec<Vec<u8>> = vec![
            b"null".to_vec(),
            b"5".to_vec(),
            b"\"text\"".to_vec(),
            b"{".to_vec(),
            b"{\"name\":\"\xff\xfe\"}".to_vec(),
            br#"{"name":"\ud800"}"#.to_vec(),
            json!(values).to_string().into(),
            json!([null, null]).to_string().into(),
            json!([route.good]).to_string().into(),
            format!("{good} {good}").into(),
            good[..good.len() - 1].into(),
            deep.clone().into(),
            format!(r#"{{"metadata":{{"x":{deep}}},"custom_claims":{{"x":{deep}}}}}"#).into(),
        ];
        for body in bad {
            let shown: String = format!("{} {} {}", route.method, route.path, String::from_utf8_lossy(&body))
                .chars()
                .take(300)
                .collect();
            let reply = send(&talos, &route, body).await;
            assert_eq!(reply.status, 400, "{shown}: {}", reply.text());
            reply.expect_bad_request();
        }
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
            let call = Call::new(route.method, &route.path).body(kind, good.clone());
            let reply = talos.admin.send(Version::Http1, call).await.expect(415);
            assert_envelope(&reply.json(), 415);
        }
        // Writing the body may fail when the answer comes first, so the bytes are sent directly.
        let body = "x".repeat(5 * 1024 * 1024);
        let request = format!(
            "{} {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            route.method,
            route.path,
            talos.admin.0,
            body.len()
        );
        let answer = talos.admin.raw(request.as_bytes()).await;
        assert_eq!(answer.status(), 413, "{}: {}", route.path, answer.head);
    }
    assert_eq!(keys(&talos).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_method_is_405_and_says_which_there_are() {
    let talos = Talos::start().await;
    let (issued, imported) = (talos.issue(json!({})).await, talos.import("there-already", json!({})).await);
    let before = keys(&talos).await;
    let resources = [
        (ISSUED.to_owned(), "GET,HEAD,POST"),
        (IMPORTED.to_owned(), "GET,HEAD,POST"),
        (format!("{ISSUED}/{}", issued.id), "DELETE,GET,HEAD,PATCH"),
        (format!("{IMPORTED}/{}", imported.id), "DELETE,GET,HEAD,PATCH"),
        (format!("{ISSUED}/{}:revoke", issued.id), "POST"),
        (format!("{ISSUED}/{}:rotate", issued.id), "POST"),
        (format!("{IMPORTED}/{}:revoke", imported.id), "POST"),
        (format!("{IMPORTED}:batchCreate"), "POST"),
        (format!("/v2alpha1/admin/apiKeys/{}:revoke", issued.id), "POST"),
        (VERIFY.to_owned(), "POST"),
        ("/v2alpha1/admin/apiKeys:batchVerify".to_owned(), "POST"),
        (DERIVE.to_owned(), "POST"),
        (SELF_REVOKE.to_owned(), "POST"),
        ("/openapi.json".to_owned(), "GET,HEAD"),
        ("/docs".to_owned(), "GET,HEAD"),
    ];
    for (path, allowed) in resources {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
            if allowed.split(',').any(|other| other == method) {
                continue;
            }
            let call = Call::new(method, &path).json(&json!({ "name": "m" }));
            let reply = talos.admin.send(Version::Http1, call).await.expect(405);
            assert_envelope(&reply.json(), 405);
            let mut methods: Vec<&str> = reply.header("allow").unwrap_or_default().split(',').collect();
            methods.sort_unstable();
            assert_eq!(methods.join(","), allowed, "{method} {path}");
        }
    }
    assert_eq!(keys(&talos).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_parameter_is_refused_by_name() {
    let talos = Talos::start().await;
    for number in 0..3 {
        talos.issue(json!({})).await;
        talos.import(&format!("imported-{number}"), json!({})).await;
    }
    let before = keys(&talos).await;
    let id = talos.issue(json!({})).await.id;
    let page = talos.admin.get(&format!("{ISSUED}?page_size=1")).await.expect(200).json();
    let token = page.text("/next_page_token");
    let changed = if token[40..].starts_with('A') { "B" } else { "A" };
    let tampered = format!("{}{changed}{}", &token[..40], &token[41..]);
    let long_filter = format!("actor_id%3D%22{}%22", "a".repeat(1_100));
    for (path, other_token) in [(ISSUED, ""), (IMPORTED, token)] {
        for (query, name) in [
            ("page_size=-1", "page_size"),
            ("page_size=1.5", "page_size"),
            ("page_size=0x10", "page_size"),
            ("page_size=%31%30%C2%B2", "page_size"),
            ("page_size=1&page_size=2", "page_size"),
            ("page_token=AAAA", "page_token"),
            ("page_token=%00", "page_token"),
            (&format!("page_token={tampered}"), "page_token"),
            (&format!("page_token={token}&filter=actor_id%3Dalice"), "page_token"),
            (&format!("page_token={}", if other_token.is_empty() { "A" } else { other_token }), "page_token"),
            ("filter=colour%3Dblue", "filter"),
            ("filter=actor_id%3D%22a%00b%22", "filter"),
            ("filter=status%3DKEY_STATUS_UNSPECIFIED", "filter"),
            (&format!("filter={long_filter}"), "filter"),
            ("filter=actor_id%3D%22%FF%22", "query"),
            ("offset=2", "offset"),
            ("pageSize=2", "pageSize"),
        ] {
            let message = talos.admin.get(&format!("{path}?{query}")).await.expect_bad_request();
            assert!(message.contains(name), "{path}?{query}: {message}");
        }
        // However much is asked for, there is a largest page.
        talos.admin.get(&format!("{path}?page_size=99999999999999999999")).await.expect(200);
    }
    let long_mask = "name,".repeat(300);
    for (query, name) in [
        ("update_mask=colour", "update_mask"),
        ("update_mask=key_id", "update_mask"),
        ("update_mask=name,,scopes", "update_mask"),
        ("update_mask=name&update_mask=scopes", "update_mask"),
        ("update_mask=rate_limit_policy.quota", "update_mask"),
        (&format!("update_mask={long_mask}"), "update_mask"),
        ("update_mask=%FF", "query"),
        ("updateMask=name", "updateMask"),
    ] {
        let message = talos
            .patch(&format!("{ISSUED}/{id}?{query}"), &json!({ "name": "m" }))
            .await
            .expect_bad_request();
        assert!(message.contains(name), "{query}: {message}");
    }
    talos.admin.send(Version::Http1, Call::post(&format!("{ISSUED}/{id}:revoke"))).await.expect(204);
    let [issued, imported] = keys(&talos).await;
    assert_eq!(imported, before[1]);
    let unchanged = issued.at("/issued_api_keys").as_array().map(|keys| &keys[..3]);
    assert_eq!(unchanged, before[0].at("/issued_api_keys").as_array().map(Vec::as_slice));
    assert_eq!(issued.text("/issued_api_keys/3/name"), "a key");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_ids_are_404_on_every_route() {
    let talos = Talos::start().await;
    let (issued, imported) = (talos.issue(json!({})).await, talos.import("there-already", json!({})).await);
    let before = keys(&talos).await;
    let long = "a".repeat(4_096);
    for id in ["nonsense", "%00", "%FF", "..%2F..", "a%3Ab", "-", &long, &format!("{}%20", issued.id)] {
        for (kind, other) in [(ISSUED, &imported.id), (IMPORTED, &issued.id)] {
            for id in [id, other] {
                let mut calls = vec![
                    Call::get(&format!("{kind}/{id}")),
                    Call::new("PATCH", &format!("{kind}/{id}")).json(&json!({ "name": "m" })),
                    Call::post(&format!("{kind}/{id}:revoke")).json(&json!({})),
                ];
                calls.push(match kind {
                    ISSUED => Call::post(&format!("{kind}/{id}:rotate")).json(&json!({})),
                    _ => Call::new("DELETE", &format!("{kind}/{id}")),
                });
                for call in calls {
                    let shown: String = format!("{call:?}").chars().take(200).collect();
                    let reply = talos.admin.send(Version::Http1, call).await;
                    assert_eq!(reply.status, 404, "{shown}: {}", reply.text());
                    assert_envelope(&reply.json(), 404);
                }
            }
        }
    }
    assert_eq!(keys(&talos).await, before);
}
