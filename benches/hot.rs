//! Benchmarks of the parts of a Check: `cargo bench --bench hot`.
#![allow(clippy::unwrap_used, reason = "what can't be made can't be measured")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use futures_util::FutureExt;
use prost::Message;
use serde_json::{Map, json};
use talos::authz::{Attributes, Extras, Principal, encode_ok, encode_with_extras};
use talos::cache::memory::MemoryCache;
use talos::clock::{Clock, Timestamp};
use talos::config::{Authz, Route};
use talos::credential::claims::{Expectation, Grant, Subject, claims_json};
use talos::credential::jwk::KeySet;
use talos::credential::new_jwk::{NewKey, RsaAlgorithm, generate};
use talos::credential::secrets::{HmacSecret, HmacSecrets};
use talos::credential::{Presented, api_key, classify, jwt, macaroon};
use talos::key::{AddressList, KeyId, NetworkId, RatePolicy, RateUnit, Scopes, Visibility};
use talos::limit::Limiter;
use talos::rng::Rng;
use talos::settings::routes::Routes;

const ISSUER: &str = "https://keys.example.com";
const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

fn secrets() -> HmacSecrets {
    HmacSecrets::new(HmacSecret::new(b"an-hmac-secret-for-benchmarks-only-0123456789", None), vec![])
}

fn claims(scopes: &Scopes, addresses: &AddressList, id: uuid::Uuid) -> String {
    let subject = Subject {
        key_id: id.to_string(),
        network: NetworkId::SINGLE,
        actor: None,
        metadata: None,
        visibility: Visibility::Secret,
        addresses,
    };
    let (expires, custom) = (NOW.plus(Duration::from_secs(300)), Map::new());
    let grant =
        Grant { issuer: ISSUER, id, issued_at: NOW, expires, audiences: &[], scopes, custom: &custom };
    claims_json(&subject, &grant)
}

fn keys(criterion: &mut Criterion) {
    let (secrets, rng) = (secrets(), Rng::seeded(1));
    let made = api_key::make(&secrets, "ory_ak", rng.uuid(), NOW);
    let credential = Presented::new(made.expose()).unwrap();
    criterion.bench_function("tell the form of a key", |bench| {
        bench.iter(|| classify(black_box(credential), ["mc"]));
    });
    let parts = api_key::Parts::split(credential.expose()).unwrap();
    criterion.bench_function("prove a key: base58 and HMAC", |bench| {
        bench.iter(|| black_box(parts).prove(&secrets, NOW).unwrap());
    });
    criterion.bench_function("HMAC of 80 bytes", |bench| {
        use hmac::Mac;
        bench.iter(|| secrets.current().mac().chain_update(black_box([7; 80])).finalize());
    });
    let memory = MemoryCache::new(1 << 20, 100, &rng);
    criterion.bench_function("index of a credential", |bench| {
        bench.iter(|| memory.cache_key(NetworkId::SINGLE, black_box(credential.expose())));
    });
    let index = memory.cache_key(NetworkId::SINGLE, credential.expose());
    criterion.bench_function("look into L1", |bench| bench.iter(|| memory.get(black_box(&index)).is_some()));
}

fn tokens(criterion: &mut Criterion) {
    let (secrets, rng) = (secrets(), Rng::seeded(2));
    let scopes = Scopes::parse_spaced("orders:read orders:write").unwrap();
    let addresses = AddressList::default();
    let expected = Expectation {
        network: NetworkId::SINGLE,
        now: NOW,
        clock_skew: Duration::from_secs(300),
        issuers: &[ISSUER],
        audiences: &[],
        client: None,
        max_age: None,
    };
    let rsa = NewKey::Rsa { bits: 2_048, algorithm: RsaAlgorithm::Rs256 };
    for (name, kind) in [("EdDSA", NewKey::Ed25519), ("RS256", rsa)] {
        let jwk = generate(kind, Some("bench"), &rng).unwrap();
        let mut keys = KeySet::default();
        keys.read(&json!({ "keys": [jwk] }).to_string()).unwrap();
        let signer = keys.signing(None).unwrap();
        criterion.bench_function(&format!("mint a JWT, {name}"), |bench| {
            bench.iter(|| jwt::sign(signer, &claims(&scopes, &addresses, rng.uuid())).unwrap());
        });
        let token = jwt::sign(signer, &claims(&scopes, &addresses, rng.uuid())).unwrap();
        criterion.bench_function(&format!("verify a JWT, {name}"), |bench| {
            bench.iter(|| jwt::verify(&keys, black_box(&token), &expected).unwrap());
        });
    }
    let id = rng.uuid();
    let token = macaroon::make(&secrets, "mc", ISSUER, id, &claims(&scopes, &addresses, id));
    let parts = macaroon::Parts::split(&token, "mc").unwrap();
    criterion.bench_function("verify a macaroon", |bench| {
        bench.iter(|| macaroon::verify(&secrets, black_box(&parts), &expected).unwrap());
    });
}

/// Returns a CheckRequest with twenty headers, as Envoy sends it.
fn check_request() -> Vec<u8> {
    let line = |n: usize| HeaderValue {
        key: format!("x-header-number-{n}"),
        raw_value: b"a value of usual length, as headers have".to_vec(),
        ..HeaderValue::default()
    };
    let http = HttpRequest {
        method: "GET".to_owned(),
        path: "/v1/orders/4711/items?page=2&limit=50".to_owned(),
        host: "api.example.com".to_owned(),
        header_map: Some(HeaderMap { headers: (0..20).map(line).collect() }),
        ..HttpRequest::default()
    };
    let request = Some(Request { http: Some(http), ..Request::default() });
    CheckRequest { attributes: Some(AttributeContext { request, ..AttributeContext::default() }) }
        .encode_to_vec()
}

fn requests(criterion: &mut Criterion) {
    let message = check_request();
    criterion.bench_function("decode a CheckRequest of 20 headers", |bench| {
        bench.iter(|| Attributes::decode(black_box(&message)).unwrap().raw_headers.map(|lines| lines.len()));
    });
    let routes: Vec<Route> = serde_json::from_value(json!([
        { "path": { "prefix": "/public" }, "mode": "optional" },
        { "path": { "template": "/v1/orders/{id}/items" }, "methods": ["GET"], "scopes": "orders:read" },
        { "path": { "template": "/users/{id}/keys" }, "methods": ["POST", "DELETE"], "scopes": "keys:write" },
        { "host": "internal.example", "path": { "exact": "/admin" }, "scopes": "admin" },
    ]))
    .unwrap();
    let routes = Routes::compile(&routes);
    let path = b"/v1/orders/4711/items?page=2&limit=50";
    criterion.bench_function("find the rule of a path", |bench| {
        bench.iter(|| {
            routes.find(b"api.example.com", b"GET", black_box(path)).is_ok_and(|rule| rule.is_some())
        });
    });
    let limiter = Limiter::memory(Clock::system());
    let subject = KeyId::Issued(uuid::Uuid::from_u128(7));
    let policy = RatePolicy { quota: 1 << 40, window: Duration::from_secs(60), unit: RateUnit::Requests };
    criterion.bench_function("charge a key (GCRA)", |bench| {
        bench.iter(|| {
            limiter
                .charge(NetworkId::SINGLE, black_box(subject), policy, 1)
                .now_or_never()
                .flatten()
                .is_some()
        });
    });
}

fn answers(criterion: &mut Criterion) {
    let scopes = Scopes::parse_spaced("orders:read orders:write").unwrap();
    let (settings, token) = (Authz::default(), "t".repeat(500));
    let principal = Principal {
        key_id: uuid::Uuid::from_u128(7).to_string(),
        network_id: NetworkId::SINGLE.to_string(),
        actor: Some("user:4711"),
        scopes: &scopes,
        visibility: "secret",
        metadata: None,
        rate_limits_of: None,
    };
    let end = Timestamp::from_secs(1_800_000_000);
    criterion.bench_function("encode the answer of a key, once for all requests", |bench| {
        bench.iter(|| encode_ok(&settings, black_box(&principal), Some(&token), end));
    });
    let mut extras = Extras::default();
    extras.remove_header(b"x-api-key");
    criterion.bench_function("encode an answer that takes a header away", |bench| {
        let ready = encode_ok(&settings, &principal, Some(&token), end);
        bench.iter(|| encode_with_extras(black_box(&ready).clone(), &extras));
    });
}

criterion_group!(benches, keys, tokens, requests, answers);
criterion_main!(benches);
