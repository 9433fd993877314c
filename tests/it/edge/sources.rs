//! Credential sources: a key is found there and removed from the request.

use serde_json::json;

use super::Edge;
use crate::rig::http::{BOTH, Call, Version};
use crate::rig::talos::Setup;

const EVERYWHERE: &str = r#"[{"header": "authorization", "scheme": "Bearer"}, {"header": "x-api-key"},
    {"query": "api_key"}, {"cookie": "key"}]"#;

async fn everywhere() -> Edge {
    Edge::with(Setup::new().set("TALOS_AUTHZ_SOURCES", EVERYWHERE), &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_the_query_is_taken_out_of_it() {
    needs!(Envoy);
    let edge = everywhere().await;
    let key = edge.talos.issue(json!({})).await;
    let imported = edge.talos.import("plus+sign & space", json!({})).await;
    for version in BOTH {
        let cases = [
            (format!("/p?api_key={}", key.secret), "/p"),
            (format!("/p?z=%7E&api_key={}&a=1+2", key.secret), "/p?z=%7E&a=1+2"),
            (format!("/p?%61pi%5Fkey={}&a=b", key.secret), "/p?a=b"),
            ("/p?api_key=plus%2Bsign+%26%20space&a=b".to_owned(), "/p?a=b"),
        ];
        for (path, upstream) in cases {
            let seen = edge.passes(version, Call::get(&path)).await;
            assert_eq!(seen.path, upstream, "{path}");
            seen.assert_without(&key.secret);
            let id = if path.contains("plus") { &imported.id } else { &key.id };
            assert_eq!(seen.header("x-talos-key-id"), Some(id.as_str()), "{path}");
        }
    }
}

/// A page that was opened with a key in its URL names that URL in every request that it makes.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_the_referer_does_not_go_upstream() {
    needs!(Envoy);
    let edge = everywhere().await;
    let key = edge.talos.issue(json!({})).await;
    let secret = key.secret.as_str();
    for version in BOTH {
        for (referer, upstream) in [
            (format!("https://edge/p?api_key={secret}"), Some("https://edge/p")),
            (format!("https://edge/p?z=%7E&%61pi_key={secret}&a=1+2"), Some("https://edge/p?z=%7E&a=1+2")),
            (format!("https://edge/login?next=%2Fp%3Fapi_key%3D{secret}"), None),
            ("https://edge/p?a=1".to_owned(), Some("https://edge/p?a=1")),
        ] {
            let with = |call: Call| call.header("referer", &referer);
            for call in [
                with(Call::get(&format!("/p?api_key={secret}"))),
                with(Call::get("/p").bearer(secret)),
                with(Call::get("/anonymous")),
            ] {
                let seen = edge.passes(version, call).await;
                seen.assert_without(secret);
                assert_eq!(seen.header("referer"), upstream, "{referer}");
            }
        }
        let url = format!("/p?api_key={secret}&b=1");
        let names =
            ["x-original-url", "x-forwarded-uri", "x-rewrite-url", "x-original-uri", "hx-current-url"];
        let call = names.iter().fold(Call::get("/p").bearer(secret), |call, name| call.header(name, &url));
        let seen = edge.passes(version, call).await;
        seen.assert_without(secret);
        assert_eq!(names.map(|name| seen.header(name)), [Some("/p?b=1"); 5]);
        // Names that nobody has listed, and a cookie; another value of theirs stays.
        let names = ["x-waws-unencoded-url", "ping-from", "baggage"];
        let encoded = format!("last=https%3A%2F%2Fedge%2Fp%3Fapi_key%3D{secret}; a=1");
        let call = names.iter().fold(Call::get(&url), |call, name| call.header(name, &url));
        let seen = edge.passes(version, call.header("cookie", &encoded).header("x-other", "/p?b=1")).await;
        seen.assert_without(secret);
        assert_eq!((seen.header("cookie"), seen.header("x-other")), (Some("a=1"), Some("/p?b=1")));
        let twice = Call::get("/p").bearer(secret).header("referer", &url).header("referer", "https://edge/");
        assert!(!edge.passes(version, twice).await.header("referer").unwrap_or_default().contains(secret));
    }
}

const IN_URLS: &str = r#"[{"query": "api_key"}, {"path": "/v2/{key}"}]"#;

/// A login page is told the URL to return to, which has the key as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_url_repeats_does_not_go_upstream() {
    needs!(Envoy);
    let edge = Edge::with(Setup::new().set("TALOS_AUTHZ_SOURCES", IN_URLS), &[]).await;
    let key = edge.talos.issue(json!({})).await;
    let secret = key.secret.as_str();
    let encoded: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for version in BOTH {
        for (path, upstream) in [
            (format!("/p?api_key={secret}&next=%2Fp%3Fapi_key%3D{secret}&a=1+2"), "/p?a=1+2"),
            (format!("/p?z=%7E&api_key={secret}&copy={secret}"), "/p?z=%7E"),
            (format!("/p?api_key={secret}&copy={encoded}"), "/p"),
            (format!("/v2/{secret}/x?next=/v2/{secret}&a"), "/v2/x?a"),
        ] {
            let seen = edge.passes(version, Call::get(&path)).await;
            seen.assert_without(secret);
            assert_eq!(seen.path, upstream, "{path}");
        }
        for path in [
            format!("/p/{secret}?api_key={secret}"),
            format!("/p/{encoded}?api_key={secret}"),
            format!("/v2/{secret}/x/of-{secret}"),
            format!("/v2/{secret}/x/{encoded}"),
        ] {
            let reply = edge.refuses(version, Call::get(&path), 400).await;
            assert!(!reply.text().contains(secret), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_a_cookie_is_taken_out_of_it() {
    needs!(Envoy);
    let edge = everywhere().await;
    let key = edge.talos.issue(json!({})).await;
    let secret = key.secret.as_str();
    for version in BOTH {
        // The lines of the cookie header, and what is left of them.
        let cases: [(Vec<String>, Option<&str>); 6] = [
            (vec![format!("key={secret}")], None),
            (vec![format!("a=1; key={secret}; b=2")], Some("a=1; b=2")),
            (vec![format!("a=1;key=\"{secret}\"")], Some("a=1")),
            (vec!["a=1".into(), format!("key={secret}"), "b=2, 3".into()], Some("a=1; b=2, 3")),
            (vec![format!("key={secret}"), "a=1".into()], Some("a=1")),
            (vec![format!("a=ä; key={secret}")], Some("a=ä")),
        ];
        for (lines, left) in cases {
            let call = lines.iter().fold(Call::get("/p"), |call, line| call.header("cookie", line));
            let seen = edge.passes(version, call).await;
            seen.assert_without(secret);
            assert_eq!(seen.header("x-talos-key-id"), Some(key.id.as_str()), "{lines:?}");
            let cookies: Vec<&str> = seen
                .headers
                .iter()
                .filter(|(name, _)| name == "cookie")
                .map(|(_, value)| value.as_str())
                .collect();
            assert_eq!(cookies, Vec::from_iter(left), "{lines:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sources_agree_or_it_is_400() {
    needs!(Envoy);
    let edge = everywhere().await;
    let key = edge.talos.issue(json!({})).await;
    let other = edge.talos.issue(json!({})).await;
    let (one, two) = (key.secret.as_str(), other.secret.as_str());
    let all = |a: &str, b: &str, c: &str, d: &str| {
        Call::get(&format!("/p?api_key={a}")).header("cookie", &format!("key={b}")).bearer(c).api_key(d)
    };
    for version in BOTH {
        let seen = edge.passes(version, all(one, one, one, one)).await;
        seen.assert_without(one);
        assert_eq!((seen.path.as_str(), seen.header("cookie"), seen.header("x-api-key")), ("/p", None, None));
        let refused = [
            all(two, one, one, one),
            all(one, two, one, one),
            all(one, one, two, one),
            all(one, one, one, two),
            all(one, one, one, "garbage"),
            Call::get(&format!("/p?api_key={one}&api_key={one}")),
            Call::get(&format!("/p?api_key={one}&api%5fkey={one}")),
            Call::get(&format!("/p?api_key={one}&api_key={two}")),
            Call::get("/p?api_key=%"),
            Call::get("/p?api_key=%ff"),
            Call::get("/p").header("cookie", &format!("key={one}; key={one}")),
            Call::get("/p").header("cookie", &format!("key={one}")).header("cookie", &format!("key={two}")),
        ];
        for call in [Call::get("/p?api_key="), Call::get("/p").header("cookie", "key=")] {
            edge.refuses(version, call, 401).await;
        }
        for call in refused {
            let what = format!("{call:?}");
            let reply = edge.refuses(version, call, 400).await;
            assert!(!reply.text().contains(one) && !reply.text().contains(two), "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_not_configured_is_none_of_our_business() {
    needs!(Envoy);
    let edge = Edge::start().await;
    let key = edge.talos.issue(json!({})).await;
    for version in BOTH {
        let hidden = format!("/?api_key={}", key.secret);
        edge.refuses(version, Call::get(&hidden).header("cookie", "key=x"), 401).await;
        let seen =
            edge.passes(version, Call::get("/?z=1&a").bearer(&key.secret).header("cookie", "key=x")).await;
        assert_eq!((seen.path.as_str(), seen.header("cookie")), ("/?z=1&a", Some("key=x")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_that_joins_headers_gives_the_same() {
    needs!(Envoy);
    let edge = Edge::with(
        Setup::new().set("TALOS_AUTHZ_SOURCES", EVERYWHERE),
        &[("encode_raw_headers: true", "encode_raw_headers: false")],
    )
    .await;
    let key = edge.talos.issue(json!({})).await;
    let cookie = format!("key={}", key.secret);
    for version in BOTH {
        let call = Call::get("/p").header("cookie", "a=1").header("cookie", &cookie).header("cookie", "b=2");
        let seen = edge.passes(version, call).await;
        seen.assert_without(&key.secret);
        assert_eq!(seen.header("cookie").map(|left| left.replace(',', "; ")).as_deref(), Some("a=1; b=2"));
        let twice = Call::get("/p").header("cookie", &cookie).header("cookie", &cookie);
        edge.refuses(version, twice, 400).await;
        edge.refuses(version, Call::get("/p").api_key(&key.secret).api_key(&key.secret), 400).await;
        let forged =
            Call::get("/p").api_key(&key.secret).header("x-talos-foo", "a").header("x-talos-foo", "b");
        assert_eq!(edge.passes(version, forged).await.header("x-talos-foo"), None);
    }
}

const TOKEN_HEADER: &str = "x-user-token";

#[tokio::test(flavor = "multi_thread")]
async fn a_token_header_of_our_own_is_ours_alone() {
    needs!(Envoy);
    let setup = Setup::new().set("TALOS_AUTHZ_TOKEN_HEADER", TOKEN_HEADER);
    let edge = Edge::with(
        setup,
        &[("headers_with_underscores_action: REJECT_REQUEST", "headers_with_underscores_action: ALLOW")],
    )
    .await;
    let key = edge.talos.issue(json!({})).await;
    for version in BOTH {
        let forged = |path| {
            Call::get(path)
                .header(TOKEN_HEADER, "Bearer forged")
                .header("x_user_token", "Bearer forged")
                .header("x-user_token", "f")
                .header(TOKEN_HEADER, "Bearer forged")
        };
        let seen = edge.passes(version, forged("/").api_key(&key.secret)).await;
        let tokens = |seen: &crate::rig::upstream::Received| -> Vec<String> {
            let ours = seen.headers.iter().filter(|(name, _)| name.replace('_', "-") == TOKEN_HEADER);
            ours.map(|(_, value)| value.clone()).collect()
        };
        let [token] = &tokens(&seen)[..] else { panic!("{seen:?}") };
        assert!(token.starts_with("Bearer eyJ"), "{token}");
        assert_eq!(tokens(&edge.passes(version, forged("/anonymous")).await), Vec::<String>::new());
        // With a key as bearer the client's authorization goes, too: it is no place for our token
        // then.
        let seen = edge.passes(version, forged("/").bearer(&key.secret)).await;
        assert_eq!(seen.header("authorization"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_of_ours_that_connection_names_arrives_all_the_same() {
    needs!(Envoy);
    let edge = Edge::start().await;
    let key = edge.talos.issue(json!({ "scopes": ["a"] })).await;
    let names =
        ["x-talos-actor-id", "x-talos-key-id", "x-talos-scopes", "x-talos-network-id", "authorization"];
    for (listed, has_key) in names.iter().flat_map(|name| [(*name, true), (*name, false)]) {
        let credential = if has_key { format!("x-api-key: {}\r\n", key.secret) } else { String::new() };
        let path = if has_key { "/" } else { "/anonymous" };
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: edge\r\n{credential}x-talos-actor-id: mallory\r\nconnection: close, {listed}\r\n\r\n"
        );
        let answer = edge.envoy.edge.raw(request.as_bytes()).await;
        assert_eq!(answer.status(), 200, "{listed}: {}", answer.head);
        let seen = edge.seen();
        assert_eq!(seen.header("connection"), None, "{listed}");
        match has_key {
            true => {
                assert_eq!(seen.header("x-talos-actor-id"), Some("alice"), "{listed}");
                assert_eq!(seen.identity().len(), 4, "{listed}");
                assert!(seen.token().starts_with("eyJ"), "{listed}");
            }
            false => assert_eq!(seen.identity(), [], "{listed}"),
        }
    }
    // Nor does it hide the key from us.
    let request = format!(
        "GET / HTTP/1.1\r\nhost: edge\r\nx-api-key: {}\r\nconnection: close, x-api-key\r\n\r\n",
        key.secret
    );
    assert_eq!(edge.envoy.edge.raw(request.as_bytes()).await.status(), 401);
    edge.upstream.take();
    edge.passes(Version::Http1, Call::get("/").api_key(&key.secret)).await;
}
