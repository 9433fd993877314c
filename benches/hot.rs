//! What the parts of a Check cost: `cargo bench --bench hot`.
#![allow(clippy::unwrap_used, reason = "what can't be made can't be measured")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Map, json};
use talos::cache::memory::Memory;
use talos::clock::Timestamp;
use talos::credential::claims::{Expectation, Grant, Subject, claims_json};
use talos::credential::jwk::KeySet;
use talos::credential::new_jwk::{NewKey, generate};
use talos::credential::secrets::{HmacSecret, HmacSecrets};
use talos::credential::{Presented, api_key, classify, jwt, macaroon};
use talos::key::{AddressList, NetworkId, Scopes, Visibility};
use talos::rng::Rng;

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
    let memory = Memory::new(1 << 20, 100, &rng);
    criterion.bench_function("index of a credential", |bench| {
        bench.iter(|| memory.index(NetworkId::SINGLE, black_box(credential.expose())));
    });
    let index = memory.index(NetworkId::SINGLE, credential.expose());
    criterion.bench_function("look into L1", |bench| bench.iter(|| memory.get(black_box(&index)).is_some()));
}

fn tokens(criterion: &mut Criterion) {
    let (secrets, rng) = (secrets(), Rng::seeded(2));
    let jwk = generate(NewKey::Ed25519, Some("bench"), &rng).unwrap();
    let mut keys = KeySet::default();
    keys.read(&json!({ "keys": [jwk] }).to_string()).unwrap();
    let signer = keys.signing(None).unwrap();
    let scopes = Scopes::parse_spaced("orders:read orders:write").unwrap();
    let addresses = AddressList::default();
    criterion.bench_function("mint a JWT, EdDSA", |bench| {
        bench.iter(|| jwt::sign(signer, &claims(&scopes, &addresses, rng.uuid())).unwrap());
    });
    let expected = Expectation {
        network: NetworkId::SINGLE,
        now: NOW,
        clock_skew: Duration::from_secs(300),
        issuers: &[ISSUER],
        audiences: &[],
        client: None,
    };
    let token = jwt::sign(signer, &claims(&scopes, &addresses, rng.uuid())).unwrap();
    criterion.bench_function("verify a JWT, EdDSA", |bench| {
        bench.iter(|| jwt::verify(&keys, black_box(&token), &expected).unwrap());
    });
    let id = rng.uuid();
    let token = macaroon::make(&secrets, "mc", ISSUER, id, &claims(&scopes, &addresses, id));
    let parts = macaroon::Parts::split(&token, "mc").unwrap();
    criterion.bench_function("verify a macaroon", |bench| {
        bench.iter(|| macaroon::verify(&secrets, black_box(&parts), &expected).unwrap());
    });
}

criterion_group!(benches, keys, tokens);
criterion_main!(benches);
