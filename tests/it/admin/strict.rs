//! Requests that are refused, each with words that name what is wrong.

use serde_json::{Value, json};

use crate::rig::http::{BOTH, Base, Call, Reply, Version, assert_envelope};
use crate::rig::support::Json;
use crate::rig::talos::{DERIVE, IMPORTED, ISSUED, SELF_REVOKE, Talos, VERIFY};

/// Posts each body, a good one with one field changed, and asserts a 400 that names the field.
async fn assert_refused(base: Base, path: &str, good: &Value, changes: Vec<(&str, Value)>) {
    for (field, value) in changes {
        let mut body = good.clone();
        body[field] = value;
        let shown: String = body.to_string().chars().take(200).collect();
        let reply = base.post(path, &body).await;
        assert_eq!(reply.status, 400, "{path} {shown}: {}", reply.text());
        let message = reply.expect_bad_request();
        assert!(message.contains(field), "{path} {shown}: the message names no {field}: {message}");
        let mut named = message.clone();
        named.truncate(500);
        assert_eq!(named, message, "a message repeats what was sent");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_field_is_named() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let revoke = format!("{ISSUED}/{}:revoke", key.id);
    let paths = [ISSUED, IMPORTED, VERIFY, DERIVE, &revoke, SELF_REVOKE];
    for path in paths {
        assert_refused(talos.admin, path, &json!({}), vec![("nonesuch", json!(1))]).await;
    }
    let deeper = json!({ "name": "n", "actor_id": "a", "ip_restriction": { "nonesuch": [] } });
    let message = talos.admin.post(ISSUED, &deeper).await.expect_bad_request();
    assert!(message.contains("nonesuch"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_the_wrong_kind_or_size_are_refused_by_field() {
    let talos = Talos::start().await;
    let many: Vec<String> = (0..101).map(|number| format!("s{number}")).collect();
    let common = vec![
        ("name", json!(5)),
        ("name", json!("")),
        ("name", json!("n".repeat(256))),
        ("name", json!("a\u{7}b")),
        ("actor_id", json!(["a"])),
        ("actor_id", json!("")),
        ("actor_id", json!("a".repeat(256))),
        ("actor_id", json!("a\nb")),
        ("scopes", json!("a b")),
        ("scopes", json!([1])),
        ("scopes", json!([""])),
        ("scopes", json!(["has space"])),
        ("scopes", json!(["quo\"te"])),
        ("scopes", json!(["back\\slash"])),
        ("scopes", json!(["ünicode"])),
        ("scopes", json!(["s".repeat(129)])),
        ("scopes", json!(["a", "b", "a"])),
        ("scopes", json!(many)),
        ("ip_restriction", json!({ "allowed_cidrs": ["10.0.0.0/33"] })),
        ("ip_restriction", json!({ "allowed_cidrs": ["example.com"] })),
        ("ip_restriction", json!({ "allowed_cidrs": "10.0.0.0/8" })),
        ("ttl", json!("-5s")),
        ("ttl", json!("soon")),
        ("ttl", json!("347000000s")),
        ("ttl", json!("8761h")),
        ("metadata", json!("text")),
        ("metadata", json!([1])),
        ("metadata", json!({ "filler": "x".repeat(4096) })),
        ("visibility", json!("KEY_VISIBILITY_BLUE")),
        ("rate_limit_policy", json!({ "quota": "many", "window": "60s" })),
        ("request_id", json!("r".repeat(37))),
    ];
    let good = json!({ "name": "n", "actor_id": "a" });
    assert_refused(talos.admin, ISSUED, &good, common.clone()).await;
    let good = json!({ "name": "n", "actor_id": "a", "raw_key": "legacy-0123456789" });
    assert_refused(talos.admin, IMPORTED, &good, common).await;
    let keys = talos.admin.get(ISSUED).await.expect(200).json();
    assert_eq!(keys.at("/issued_api_keys"), &json!([]), "a refused request left a key");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_at_their_limits_are_accepted() {
    let talos = Talos::start().await;
    let hundred: Vec<String> = (0..100).map(|number| format!("s{number}")).collect();
    let fields = [
        json!({ "name": "n".repeat(255), "actor_id": "a".repeat(255) }),
        json!({ "scopes": hundred }),
        json!({ "scopes": ["s".repeat(128), "!#$%&'()*+,-./:;<=>?@[]^_`{|}~", "*", "a:*"] }),
        json!({ "ttl": "1s" }),
        json!({ "ttl": "8760h" }),
        json!({ "request_id": "r".repeat(36) }),
        json!({ "ip_restriction": { "allowed_cidrs": ["0.0.0.0/0", "::/0", "10.1.2.3/32"] } }),
        json!({ "rate_limit_policy": { "quota": "100", "window": "60s" } }),
        json!({ "metadata": { "filler": "x".repeat(4000) } }),
    ];
    for field in fields {
        talos.issue(field).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_name_or_actor_is_named() {
    let talos = Talos::start().await;
    for (body, field) in [(json!({ "name": "n" }), "actor_id"), (json!({ "actor_id": "a" }), "name")] {
        let message = talos.admin.post(ISSUED, &body).await.expect_bad_request();
        assert!(message.contains(field), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_other_operations_are_refused_by_field() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({ "scopes": ["a"] })).await;
    let verify = vec![("credential", json!(7)), ("credential", json!({}))];
    assert_refused(talos.admin, VERIFY, &json!({}), verify).await;
    let derive = vec![
        ("ttl", json!("soon")),
        ("scopes", json!("a")),
        ("algorithm", json!("TOKEN_ALGORITHM_BLUE")),
        ("custom_claims", json!("text")),
        ("audiences", json!([7])),
    ];
    assert_refused(talos.admin, DERIVE, &json!({ "credential": key.secret }), derive).await;
    let revoke = vec![
        ("reason", json!("REVOCATION_REASON_BLUE")),
        ("reason", json!(["x"])),
        ("description", json!(7)),
    ];
    assert_refused(talos.admin, &format!("{ISSUED}/{}:revoke", key.id), &json!({}), revoke).await;
    let good = json!({ "credential": key.secret });
    assert_refused(talos.public, SELF_REVOKE, &good, vec![("reason", json!("BLUE"))]).await;
    assert_eq!(talos.verify(&key.secret).await["is_valid"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_must_be_there_and_not_beyond_16_kib() {
    let talos = Talos::start().await;
    for body in [json!({ "credential": "" }), json!({}), json!({ "credential": null })] {
        let reply = talos.admin.post(VERIFY, &body).await;
        reply.expect_error(400, "CREDENTIAL_REQUIRED");
    }
    let huge = json!({ "credential": "x".repeat(17 * 1024) });
    for (base, path) in [(talos.admin, VERIFY), (talos.admin, DERIVE), (talos.public, SELF_REVOKE)] {
        base.post(path, &huge).await.expect_bad_request();
    }
    let large = json!({ "credential": "x".repeat(16 * 1024) });
    assert_eq!(talos.admin.post(VERIFY, &large).await.expect(200).json()["is_valid"], false);
}

async fn post(base: Base, content_type: &str, body: impl Into<bytes::Bytes>) -> Reply {
    base.send(Version::Http1, Call::post(VERIFY).body(content_type, body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_must_be_json_in_utf8() {
    let talos = Talos::start().await;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "nonsense"] {
        let reply = post(talos.admin, kind, r#"{"credential":"x"}"#).await.expect(415);
        assert_envelope(&reply.json(), 415);
    }
    for kind in ["application/json", "application/json; charset=utf-8", "Application/JSON"] {
        post(talos.admin, kind, r#"{"credential":"x"}"#).await.expect(200);
    }
    let bad: [&[u8]; 8] = [
        b"",
        b"{",
        b"[]",
        b"null",
        br#"{"credential":"x"} {}"#,
        b"{\"credential\":\"\xff\xfe\"}",
        br#"{"credential":"\ud800"}"#,
        br#"{"credential":"x","credential":"y"}"#,
    ];
    for body in bad {
        let reply = post(talos.admin, "application/json", body.to_vec()).await;
        assert_eq!(reply.status, 400, "{}: {}", String::from_utf8_lossy(body), reply.text());
        reply.expect_bad_request();
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let body = format!(r#"{{"name":"n","actor_id":"a","metadata":{{"x":{deep}}}}}"#);
    let reply = talos.admin.send(Version::Http1, Call::post(ISSUED).body("application/json", body)).await;
    reply.expect_bad_request();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_beyond_the_limit_is_413() {
    let talos = Talos::start().await;
    for (base, path) in [(talos.admin, ISSUED), (talos.public, SELF_REVOKE)] {
        let body = "x".repeat(5 * 1024 * 1024);
        let sized = format!("content-length: {}\r\n\r\n{body}", body.len());
        let chunked = format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        for rest in [sized, chunked] {
            let request = format!(
                "POST {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\n{rest}",
                base.0
            );
            let answer = base.raw(request.as_bytes()).await;
            assert_eq!(answer.status(), 413, "{path}: {}", answer.head);
            assert_envelope(&answer.json(), 413);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_error_repeats_a_secret() {
    let talos = Talos::start().await;
    let secret = "sk_live_do_not_repeat";
    let bodies = [
        json!({ "credential": secret, "nonesuch": secret }),
        json!({ "credential": [secret] }),
        json!({ "credential": { secret: secret } }),
    ];
    for body in bodies {
        for (base, path) in [(talos.admin, VERIFY), (talos.admin, DERIVE), (talos.public, SELF_REVOKE)] {
            let reply = base.post(path, &body).await;
            assert!(!reply.text().contains(secret), "{path}: {}", reply.text());
        }
    }
    let imported = json!({ "name": "n", "actor_id": "", "raw_key": secret });
    let reply = talos.admin.post(IMPORTED, &imported).await;
    assert!(!reply.text().contains(secret), "{}", reply.text());
    assert!(!talos.process.log().contains(secret), "a secret is in the log");
}

/// Adds metadata as text, since `serde_json` would normalise it.
fn with_metadata(body: &Value, metadata: &str) -> String {
    let text = body.to_string();
    format!("{},\"metadata\":{metadata}}}", text.strip_suffix('}').unwrap())
}

/// In Envoy's dynamic metadata numbers are doubles: two tenants must not become one there, nor on
/// the way.
#[tokio::test(flavor = "multi_thread")]
async fn attributes_that_readers_would_not_agree_about_are_refused() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let (one, rotate) = (format!("{ISSUED}/{}", key.id), format!("{ISSUED}/{}:rotate", key.id));
    let new = json!({ "name": "n", "actor_id": "a" });
    let import = json!({ "name": "n", "actor_id": "a", "raw_key": "legacy-0123456789" });
    let send = async |method: &str, path: &str, body: String| {
        let call = Call::new(method, path).body("application/json", body);
        talos.admin.send(Version::Http1, call).await
    };
    let cases = [
        (r#"{"tenant":9007199254740992}"#, "metadata.tenant: must be a number"),
        (r#"{"tenant":-9007199254740993}"#, "metadata.tenant: must be a number"),
        (r#"{"tenant":18446744073709551616}"#, "metadata.tenant: must be a number"),
        (r#"{"tenant":9007199254740993.0}"#, "metadata.tenant: must be a number"),
        (r#"{"a":[{"tenant":-0}]}"#, "metadata.a[0].tenant: must be a number"),
        (r#"{"tenant":-0.0}"#, "metadata.tenant: must be a number"),
        (r#"{"tenant":"a","tenant":"b"}"#, "metadata.tenant: stands there twice"),
        (r#"{"tenant":"a","\u0074enant":"b"}"#, "metadata.tenant: stands there twice"),
        (r#"[]"#, "metadata: must be a JSON object"),
    ];
    for (number, (metadata, field)) in cases.into_iter().enumerate() {
        for (method, path, body) in [
            ("POST", ISSUED, &new),
            ("POST", IMPORTED, &import),
            ("PATCH", &one, &json!({ "name": "m" })),
            ("POST", &rotate, &json!({ "name": "m" })),
        ] {
            let message = send(method, path, with_metadata(body, metadata)).await.expect_bad_request();
            assert!(message.starts_with(field), "{method} {path} {metadata}: {message}");
        }
        // In a batch for each row.
        let good = json!({ "name": "n", "actor_id": "a", "raw_key": format!("good-{number}") });
        let rows = format!("{{\"requests\":[{},{good}]}}", with_metadata(&import, metadata));
        let reply = send("POST", &format!("{IMPORTED}:batchCreate"), rows).await.expect(200).json();
        assert!(reply.text("/results/0/error_message").starts_with(field), "{reply}");
        let claims = with_metadata(&json!({ "credential": key.secret }), metadata);
        let reply = send("POST", DERIVE, claims.replace("\"metadata\"", "\"custom_claims\"")).await;
        // A JWT stays JSON, where whole numbers of 64 bits are themselves.
        match metadata.contains("900719925474099") && !metadata.contains('.') {
            true => assert!(reply.expect(200).text().contains("tenant")),
            false => {
                assert!(reply.expect_bad_request().starts_with(&field.replace("metadata", "custom_claims")))
            }
        }
    }
    let metadata = r#"{"tenant":9007199254740991,"big":"9007199254740993","a":[0.1,1e2,-1,null]}"#;
    let issued = send("POST", ISSUED, with_metadata(&new, metadata)).await.expect(201).json();
    let expected: Value = serde_json::from_str(metadata).unwrap();
    assert_eq!(issued.at("/issued_api_key/metadata"), &expected);
}

/// Clients that compress bodies, and shells that begin or encode texts in their own way.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_in_other_encodings_are_read_or_named() {
    let talos = Talos::start().await;
    let good = json!({ "name": "n", "actor_id": "a" }).to_string();
    let post = |body: Vec<u8>| Call::post(ISSUED).body("application/json; charset=utf-8", body);
    let marked = [b"\xef\xbb\xbf", good.as_bytes()].concat();
    let utf16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for version in BOTH {
        talos.admin.send(version, post(marked.clone())).await.expect(201);
        let identity = post(good.clone().into()).header("content-encoding", "Identity");
        talos.admin.send(version, identity).await.expect(201);
        for encoding in ["gzip", "br", "identity, gzip"] {
            let call = post(good.clone().into()).header("content-encoding", encoding);
            let reply = talos.admin.send(version, call).await.expect(415);
            assert_envelope(&reply.json(), 415);
            assert!(reply.text().contains("Content-Encoding: isn't supported"), "{}", reply.text());
        }
        for body in [
            utf16.clone(),
            b"\x1f\x8b\x08\0".to_vec(),
            b"name=n&actor_id=a".to_vec(),
            b"{'name': 1}".to_vec(),
        ] {
            let message = talos.admin.send(version, post(body)).await.expect_bad_request();
            assert_eq!(message, "body: must be valid JSON in UTF-8 and not too deep");
        }
    }
}
