//! Tests of the places where a credential is looked for: a table of requests, with what is found.

use super::*;
use crate::authz::request::tests::both_forms;

/// Sources of every kind. Bit n of the carriers is source n.
fn sources() -> Vec<CredentialSource> {
    let sources = serde_json::json!([
        { "header": "authorization", "scheme": "Bearer" },
        { "header": "x-api-key" },
        { "query": "api key" },
        { "cookie": "key" },
        { "header": "authorization", "scheme": "Basic", "key_in": "either" },
        { "header": "x-token", "scheme": "Bearer", "scheme_optional": true },
        { "path": "/v2/{key}" },
        { "websocket_protocol": "bearer" },
        { "header": "proxy-authorization", "scheme": "Basic", "key_in": "password" },
    ]);
    serde_json::from_value(sources).unwrap()
}

type Lines = &'static [(&'static str, &'static str)];
type Expected = Result<Option<(&'static str, u32)>, Malformed>;

const BEARER: u32 = 1;
const X_API_KEY: u32 = 2;
const QUERY: u32 = 4;
const COOKIE: u32 = 8;
const BASIC: u32 = 16;
const X_TOKEN: u32 = 32;
const PATH: u32 = 64;
const WEBSOCKET: u32 = 128;
const PROXY: u32 = 256;

const NOTHING: Expected = Ok(None);
const TWO: Expected = Err(Malformed::Ambiguous);
const BAD: Expected = Err(Malformed::Unreadable);
const NO_BASIC: Expected = Err(Malformed::NotBasic);

const fn key(carriers: u32) -> Expected {
    Ok(Some(("k", carriers)))
}

/// Ways to carry a key: what is taken, from where, or the refusal.
const WAYS: &[(&str, Lines, Expected)] = &[
    // One header with a scheme.
    ("/", &[], NOTHING),
    ("/", &[("authorization", "Bearer k")], key(BEARER)),
    ("/", &[("Authorization", "bEaReR   k ")], key(BEARER)),
    ("/", &[("authorization", "Bearer\tk")], key(BEARER)),
    ("/", &[("authorization", "Bearerk")], NOTHING),
    ("/", &[("authorization", "k")], NOTHING),
    ("/", &[("authorization", "ApiKey k")], NOTHING),
    ("/", &[("authorization", "Bearer ö")], Ok(Some(("ö", BEARER)))),
    ("/", &[("authorization", "Bearer Bearer k")], Ok(Some(("Bearer k", BEARER)))),
    ("/", &[("authorization", "Digest username=\"k\", realm=\"r\"")], NOTHING),
    // An empty credential counts as absent.
    ("/", &[("authorization", "")], NOTHING),
    ("/", &[("authorization", "Bearer")], NOTHING),
    ("/", &[("authorization", "Bearer  ")], NOTHING),
    ("/", &[("authorization", "Basic ")], NOTHING),
    ("/", &[("x-api-key", " ")], NOTHING),
    ("/?api+key=", &[], NOTHING),
    ("/?api+key", &[], NOTHING),
    ("/?api+key=%20+", &[], NOTHING),
    ("/", &[("cookie", "key=")], NOTHING),
    ("/", &[("cookie", "key=\"\"; a=b")], NOTHING),
    ("/", &[("cookie", "key=%20%09; a=b")], NOTHING),
    ("/", &[("cookie", "key=%20"), ("authorization", "Bearer k")], key(BEARER)),
    ("/", &[("cookie", "key=%20; key=k")], key(COOKIE)),
    ("/", &[("x-api-key", "\"\"")], NOTHING),
    ("/", &[("authorization", "Bearer ''"), ("x-api-key", "k")], key(X_API_KEY)),
    ("/", &[("authorization", "Basic \"\"")], NOTHING),
    ("/v2/", &[], NOTHING),
    ("/", &[("sec-websocket-protocol", "bearer")], NOTHING),
    ("/", &[("authorization", "Bearer "), ("x-api-key", "k")], key(X_API_KEY)),
    ("/", &[("authorization", "Bearer k"), ("x-api-key", "")], key(BEARER)),
    ("/?api+key=&api%20key=k", &[("cookie", "key=; key=k")], key(QUERY | COOKIE)),
    ("/", &[("x-api-key", ""), ("x-api-key", "k")], key(X_API_KEY)),
    ("/", &[("authorization", "Bearer"), ("authorization", "Bearer k")], key(BEARER)),
    ("/", &[("authorization", "Bearer k, ")], key(BEARER)),
    // A header of one's own.
    ("/", &[("x-api-key", "k")], key(X_API_KEY)),
    ("/", &[("X-API-Key", " k ")], key(X_API_KEY)),
    ("/", &[("x_api_key", "k")], NOTHING),
    ("/", &[("x-api-keys", "k")], NOTHING),
    // The query.
    ("/?api+key=k", &[], key(QUERY)),
    ("/?a=b&api%20key=%6B#c", &[], key(QUERY)),
    ("/?API+key=k", &[], NOTHING),
    ("/#?api+key=k", &[], NOTHING),
    ("/?a=b;api+key=k", &[], NOTHING),
    ("/?api+key=%", &[], BAD),
    ("/?api+key=%ff", &[], BAD),
    ("/?api+key=k&api%20key=k", &[], TWO),
    // Cookies.
    ("/", &[("cookie", "a=b; key=k")], key(COOKIE)),
    ("/", &[("cookie", "key=\"k\"")], key(COOKIE)),
    ("/", &[("cookie", "key=%6b")], key(COOKIE)),
    ("/", &[("cookie", "key=a+b%2Bc%20d")], Ok(Some(("a+b+c d", COOKIE)))),
    ("/", &[("cookie", "key=50%")], Ok(Some(("50%", COOKIE)))),
    ("/", &[("cookie", "key=%ff")], Ok(Some(("%ff", COOKIE)))),
    ("/", &[("cookie", "Key=k; xkey=k")], NOTHING),
    ("/", &[("cookie", "key=k"), ("cookie", "key=k")], TWO),
    ("/", &[("cookie", "key=k; key=%6b")], TWO),
    // Basic: `k:`, `api:k`, `:k`, and broken ones.
    ("/", &[("authorization", "Basic azo=")], key(BASIC)),
    ("/", &[("authorization", "bASIC  azo")], key(BASIC)),
    ("/", &[("authorization", "Basic YXBpOms=")], key(BASIC)),
    ("/", &[("authorization", "Basic Oms=")], key(BASIC)),
    ("/", &[("authorization", "Basic Og==")], NOTHING),
    ("/", &[("authorization", "Basic aw==")], NO_BASIC),
    ("/", &[("authorization", "Basic k:")], NO_BASIC),
    ("/", &[("authorization", "Basic =")], NO_BASIC),
    ("/", &[("authorization", "Basic OoA=")], NO_BASIC),
    ("/", &[("authorization", "Basic YV92MV9rOmJfdjFfaw==")], TWO),
    ("/", &[("authorization", "Basic azo="), ("x-api-key", "k")], key(BASIC | X_API_KEY)),
    ("/", &[("authorization", "Basic azo="), ("x-api-key", "l")], TWO),
    ("/", &[("authorization", "Basic azo=, Bearer k")], TWO),
    ("/", &[("proxy-authorization", "Basic YXBpOms=")], key(PROXY)),
    ("/", &[("proxy-authorization", "Basic azo=")], NOTHING),
    ("/", &[("proxy-authorization", "Bearer k")], NOTHING),
    // With the scheme or without.
    ("/", &[("x-token", "k")], key(X_TOKEN)),
    ("/", &[("x-token", "Bearer k")], key(X_TOKEN)),
    ("/", &[("x-token", "BEARER k")], key(X_TOKEN)),
    ("/", &[("x-token", "Bearer")], NOTHING),
    ("/", &[("x-token", "Basic azo=")], NOTHING),
    ("/", &[("x-token", "k, Bearer l")], TWO),
    ("/", &[("x-token", "Bearer k"), ("x-token", "k")], TWO),
    // A segment of the path.
    ("/v2/k", &[], key(PATH)),
    ("/v2/k/a?b", &[], key(PATH)),
    ("/%762/%6B", &[], key(PATH)),
    ("/v2/a+b", &[], Ok(Some(("a+b", PATH)))),
    ("/v2/%20/", &[], NOTHING),
    ("/V2/k", &[], NOTHING),
    ("/v2//k", &[], NOTHING),
    ("/a/v2/k", &[], NOTHING),
    ("/v2/%zz", &[], BAD),
    ("/v2/%ff", &[], BAD),
    ("/v2/k/k", &[], TWO),
    ("/v2/k?api+key=l", &[], TWO),
    ("/v2/k", &[("authorization", "Bearer k")], key(BEARER | PATH)),
    // A subprotocol.
    ("/", &[("sec-websocket-protocol", "bearer, k")], key(WEBSOCKET)),
    ("/", &[("Sec-WebSocket-Protocol", "chat,Bearer,k,v2")], key(WEBSOCKET)),
    ("/", &[("sec-websocket-protocol", "bearer"), ("sec-websocket-protocol", "k")], key(WEBSOCKET)),
    ("/", &[("sec-websocket-protocol", "chat, k")], NOTHING),
    ("/", &[("sec-websocket-protocol", "bearer, k, bearer, l")], TWO),
    ("/", &[("sec-websocket-protocol", "bearer, k"), ("cookie", "key=l")], TWO),
    // Two places that agree, or not.
    ("/", &[("authorization", "Bearer k"), ("x-api-key", "k")], key(BEARER | X_API_KEY)),
    ("/", &[("authorization", "Bearer k"), ("x-api-key", "K")], TWO),
    ("/", &[("x-api-key", "k"), ("x-api-key", "k")], TWO),
    ("/", &[("authorization", "Bearer k"), ("authorization", "Bearer k")], TWO),
    ("/", &[("authorization", "Bearer k,l")], TWO),
    ("/", &[("authorization", "Digest a, Bearer k")], TWO),
    ("/?api+key=k", &[("x-api-key", "K")], TWO),
    ("/", &[("cookie", "key=k"), ("authorization", "Bearer l")], TWO),
];

#[test]
fn one_credential_or_none_or_a_refusal() {
    assert!(WAYS.len() >= 80);
    let sources = sources();
    for (path, lines, expected) in WAYS {
        for attributes in both_forms(path, lines) {
            let presented = PresentedCredential::find(&Headers::of(&attributes), &sources);
            let presented = presented.and_then(|presented| match presented {
                Some(presented) => {
                    Ok(Some((presented.credential()?.expose().to_owned(), presented.carriers)))
                }
                None => Ok(None),
            });
            let expected =
                expected.map(|presented| presented.map(|(text, carriers)| (text.to_owned(), carriers)));
            assert_eq!(presented, expected, "{path} {lines:?}");
        }
    }
}

#[test]
fn a_comma_is_a_double_only_where_lines_are_joined() {
    let sources = sources();
    let [joined, raw] = both_forms("/", &[("x-api-key", "a,b")]);
    assert!(PresentedCredential::find(&Headers::of(&joined), &sources).is_err());
    assert!(PresentedCredential::find(&Headers::of(&raw), &sources).unwrap().is_some());
}
