//! Cells about the places in which clients send keys, and what is left there for the upstream.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use super::setup::{Stack, TOKEN_HEADER, key, passes};
use super::{FORBIDDEN, websocket};
use crate::rig::http::{Base, Call, Reply, Version, assert_envelope};
use crate::rig::support::Must;
use crate::rig::upstream::{MOVED_PATH, NEW_PATH};

/// The two listeners, and the header in which each sends its token.
fn listeners(stack: &Stack) -> [(Base, &'static str); 2] {
    [(stack.edge, "authorization"), (stack.lax, TOKEN_HEADER)]
}

fn basic(text: &str) -> String {
    format!("Basic {}", STANDARD.encode(text))
}

pub async fn empty(stack: Stack, over: Version) {
    let key = key(&stack).await;
    let empties = |path: &str| {
        let call = Call::get(path).header("authorization", "Bearer ").header("cookie", "a=1; key=");
        call.header("x-token", "")
    };
    for (base, _) in listeners(&stack) {
        for call in [
            empties("/empty?api_key=").api_key(&key.secret),
            empties(&format!("/empty?api_key=&api_key={}", key.secret)).header("x-api-key", ""),
            Call::get("/empty").header("x-api-key", "").bearer(&key.secret),
        ] {
            let seen = passes(base, over, call).await;
            seen.assert_without(&key.secret);
            assert_eq!(seen.header("x-talos-key-id"), Some(key.id.as_str()));
        }
        let seen = passes(base, over, empties("/anonymous/empty?api_key=").header("x-api-key", "")).await;
        assert_eq!(seen.identity(), []);
        let call = empties(&format!("/{FORBIDDEN}?api_key=")).header("x-api-key", "");
        let reply = base.send(over, call).await.expect(401);
        assert_eq!(reply.header("www-authenticate"), Some("Bearer realm=\"talos\""));
    }
}

pub async fn in_basic(stack: Stack, over: Version) {
    let (one, two) = (key(&stack).await, key(&stack).await);
    let secret = &one.secret;
    for (base, token_header) in listeners(&stack) {
        for credentials in [
            basic(&format!("{secret}:")),
            basic(&format!("api:{secret}")),
            basic(&format!("{secret}:x-oauth-basic")),
            basic(&format!("{secret}:")).replace("Basic", "bAsIc").replace('=', ""),
            format!("Basic {}", URL_SAFE_NO_PAD.encode(format!("api?>:{secret}"))),
        ] {
            let seen = passes(base, over, Call::get("/basic").header("authorization", &credentials)).await;
            seen.assert_without(secret);
            seen.assert_without(credentials.split_once(' ').must("a scheme").1);
            assert_eq!(seen.header("x-talos-key-id"), Some(one.id.as_str()));
            assert!(seen.header(token_header).must("a token").starts_with("Bearer eyJ"));
        }
        for (credentials, status) in [
            (basic("api:garbage"), 401),
            (basic(secret), 400),
            (format!("Basic {secret}:"), 400),
            (basic(&format!("{secret}:{}", two.secret)), 400),
        ] {
            let call = Call::get(&format!("/{FORBIDDEN}")).header("authorization", &credentials);
            let reply = base.send(over, call).await.expect(status);
            assert!(!reply.text().contains(secret), "{}", reply.text());
        }
        let double =
            Call::get(&format!("/{FORBIDDEN}")).header("authorization", &basic(&format!("{secret}:")));
        base.send(over, double.api_key(&two.secret)).await.expect(400);
        let reply = base.send(over, Call::get(&format!("/{FORBIDDEN}"))).await.expect(401);
        let challenges: Vec<_> = reply.headers.get_all("www-authenticate").iter().collect();
        assert_eq!(challenges, ["Bearer realm=\"talos\"", "Basic realm=\"talos\", charset=\"UTF-8\""]);
    }
}

pub async fn with_or_without_scheme(stack: Stack, over: Version) {
    let (one, two) = (key(&stack).await, key(&stack).await);
    for (base, _) in listeners(&stack) {
        for value in [one.secret.clone(), format!("Bearer {}", one.secret), format!("bearer\t{}", one.secret)]
        {
            let seen = passes(base, over, Call::get("/optional").header("x-token", &value)).await;
            seen.assert_without(&one.secret);
            assert_eq!(seen.header("x-token"), None);
            assert_eq!(seen.header("x-talos-key-id"), Some(one.id.as_str()));
        }
        let forbidden = format!("/{FORBIDDEN}");
        for (call, status) in [
            (Call::get(&forbidden).header("x-token", "garbage"), 401),
            (Call::get(&forbidden).header("x-token", &one.secret).header("x-token", &one.secret), 400),
            (Call::get(&forbidden).header("x-token", &one.secret).bearer(&two.secret), 400),
        ] {
            base.send(over, call).await.expect(status);
        }
    }
}

pub async fn in_path(stack: Stack, over: Version) {
    let (one, two) = (key(&stack).await, key(&stack).await);
    let secret = &one.secret;
    for (base, _) in listeners(&stack) {
        for (path, upstream) in [
            (format!("/v2/{secret}"), "/v2"),
            (format!("/v2/{secret}/"), "/v2/"),
            (format!("/v2/{secret}/orders/7?b=2&a=1+2&flag"), "/v2/orders/7?b=2&a=1+2&flag"),
            (format!("/v2/{secret}/orders?x&api_key={secret}&b"), "/v2/orders?x&b"),
        ] {
            let referer = format!("https://edge{path}");
            for call in [
                Call::get(&path),
                Call::get(&path).bearer(secret),
                Call::get(&path).header("referer", &referer),
            ] {
                let seen = passes(base, over, call).await;
                seen.assert_without(secret);
                assert_eq!(seen.path, upstream);
                assert_eq!(seen.header("x-talos-key-id"), Some(one.id.as_str()));
            }
        }
        for (path, status) in [
            ("/v2/garbage".to_owned(), 401),
            ("/v2/".to_owned(), 401),
            (format!("/v2x/{secret}"), 401),
            (format!("/v2/{secret}/{secret}"), 400),
            (format!("/v2/{secret}?api_key={}", two.secret), 400),
        ] {
            let separator = if path.contains('?') { '&' } else { '?' };
            let path = format!("{path}{separator}{FORBIDDEN}");
            base.send(over, Call::get(&path)).await.expect(status);
        }
    }
    passes(stack.edge, over, Call::get(&format!("/v2/{secret}/logged/{over:?}"))).await;
    let line = stack.logged(&format!("/v2/logged/{over:?}")).await;
    assert_eq!(line["key_id"], json!(one.id), "{line:#}");
}

pub async fn in_subprotocol(stack: Stack, over: Version) {
    let (one, two) = (key(&stack).await, key(&stack).await);
    let secret = &one.secret;
    let offer = async |base: Base, path: &str, offered: &str| {
        websocket::negotiate(base, over, path, &[("sec-websocket-protocol", offered)]).await
    };
    for (base, _) in listeners(&stack) {
        // Subprotocols that the client offers, that the upstream gets, and the one in the response.
        for (offered, upstream, chosen) in [
            (format!("bearer, {secret}"), None, "bearer"),
            (format!("Bearer,{secret}"), None, "Bearer"),
            (format!("graphql-ws, bearer, {secret}, chat"), Some("graphql-ws, chat"), "graphql-ws"),
        ] {
            let (status, headers) = offer(base, "/socket", &offered).await;
            assert!(status == 101 || status == 200, "{offered}: {status}");
            let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
            assert_eq!(header("x-offered"), upstream, "{offered}");
            assert_eq!(header("sec-websocket-protocol"), Some(chosen), "{offered}");
        }
        let forbidden = format!("/{FORBIDDEN}");
        for (offered, expected) in [
            ("bearer, garbage".to_owned(), 401),
            ("bearer".to_owned(), 401),
            (format!("bearer, {secret}, bearer, {}", two.secret), 400),
        ] {
            assert_eq!(offer(base, &forbidden, &offered).await.0, expected, "{offered}");
        }
    }
}

pub async fn odd_cookies(stack: Stack, over: Version) {
    let one = key(&stack).await;
    // Talos issues none that needs encoding.
    let imported = format!("a+b/c=={}", one.secret);
    let id = stack.talos.import(&imported, json!({})).await.id;
    let encoded = imported.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    for (base, _) in listeners(&stack) {
        for value in [imported.clone(), encoded.clone(), format!("\"{encoded}\"")] {
            let call = Call::get("/cookie").header("cookie", &format!("a=1; key={value}; b=2"));
            let seen = passes(base, over, call).await;
            assert_eq!(seen.header("x-talos-key-id"), Some(id.as_str()), "{value}");
            assert_eq!(seen.header("cookie"), Some("a=1; b=2"));
        }
    }
    let call =
        Call::get("/cookie").header_bytes("cookie", &[b"a=\xfc; key=", one.secret.as_bytes()].concat());
    let seen = passes(stack.edge, over, call).await;
    assert_eq!(seen.header("x-talos-key-id"), Some(one.id.as_str()));
    assert_eq!(seen.header("cookie"), Some("a=%FC"));
}

/// A proxy's client sends its credentials only after a 407.
pub async fn connect(stack: Stack, over: Version) {
    let key = key(&stack).await;
    let reply = stack.edge.send(over, Call::new("CONNECT", "/")).await.expect(407);
    assert_eq!(reply.header("proxy-authenticate"), Some("Basic realm=\"talos\", charset=\"UTF-8\""));
    assert_eq!(reply.header("www-authenticate"), None);
    assert_envelope(&reply.json(), 407);
    let with =
        |credentials: &str| Call::new("CONNECT", "/").header("proxy-authorization", &basic(credentials));
    stack.edge.send(over, with("api:garbage")).await.expect(407);
    if over == Version::Http1 {
        let credentials = basic(&format!("{}:", key.secret));
        assert_eq!(websocket::tunnel(stack.edge, &credentials).await, 200);
    }
}

pub async fn grpc_web(stack: Stack, over: Version) {
    let key = key(&stack).await;
    let call = |kind: &str| Call::post(&format!("/{FORBIDDEN}")).header("content-type", kind);
    let status = |reply: &Reply| {
        ["grpc-status", "grpc-message"].map(|name| reply.header(name).unwrap_or_default().to_owned())
    };
    for kind in ["application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text"] {
        let reply = stack.edge.send(over, call(kind)).await.expect(401);
        assert_eq!(
            (status(&reply), reply.body.len()),
            (["16", "an API key is required"].map(str::to_owned), 0)
        );
        let reply = stack.edge.send(over, call(kind).bearer(&key.secret).api_key("x")).await.expect(400);
        assert_eq!(status(&reply), ["3", "more than one credential was sent"]);
    }
}

/// Envoy checks such a request again, with the token instead of the key.
pub async fn internal_redirect(stack: Stack, over: Version) {
    let key = key(&stack).await;
    for call in [Call::get(MOVED_PATH).bearer(&key.secret), Call::get(MOVED_PATH).api_key(&key.secret)] {
        let seen = passes(stack.edge, over, call.clone()).await;
        assert_eq!((seen.path.as_str(), seen.header("x-talos-key-id")), (NEW_PATH, Some(key.id.as_str())));
        seen.assert_without(&key.secret);
        // That header is no source of tokens.
        stack.lax.send(over, call).await.expect(401);
    }
}
