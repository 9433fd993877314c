//! Denied responses, and the dynamic metadata that Envoy's log may have of them.

use prost::Message;
use serde_json::json;

use crate::rig::check::Check;
use crate::rig::http::{Call, Version, assert_envelope};
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{NETWORK, Setup, Talos};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_gets_a_page_and_everybody_else_json() {
    let talos = Talos::start().await;
    for (accept, html) in [
        (None, false),
        (Some("*/*"), false),
        (Some("application/json, text/plain, */*"), false),
        (Some("application/json, text/html"), false),
        (Some("text/html;q=0"), false),
        (Some(BROWSER), true),
        (Some("text/html"), true),
    ] {
        let ask = accept.into_iter().fold(Check::default(), |ask, accept| ask.header("accept", accept));
        let denied = talos.check(ask).await.denied(401);
        let content_type = denied.header("content-type").must("a content type");
        match html {
            true => {
                assert_eq!(content_type, "text/html; charset=utf-8", "{accept:?}");
                assert!(denied.body.contains("<h1>401 Unauthorized</h1>"), "{}", denied.body);
            }
            false => {
                assert_eq!(content_type, "application/json", "{accept:?}");
                assert_envelope(&serde_json::from_str(&denied.body).must("a JSON body"), 401);
            }
        }
        assert!(denied.header("www-authenticate").is_some());
    }
}

/// An empty header takes two bytes of the message, and many times that in memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_of_more_headers_than_any_envoy_sends_is_refused() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let grpc = talos.grpc().await;
    for ask in [Check::api_key(&key.secret), Check::api_key(&key.secret).raw()] {
        let with = |count: usize| {
            let ask = (0..count).fold(ask.clone(), |ask, n| ask.header(&format!("x-{n}"), "1"));
            ask.build().encode_to_vec()
        };
        let answer = grpc.check_bytes(with(4_000)).await.must("an answer");
        assert!(answer.verdict().must("a decision").passes());
        let answer = grpc.check_bytes(with(4_100)).await.must("an answer");
        assert_eq!(answer.code, 3, "{}", answer.text);
        assert!(answer.text.contains("4096"), "{}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_client_gets_the_status_that_is_meant() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let grpc = |ask: Check| ask.header("content-type", "application/grpc").header("accept", BROWSER);
    let cases = [
        (Check::default(), 401, "16"),
        (Check::bearer("garbage"), 401, "16"),
        (Check::bearer(&key.secret).route("talos.scopes", "x"), 403, "7"),
        (Check::bearer(&key.secret).header("x-api-key", "y"), 400, "3"),
        (Check::default().route("talos.mode", "x"), 500, "13"),
    ];
    for (ask, status, code) in cases {
        let denied = talos.check(grpc(ask)).await.denied(status);
        assert_eq!(denied.header("grpc-status"), Some(code));
        assert_eq!(denied.header("content-type"), Some("text/plain"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_revoked_and_unknown_look_alike_unless_they_may_be_told_apart() {
    let quiet = Talos::start().await;
    let open = quiet.setup.clone().set("TALOS_AUTHZ_REVEAL_REASON", "true").start().await;
    let expired = quiet.issue(json!({ "ttl": "1s" })).await;
    let revoked = quiet.issue(json!({})).await;
    quiet.revoke(&revoked).await;
    let cases = [
        (
            expired.secret.as_str(),
            Some(&expired.id),
            "expired",
            "API_KEY_EXPIRED",
            "the credential has expired",
        ),
        (&revoked.secret, Some(&revoked.id), "revoked", "API_KEY_REVOKED", "the credential has been revoked"),
        ("unknown", None, "not_found", "UNAUTHORIZED", "the credential is not known"),
    ];
    for (secret, id, reason, revealed, text) in cases {
        until(reason, async || {
            let verdict = quiet.check(Check::bearer(secret)).await;
            verdict
                .is(401)
                .then(|| verdict.denied(401))
                .filter(|denied| denied.fact("reason") == Some(json!(reason)))
        })
        .await;
        let denied = quiet.check(Check::bearer(secret)).await.denied(401);
        let body: serde_json::Value = serde_json::from_str(&denied.body).must("a JSON body");
        assert_eq!(body.text("/error/message"), "the credential is not valid");
        assert_eq!(body.text("/error/details/0/reason"), "UNAUTHORIZED");
        assert_eq!(
            denied.header("www-authenticate"),
            Some("Bearer realm=\"talos\", error=\"invalid_token\"")
        );
        // The key's id is known only for a whole and genuine key.
        assert_eq!(denied.fact("key_id"), id.map(|id| json!(id)), "{reason}");
        assert_eq!(denied.fact("decision"), Some(json!("deny")));

        until(reason, async || open.check(Check::bearer(secret)).await.is(401).then_some(())).await;
        let denied = open.check(Check::bearer(secret)).await.denied(401);
        let body: serde_json::Value = serde_json::from_str(&denied.body).must("a JSON body");
        assert_eq!((body.text("/error/message"), body.text("/error/details/0/reason")), (text, revealed));
        let challenge =
            format!("Bearer realm=\"talos\", error=\"invalid_token\", error_description=\"{text}\"");
        assert_eq!(denied.header("www-authenticate"), Some(challenge.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_whose_key_it_was_when_that_was_proven() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({ "scopes": ["a"], "metadata": { "plan": "gold" } })).await;
    let token = talos.derive(&key, json!({})).await;
    for credential in [&key.secret, &token] {
        let denied = talos.check(Check::bearer(credential).route("talos.scopes", "x")).await.denied(403);
        assert_eq!(denied.fact("key_id"), Some(json!(key.id)));
        assert_eq!(denied.fact("actor_id"), Some(json!("alice")));
        assert_eq!(denied.fact("network_id"), Some(json!(NETWORK)));
        assert_eq!(denied.fact("scopes"), Some(json!(["a"])));
        assert_eq!(denied.fact("reason"), Some(json!("insufficient_scope")));
    }
    let (all_but_four, _) = key.secret.split_at(key.secret.len() - 4);
    let forged = talos.check(Check::bearer(&format!("{all_but_four}2222"))).await.denied(401);
    assert_eq!(forged.fact("key_id"), None, "the holder of half a key isn't its holder");
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_of_the_operators_own_are_shown_and_watched() {
    let setup = Setup::new();
    let file = setup.path("denied.yaml");
    let write = |page: &str| {
        let text = format!(
            "responses:\n- {{statuses: [401], accept: text/html, content_type: text/html, headers: {{X-Page: '1'}}, \
             body: '{page} {{{{message}}}} {{{{request_id}}}}'}}\n- {{statuses: [403], content_type: \
             application/problem+json, body: '{{\"title\":\"{{{{title}}}}\",\"scopes\":\"{{{{scopes}}}}\"}}'}}\n"
        );
        std::fs::write(&file, text).must("writing the texts");
    };
    let with_file = setup.clone().set("TALOS_AUTHZ_DENIED_TEMPLATE_FILE", &file.display().to_string());
    let checked = with_file.run(&["config", "check"]).await;
    assert!(!checked.status.success());
    assert!(String::from_utf8_lossy(&checked.stderr).contains("authz.denied_template_file"), "{checked:?}");
    let missing = with_file.refused().await;
    assert!(missing.contains("authz.denied_template_file"), "{missing}");
    write("{{nonsense}}");
    let refused = with_file.refused().await;
    assert!(refused.contains("responses[0].body: placeholders are"), "{refused}");

    write("one");
    let talos = with_file.start().await;
    let key = talos.issue(json!({})).await;
    let page = async || {
        let ask = Check::default().header("accept", BROWSER).header("x-request-id", "<script>");
        talos.check(ask).await.denied(401)
    };
    let denied = page().await;
    assert_eq!(denied.body, "one an API key is required &lt;script&gt;");
    assert_eq!((denied.header("content-type"), denied.header("x-page")), (Some("text/html"), Some("1")));
    assert!(denied.header("www-authenticate").is_some());
    assert_envelope(
        &serde_json::from_str(&talos.check(Check::default()).await.denied(401).body).must("a JSON body"),
        401,
    );
    let denied = talos.check(Check::bearer(&key.secret).route("talos.scopes", "a b")).await.denied(403);
    assert_eq!(denied.body, r#"{"title":"Forbidden","scopes":"a b"}"#);
    let grpc = Check::default().header("accept", BROWSER).header("content-type", "application/grpc");
    assert_eq!(talos.check(grpc).await.denied(401).body, "an API key is required");

    write("{{nonsense}}");
    until("the bad texts are refused", async || {
        talos.process.log().contains("the denied templates were refused").then_some(())
    })
    .await;
    assert!(page().await.body.starts_with("one "));
    // The file of a key is refused without a word of it.
    std::fs::write(&file, "-----BEGIN PRIVATE KEY-----\ns3cr3t").must("writing a key");
    until("the key is refused", async || {
        let log = talos.process.log();
        let mut refusals = log.lines().filter(|line| line.contains("the denied templates were refused"));
        refusals.any(|line| !line.contains("missing field") && !line.contains("placeholders")).then_some(())
    })
    .await;
    assert!(!talos.process.log().contains("s3cr3t"), "{}", talos.process.log());
    write("two");
    until("the new texts are shown", async || page().await.body.starts_with("two ").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_is_checked_or_passes_as_configured() {
    let checking = Talos::start().await;
    let allowing = Setup::new().set("TALOS_AUTHZ_PREFLIGHT", "allow").start().await;
    let ask = |method: &str, headers: &[&str]| {
        headers.iter().fold(Check::default().method(method), |ask, name| ask.header(name, "x"))
    };
    let preflight = ["origin", "access-control-request-method"];
    checking.check(ask("OPTIONS", &preflight)).await.denied(401);
    let allowed =
        allowing.check(ask("OPTIONS", &preflight).header("x-talos-actor-id", "mallory")).await.allowed();
    assert!(allowed.removes("x-talos-actor-id"));
    for no_preflight in [
        ask("GET", &preflight),
        ask("OPTIONS", &preflight[..1]),
        ask("OPTIONS", &preflight[1..]),
        ask("options", &preflight),
    ] {
        allowing.check(no_preflight).await.denied(401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_what_to_do() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({ "scopes": ["a"] })).await;
    let body = async |ask: Check, status| -> serde_json::Value {
        let denied = talos.check(ask).await.denied(status);
        serde_json::from_str(&denied.body).must("a JSON body")
    };
    let send = "send it as `authorization: Bearer KEY` or `x-api-key: KEY`";
    let missing = body(Check::default(), 401).await;
    assert_eq!(missing.text("/error/message"), format!("an API key is required: {send}"));
    let bare = body(Check::default().header("authorization", key.secret.as_str()), 401).await;
    assert!(bare.text("/error/message").contains("without the scheme Bearer"), "{bare:#}");
    assert!(!bare.to_string().contains(&key.secret));
    let two = body(Check::bearer(&key.secret).header("x-api-key", "other"), 400).await;
    let places = "in the header `authorization` and in the header `x-api-key`: send one of them";
    assert!(two.text("/error/message").ends_with(places), "{two:#}");
    let scopes = body(Check::bearer(&key.secret).route("talos.scopes", "a b c"), 403).await;
    assert!(scopes.text("/error/message").ends_with(": missing: b, c"), "{scopes:#}");
    assert_eq!(scopes.text("/error/details/0/metadata/missing_scopes"), "b c");
    assert_eq!(scopes.text("/error/details/0/metadata/required_scopes"), "a b c");
    let one_of = body(Check::bearer(&key.secret).route("talos.any_scope", "b c"), 403).await;
    assert!(one_of.text("/error/message").ends_with(": needed: one of b, c"), "{one_of:#}");
    // Unknown, revoked and expired keys stay alike.
    let unknown = body(Check::bearer("unknown"), 401).await;
    assert_eq!(unknown.text("/error/message"), "the credential is not valid");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_carries_the_id_of_its_request() {
    let talos = Talos::start().await;
    let body = |text: &str| -> serde_json::Value { serde_json::from_str(text).must("a JSON body") };
    let denied = talos.check(Check::default().header("x-request-id", "id-1")).await.denied(401);
    assert_eq!(denied.header("x-request-id"), Some("id-1"));
    assert_eq!(body(&denied.body).text("/error/details/0/metadata/request_id"), "id-1");
    let denied = talos.check(Check::default()).await.denied(401);
    let made = denied.header("x-request-id").must("an id").to_owned();
    assert_eq!(made.len(), 36, "{made}");
    assert_eq!(body(&denied.body).text("/error/details/0/metadata/request_id"), made);

    for (name, base) in [("admin", talos.admin), ("public", talos.public), ("metrics", talos.metrics)] {
        for path in ["/health/alive", "/none"] {
            let echoed = base.send(Version::Http1, Call::get(path).header("x-request-id", "id-2")).await;
            assert_eq!(echoed.header("x-request-id"), Some("id-2"), "{name} {path}");
            let made = base.get(path).await;
            let id = made.header("x-request-id").must(path).to_owned();
            assert_eq!(id.len(), 36, "{name} {path}: {id}");
            if path == "/none" {
                assert_eq!(echoed.json().text("/error/details/0/metadata/request_id"), "id-2");
                assert_eq!(made.json().text("/error/details/0/metadata/request_id"), id);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_the_domain_and_the_page_that_are_configured() {
    let talos = Setup::new()
        .set("TALOS_ERRORS_DOMAIN", "keys.example")
        .set("TALOS_ERRORS_DOCS_URL", "https://keys.example/errors")
        .start()
        .await;
    let denied = talos.check(Check::default()).await.denied(401);
    let at_the_edge: serde_json::Value = serde_json::from_str(&denied.body).must("a JSON body");
    let on_http = talos.admin.get("/none").await.expect(404).json();
    for (error, anchor) in [(&at_the_edge, "missing"), (&on_http, "NOT_FOUND")] {
        assert_eq!(error.text("/error/details/0/domain"), "keys.example");
        let url = format!("https://keys.example/errors#{anchor}");
        assert_eq!(error.text("/error/details/0/metadata/docs_url"), url);
    }
}
