//! The cells of the matrix, a function each. A cell fails by panicking, and uses paths of its own,
//! as all run at once.

use std::pin::Pin;

use serde_json::json;

use super::setup::{Stack, TOKEN_HEADER, key, passes};
use super::{FORBIDDEN, carriers, raw_http2, websocket};
use crate::rig::grpc::{Grpc, Health};
use crate::rig::http::{Base, Call, Reply, Version, assert_envelope};
use crate::rig::support::{Json, Must};
use crate::rig::talos::{Key, NETWORK};
use crate::rig::upstream::Received;

pub type Cell = fn(Stack, Version) -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! cells {
    ($(($name:literal, $cell:path)),* $(,)?) => {
        pub const CELLS: &[(&str, Cell)] = &[$(($name, |stack, over| Box::pin($cell(stack, over)))),*];
    };
}

cells![
    ("a forged header", forged),
    ("forged in capitals", forged_in_capitals),
    ("forged with underscores", forged_with_underscores),
    ("forged twice, and with commas", forged_twice),
    ("forged and named by Connection", forged_and_named),
    ("a token header of one's own, forged", forged_token),
    ("forged in trailers", forged_in_trailers),
    ("forged in trailers with underscores", forged_in_trailers_with_underscores),
    ("a key in a header is taken out", key_in_header),
    ("a key in the query is taken out", key_in_query),
    ("a key in a cookie is taken out", key_in_cookie),
    ("an empty credential counts as absent", carriers::empty),
    ("a key in Basic", carriers::in_basic),
    ("a key with Bearer or without", carriers::with_or_without_scheme),
    ("a key in the path is taken out", carriers::in_path),
    ("a key in a subprotocol is taken out", carriers::in_subprotocol),
    ("encoded cookies, and some that aren't text", carriers::odd_cookies),
    ("CONNECT", carriers::connect),
    ("gRPC-Web", carriers::grpc_web),
    ("a redirect that Envoy follows", carriers::internal_redirect),
    ("two different keys", two_keys),
    ("a derived token goes on as it is", derived_token),
    ("scopes", scopes),
    ("addresses, clients at the edge", addresses_at_the_edge),
    ("addresses behind one proxy", addresses_behind_one),
    ("addresses behind two proxies", addresses_behind_two),
    ("rate limit headers", rate_limit),
    ("metadata in the access log", access_log),
    ("anonymous routes", anonymous),
    ("CORS, answered by Envoy", cors_by_envoy),
    ("CORS, answered by the upstream", cors_by_upstream),
    ("HEAD", head),
    ("a browser's page", page),
    ("a gRPC client", grpc),
    ("WebSocket", websocket),
];

const IDENTITY: [&str; 4] = ["x-talos-actor-id", "x-talos-key-id", "x-talos-scopes", "x-talos-network-id"];

fn identity_of(key: &Key) -> [(&str, &str); 4] {
    [
        ("x-talos-actor-id", "alice"),
        ("x-talos-key-id", &key.id),
        ("x-talos-network-id", NETWORK),
        ("x-talos-scopes", "a"),
    ]
}

/// With a key and without one, on every listener that a client may reach: the upstream believes us
/// alone.
async fn assert_ours(stack: &Stack, over: Version, listeners: &[Base], forge: impl Fn(Call) -> Call) {
    let key = key(stack).await;
    for base in listeners {
        let seen = passes(*base, over, forge(Call::get("/forged").api_key(&key.secret))).await;
        assert_eq!(seen.identity(), identity_of(&key));
        let seen = passes(*base, over, forge(Call::get("/anonymous/forged"))).await;
        assert_eq!(seen.identity(), []);
    }
}

async fn forged(stack: Stack, over: Version) {
    let listeners = [stack.edge, stack.lax];
    assert_ours(&stack, over, &listeners, |call| {
        IDENTITY.iter().chain(&["x-talos-foo"]).fold(call, |call, name| call.header(name, "mallory"))
    })
    .await;
}

async fn forged_in_capitals(stack: Stack, over: Version) {
    let key = key(&stack).await;
    if over == Version::Http2 {
        // A name in capitals is no HTTP/2: the client library itself sends it in lower case.
        return assert_ours(&stack, over, &[stack.edge], |call| call.header("X-Talos-Actor-Id", "mallory"))
            .await;
    }
    for name in ["X-Talos-Actor-Id", "X-TALOS-KEY-ID", "x-tAlOs-ScOpEs", "X-Talos-Foo"] {
        for (path, credential) in
            [("/forged", format!("x-api-key: {}\r\n", key.secret)), ("/anonymous", String::new())]
        {
            let request = format!(
                "GET {path} HTTP/1.1\r\nhost: edge\r\n{credential}{name}: mallory\r\nconnection: close\r\n\r\n"
            );
            let answer = stack.edge.raw(request.as_bytes()).await;
            assert_eq!(answer.status(), 200, "{name}");
            let seen = String::from_utf8_lossy(&answer.body);
            assert!(!seen.contains("mallory"), "{name}: {seen}");
        }
    }
}

async fn forged_with_underscores(stack: Stack, over: Version) {
    let names = ["x_talos_actor_id", "x-talos_key-id", "x_talos-scopes", "x_talos_foo"];
    assert_ours(&stack, over, &[stack.lax], |call| {
        names.iter().fold(call, |call, name| call.header(name, "mallory"))
    })
    .await;
    for name in names {
        // The configuration that we ship lets none in; over HTTP/2 the stream may be reset instead
        // of answered.
        let call = Call::get(&format!("/anonymous/{FORBIDDEN}")).header(name, "mallory");
        let answer = stack.edge.try_send(over, call).await;
        assert!(answer.as_ref().map_or(true, |reply| reply.status == 400), "{name}: {answer:?}");
    }
}

async fn forged_twice(stack: Stack, over: Version) {
    let listeners = [stack.edge, stack.lax];
    assert_ours(&stack, over, &listeners, |call| {
        let twice = IDENTITY.iter().fold(call, |call, name| call.header(name, "mallory").header(name, "eve"));
        twice
            .header("x-talos-actor-id", "mallory,eve")
            .header("x-talos-foo", "a")
            .header("x-talos-foo", "b, c")
    })
    .await;
}

async fn forged_and_named(stack: Stack, over: Version) {
    let key = key(&stack).await;
    if over == Version::Http2 {
        // HTTP/2 has no such header, and no client library sends it: a request with one gets no
        // further than Envoy.
        let path = format!("/{FORBIDDEN}");
        let headers = [("x-api-key", key.secret.as_str()), ("connection", "x-talos-key-id")];
        return raw_http2::assert_refused(stack.edge, &path, &headers).await;
    }
    for name in IDENTITY.iter().chain(&["authorization"]) {
        let request = format!(
            "GET /named HTTP/1.1\r\nhost: edge\r\nx-api-key: {}\r\nx-talos-actor-id: mallory\r\n\
             connection: close, {name}\r\n\r\n",
            key.secret
        );
        let answer = stack.edge.raw(request.as_bytes()).await;
        assert_eq!(answer.status(), 200, "{name}");
        let seen = Received::from_json(&answer.json());
        assert_eq!(seen.identity(), identity_of(&key), "{name}");
        assert!(seen.token().starts_with("eyJ"), "{name}");
        assert_eq!(seen.header("connection"), None, "{name}");
    }
}

async fn forged_token(stack: Stack, over: Version) {
    let key = key(&stack).await;
    let forged = |path| {
        let call =
            Call::get(path).header(TOKEN_HEADER, "Bearer forged").header(TOKEN_HEADER, "Bearer forged");
        call.header("x_user_token", "Bearer forged").header("x-user_token", "Bearer forged")
    };
    let tokens = |seen: &Received| -> Vec<String> {
        let all = seen.headers.iter().filter(|(name, _)| name.replace('_', "-") == TOKEN_HEADER);
        all.map(|(_, value)| value.clone()).collect()
    };
    let seen = passes(stack.lax, over, forged("/forged").api_key(&key.secret)).await;
    let [token] = &tokens(&seen)[..] else { panic!("{seen:?}") };
    assert!(token.starts_with("Bearer eyJ"), "{token}");
    assert!(tokens(&passes(stack.lax, over, forged("/anonymous")).await).is_empty());
}

/// Forged trailers, which arrive after the check, are removed. Others reach an upstream that speaks
/// HTTP/2.
async fn forged_in_trailers(stack: Stack, over: Version) {
    let names =
        IDENTITY.iter().chain(&["x-talos-foo", "x.talos.actor.id", "x~talos!key-id", "authorization"]);
    let forge = |call: Call| names.clone().fold(call, |call, name| call.trailer(name, "mallory"));
    for base in [stack.edge, stack.to_http2, stack.lax_to_http2] {
        assert_trailers_are_ours(&stack, base, over, &forge).await;
    }
}

async fn forged_in_trailers_with_underscores(stack: Stack, over: Version) {
    let names = ["x_talos_actor_id", "x-talos_key-id", "x_talos-scopes", "x_talos_foo"];
    assert_trailers_are_ours(&stack, stack.lax_to_http2, over, &|call| {
        names.iter().fold(call, |call, name| call.trailer(name, "mallory"))
    })
    .await;
}

async fn assert_trailers_are_ours(stack: &Stack, base: Base, over: Version, forge: &dyn Fn(Call) -> Call) {
    let key = key(stack).await;
    let call = |path| Call::post(path).body("text/plain", "a body").trailer("x-checksum", "1");
    for (call, expected) in [
        (call("/trailers").api_key(&key.secret), identity_of(&key).to_vec()),
        (call("/anonymous/trailers"), vec![]),
    ] {
        let seen = passes(base, over, forge(call)).await;
        assert_eq!(seen.body, "a body");
        assert_eq!(seen.identity(), expected, "{seen:?}");
        let carried = over == Version::Http2 && base.0 != stack.edge.0;
        let others: &[(&str, &str)] = if carried { &[("x-checksum", "1")] } else { &[] };
        let left: Vec<(&str, &str)> =
            seen.trailers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(left, others, "{seen:?}");
    }
}

async fn key_in_header(stack: Stack, over: Version) {
    let key = key(&stack).await;
    for (base, call) in [
        (stack.edge, Call::get("/header").bearer(&key.secret)),
        (stack.edge, Call::get("/header").api_key(&key.secret)),
        (stack.edge, Call::get("/header").bearer(&key.secret).api_key(&key.secret)),
        (stack.lax, Call::get("/header").bearer(&key.secret)),
    ] {
        let seen = passes(base, over, call).await;
        seen.assert_without(&key.secret);
        assert_eq!(seen.header("x-api-key"), None);
        assert_eq!(seen.header("x-talos-key-id"), Some(key.id.as_str()));
    }
}

async fn key_in_query(stack: Stack, over: Version) {
    let key = key(&stack).await;
    for base in [stack.edge, stack.lax] {
        for name in ["api_key", "%61pi%5Fkey"] {
            let path = format!("/query?z=%7E&&flag&{name}={}&b=2&a=1+2", key.secret);
            let seen = passes(base, over, Call::get(&path)).await;
            assert_eq!(seen.path, "/query?z=%7E&&flag&b=2&a=1+2");
            assert_eq!(seen.header("x-talos-key-id"), Some(key.id.as_str()));
        }
        let seen = passes(base, over, Call::get(&format!("/query?api_key={}", key.secret))).await;
        assert_eq!(seen.path, "/query");
    }
}

async fn key_in_cookie(stack: Stack, over: Version) {
    let key = key(&stack).await;
    let cookie = format!("key={}", key.secret);
    for base in [stack.edge, stack.lax] {
        let alone = passes(base, over, Call::get("/cookie").header("cookie", &cookie)).await;
        assert_eq!(alone.header("cookie"), None);
        let lines = Call::get("/cookie")
            .header("cookie", "a=1")
            .header("cookie", &cookie)
            .header("cookie", "b=2; c=ä");
        let among = passes(base, over, lines).await;
        among.assert_without(&key.secret);
        let left: Vec<&str> = among
            .headers
            .iter()
            .filter(|(name, _)| name == "cookie")
            .map(|(_, value)| value.as_str())
            .collect();
        assert_eq!(left.join("; ").replace(',', "; "), "a=1; b=2; c=ä");
        assert_eq!(among.header("x-talos-key-id"), Some(key.id.as_str()));
    }
}

async fn two_keys(stack: Stack, over: Version) {
    let (one, two) = (key(&stack).await.secret, key(&stack).await.secret);
    let path = format!("/{FORBIDDEN}");
    for base in [stack.edge, stack.lax] {
        for call in [
            Call::get(&path).bearer(&one).api_key(&two),
            Call::get(&path).api_key(&one).api_key(&one),
            Call::get(&path).bearer(&one).bearer(&two),
            Call::get(&format!("{path}?api_key={one}")).bearer(&two),
            Call::get(&format!("{path}?api_key={one}&api%5fkey={one}")),
            Call::get(&path).header("cookie", &format!("key={one}; key={one}")),
            Call::get(&path).header("cookie", &format!("key={one}")).header("cookie", &format!("key={two}")),
        ] {
            let what = format!("{call:?}");
            let reply = base.send(over, call).await;
            assert_eq!(reply.status, 400, "{what}");
            assert_envelope(&reply.json(), 400);
        }
    }
}

async fn derived_token(stack: Stack, over: Version) {
    let key = key(&stack).await;
    let token = stack.talos.derive(&key, json!({})).await;
    let seen = passes(stack.edge, over, Call::get("/derived").api_key(&token)).await;
    assert_eq!(seen.token(), token);
    assert_eq!(seen.header("x-api-key"), None);
}

async fn scopes(stack: Stack, over: Version) {
    let enough = stack.talos.issue(json!({ "scopes": ["reports:*"] })).await;
    let seen = passes(stack.edge, over, Call::get("/reports/7").bearer(&enough.secret)).await;
    assert_eq!(seen.header("x-talos-scopes"), Some("reports:*"));
    let call = Call::get(&format!("/reports/{FORBIDDEN}")).bearer(&key(&stack).await.secret);
    let reply = stack.edge.send(over, call).await.expect(403);
    assert_envelope(&reply.json(), 403);
    let challenge = reply.header("www-authenticate").must("a challenge");
    assert!(challenge.ends_with("error=\"insufficient_scope\", scope=\"reports:read\""), "{challenge}");
}

async fn rate_limit(stack: Stack, over: Version) {
    let policy = json!({ "quota": "2", "window": "3600s" });
    let limited = stack.talos.issue(json!({ "rate_limit_policy": policy })).await;
    for remaining in ["1", "0"] {
        let call = Call::get("/limited").bearer(&limited.secret);
        let reply = stack.edge.send(over, call).await.expect(200);
        assert_eq!(reply.header("ratelimit-policy"), Some("\"default\";q=2;w=3600"));
        assert_eq!(reply.header("ratelimit").must("RateLimit"), format!("\"default\";r={remaining}"));
        assert_eq!(reply.header("retry-after"), None);
        assert_eq!(Received::from_reply(&reply).header("ratelimit"), None, "it is the client's to know");
    }
    let call = Call::get(&format!("/limited/{FORBIDDEN}")).bearer(&limited.secret);
    let reply = stack.edge.send(over, call).await.expect(429);
    assert_envelope(&reply.json(), 429);
    assert_eq!(reply.header("ratelimit-policy"), Some("\"default\";q=2;w=3600"));
    assert_eq!(reply.header("ratelimit"), Some("\"default\";r=0"));
    let seconds: u64 = reply.header("retry-after").must("Retry-After").parse().must("a number");
    assert!((1..=1_800).contains(&seconds), "{seconds}");
}

/// A key and a JWT for 127.0.0.5 pass from there alone, whatever address the client's headers name.
async fn assert_addresses(stack: &Stack, over: Version, base: Base) {
    let cidrs = json!({ "ip_restriction": { "allowed_cidrs": ["127.0.0.5/32", "127.0.0.1/32"] } });
    let both = stack.talos.issue(cidrs).await;
    // Tokens are derived from loopback, and go with the key's list.
    let token = stack.talos.derive(&both, json!({})).await;
    let only = json!({ "ip_restriction": { "allowed_cidrs": ["127.0.0.5/32"] } });
    let key = stack.talos.issue(only).await;
    for credential in [&key.secret, &token] {
        for claim in [None, Some("127.0.0.5"), Some("127.0.0.5, 127.0.0.5, 127.0.0.5")] {
            let from = |address: &str, path: &str| {
                let call = Call::get(path).bearer(credential).from(address);
                claim.into_iter().fold(call, |call, claim| call.header("x-forwarded-for", claim))
            };
            passes(base, over, from("127.0.0.5", "/addresses")).await;
            let reply = base.send(over, from("127.0.0.6", &format!("/{FORBIDDEN}"))).await.expect(403);
            assert_eq!(reply.json().text("/error/details/0/reason"), "IP_NOT_ALLOWED");
        }
    }
}

async fn addresses_at_the_edge(stack: Stack, over: Version) {
    assert_addresses(&stack, over, stack.edge).await;
}

async fn addresses_behind_one(stack: Stack, over: Version) {
    assert_addresses(&stack, over, stack.one_proxy).await;
}

async fn addresses_behind_two(stack: Stack, over: Version) {
    assert_addresses(&stack, over, stack.two_proxies).await;
}

async fn access_log(stack: Stack, over: Version) {
    let key = stack.talos.issue(json!({ "scopes": ["a", "b"], "metadata": { "plan": "gold" } })).await;
    let passed = format!("/logged/{over:?}");
    passes(stack.edge, over, Call::get(&passed).bearer(&key.secret)).await;
    let line = stack.logged(&passed).await;
    for (field, expected) in [
        ("decision", json!("allow")),
        ("reason", json!("ok")),
        ("key_id", json!(key.id)),
        ("actor_id", json!("alice")),
        ("network_id", json!(NETWORK)),
        ("scopes", json!(["a", "b"])),
        ("visibility", json!("secret")),
        ("metadata", json!({ "plan": "gold" })),
    ] {
        assert_eq!(line[field], expected, "{field} in {line:#}");
    }
    let refused = format!("/reports/{FORBIDDEN}/{over:?}");
    stack.edge.send(over, Call::get(&refused).bearer(&key.secret)).await.expect(403);
    let line = stack.logged(&refused).await;
    assert_eq!(
        (&line["decision"], &line["reason"]),
        (&json!("deny"), &json!("insufficient_scope")),
        "{line:#}"
    );
    assert_eq!(line["key_id"], json!(key.id), "{line:#}");
    let unknown = format!("/{FORBIDDEN}/{over:?}/unknown");
    stack.edge.send(over, Call::get(&unknown).bearer("garbage")).await.expect(401);
    let line = stack.logged(&unknown).await;
    assert_eq!((&line["reason"], &line["key_id"]), (&json!("not_found"), &json!(null)), "{line:#}");
}

async fn anonymous(stack: Stack, over: Version) {
    let key = key(&stack).await;
    assert_eq!(passes(stack.edge, over, Call::get("/anonymous/x")).await.identity(), []);
    let known = passes(stack.edge, over, Call::get("/anonymous/x").bearer(&key.secret)).await;
    assert_eq!(known.header("x-talos-key-id"), Some(key.id.as_str()));
    let bad = Call::get(&format!("/anonymous/{FORBIDDEN}")).bearer("garbage");
    stack.edge.send(over, bad).await.expect(401);
    stack.edge.send(over, Call::get(&format!("/anonymous-{FORBIDDEN}"))).await.expect(401);
}

const ORIGIN: &str = "https://app.example.com";

fn preflight(path: &str) -> Call {
    let call = Call::new("OPTIONS", path).header("origin", ORIGIN);
    call.header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization")
}

async fn cors_by_envoy(stack: Stack, over: Version) {
    let reply = stack.edge.send(over, preflight(&format!("/{FORBIDDEN}"))).await.expect(200);
    assert_eq!(reply.header("access-control-allow-origin"), Some(ORIGIN));
    // A script must be able to read why it was refused.
    let call = Call::get(&format!("/{FORBIDDEN}")).header("origin", ORIGIN);
    let refused = stack.edge.send(over, call).await.expect(401);
    assert_eq!(refused.header("access-control-allow-origin"), Some(ORIGIN));
}

async fn cors_by_upstream(stack: Stack, over: Version) {
    let seen = passes(stack.lax, over, preflight("/preflight").header("x-talos-actor-id", "mallory")).await;
    assert_eq!((seen.method.as_str(), seen.identity()), ("OPTIONS", vec![]));
    let no_preflight = Call::new("OPTIONS", &format!("/{FORBIDDEN}")).header("origin", ORIGIN);
    stack.lax.send(over, no_preflight).await.expect(401);
}

async fn head(stack: Stack, over: Version) {
    let refused = stack.edge.send(over, Call::new("HEAD", &format!("/{FORBIDDEN}"))).await.expect(401);
    assert_eq!(refused.body.len(), 0);
    assert!(refused.header("www-authenticate").is_some());
    let key = key(&stack).await;
    stack.edge.send(over, Call::new("HEAD", "/head").bearer(&key.secret)).await.expect(200);
}

async fn page(stack: Stack, over: Version) {
    let accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let call = Call::get(&format!("/{FORBIDDEN}")).header("accept", accept);
    let reply = stack.edge.send(over, call).await.expect(401);
    assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(reply.text().contains("<h1>401 Unauthorized</h1>"), "{}", reply.text());
}

async fn grpc(stack: Stack, over: Version) {
    let key = key(&stack).await;
    let call =
        |path: &str| Call::post(path).header("content-type", "application/grpc").header("te", "trailers");
    let forbidden = format!("/{FORBIDDEN}");
    let status = |reply: &Reply| {
        (reply.header("grpc-status").map(str::to_owned), reply.header("grpc-message").map(str::to_owned))
    };
    for (call, code, text) in [
        (call(&forbidden), "16", "an API key is required"),
        (call(&forbidden).bearer("garbage"), "16", "the credential is not valid"),
        (call(&forbidden).bearer(&key.secret).api_key("x"), "3", "more than one credential was sent"),
        (
            call(&format!("/reports{forbidden}")).bearer(&key.secret),
            "7",
            "the credential lacks a scope that this route needs",
        ),
    ] {
        // gRPC's own status is what counts; the HTTP status of an answer is 200.
        let reply = stack.edge.send(over, call).await.expect(200);
        assert_eq!(status(&reply), (Some(code.to_owned()), Some(text.to_owned())));
        assert_eq!(reply.header("content-type"), Some("application/grpc"));
    }
    if over == Version::Http2 {
        let client = Grpc::connect(stack.edge).await.must("connecting");
        assert_eq!(client.health("").await, Ok(Health::Refused(16)));
        assert_eq!(client.with_bearer(&key.secret).health("").await, Ok(Health::Serving));
    }
}

async fn websocket(stack: Stack, over: Version) {
    let key = key(&stack).await;
    let forbidden = format!("/{FORBIDDEN}");
    let (status, _) = websocket::echo(stack.edge, over, &forbidden, &[]).await;
    assert_eq!(status, 401);
    let (status, _) = websocket::echo(stack.edge, over, &forbidden, &[("x-api-key", "garbage")]).await;
    assert_eq!(status, 401);
    let headers = [("x-api-key", key.secret.as_str()), ("x-talos-actor-id", "mallory")];
    let (_, echoed) = websocket::echo(stack.edge, over, "/socket", &headers).await;
    assert_eq!(echoed.as_deref(), Some(&b"ping"[..]));
    // A browser can't set headers for a WebSocket, but sends its cookies.
    let cookie = format!("key={}", key.secret);
    let (_, echoed) = websocket::echo(stack.edge, over, "/socket", &[("cookie", &cookie)]).await;
    assert_eq!(echoed.as_deref(), Some(&b"ping"[..]));
}
