//! Runs the fuzz targets on the corpora of `tests/fuzz` and on random mutations of them; the seed
//! is printed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use talos_proto::{AttributeContext, CheckRequest, Entry, HttpRequest, Request};

use super::fixture::{GOOD_KEY, decode_macaroon, fixture};
use super::{TARGETS, connection};
use crate::rng::Rng;

/// Time that mutations of one target's corpus are tried.
const MUTATION_TIME: Duration = Duration::from_millis(1500);
/// Longest input that mutations make, in bytes.
const MAX_INPUT_BYTES: usize = 8 * 1024;

fn corpus_directory(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target)
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(corpus_directory(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Returns the seeds of a target's corpus.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../tests/vectors/credentials.json")).unwrap();
    let strings = |list: &str, name: &str| -> Vec<Vec<u8>> {
        vectors[list].as_array().unwrap().iter().map(|one| one[name].as_str().unwrap().into()).collect()
    };
    match target {
        "credential" => [strings("api_keys", "credential"), strings("tampered_api_keys", "credential"), strings("imported_keys", "raw_key")]
            .concat(),
        "jwt" => strings("jwts", "token"),
        "macaroon" => {
            let caveats = [
                r#"+{"iss":"https://keys.example.test","scp":["orders:read"],"exp":1790000100}"#,
                r#"+{"iss":"https://keys.example.test","nbf":1,"acl":["10.0.0.0/8"]}"#,
                r#"+{"iss":"x","more":1}"#,
            ];
            let caveats = caveats.iter().map(|caveat| caveat.as_bytes().to_vec());
            let tokens = strings("macaroons", "token");
            tokens.iter().map(|token| decode_macaroon(std::str::from_utf8(token).unwrap())).chain(caveats).collect()
        }
        "page_token" => fixture().page_tokens.iter().map(|token| token.clone().into_bytes()).collect(),
        "filter" => [
            "",
            r#"actor_id = "a \"b\" \\ c" AND status = KEY_STATUS_ACTIVE"#,
            "status=KEY_STATUS_REVOKED",
            "actor_id='x' AND",
            "actor_id = user:42@x/y-z.w",
            r#"name = "back\"*" AND scopes:"orders:read" AND metadata.team.name = blue"#,
            "expire_time = never AND last_used_time < 2026-01-31T00:00:00Z AND create_time >= '1969-12-31T23:59:59.5Z'",
        ]
        .map(Into::into)
        .into(),
        "config" => ["envoy/talos.yaml"]
            .iter()
            .map(|file| std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap())
            .chain([
                br#"{secrets: {hmac: {current: "0123456789abcdef0123456789abcdef", retired: [{value: fedcba9876543210fedcba9876543210, expires_at: 2026-12-31T00:00:00Z}]}}}"#.to_vec(),
                b"authz: {routes: [{host: a, methods: [GET], path: {template: '/a/{b}'}, scopes: a b, mode: optional}], sources: [{query: k}]}".to_vec(),
                b"cache: {ttl: 1h30m, type: redis, redis: {addrs: ['a:1', 'b:2']}}\nconsistency: &x {lease: 5s}\n".to_vec(),
            ])
            .collect(),
        "http2" => connection::seeds(),
        "check" => checks(),
        "routes" => [
            "GET API.example.:443 /users/7/keys?x=/../a#y\napi.example - prefix /users\n- POST,GET template /users/{id}/keys\n- - exact /users/7/keys\n- - - -",
            "POST [0::1]:8080 http://h/a%20b/\n::1 - prefix /a b/\n::1 - template /{x}/\n- post exact /a b/",
            "GET one.example /a/../b;c%2f\none.example - - -",
            "OPTIONS one.example *\none.example - prefix /\n- OPTIONS - -",
            "CONNECT one.example:443 \n- CONNECT - -\n- - prefix /",
        ]
        .map(Into::into)
        .into(),
        "doctor" => {
            let dumps: serde_json::Value =
                serde_json::from_str(include_str!("../../tests/vectors/config_dumps.json")).unwrap();
            dumps.as_object().unwrap().values().map(|dump| dump.to_string().into_bytes()).collect()
        }
        "xfcc" => {
            let elements: Vec<&str> = super::FORWARDED.lines().collect();
            let names = "By=spiffe://a/proxy;Hash=00;Subject=\"CN=x\\,y\";URI=spiffe://a/x;DNS=one";
            let both = elements.join(",");
            let lines = elements[..2].join("\n");
            elements.iter().copied().chain([names, &both, &lines]).map(Into::into).collect()
        }
        "certificate" => super::FORWARDED.lines().map(certificate).collect(),
        _ => vec![],
    }
}

/// Returns the certificate of an element of `x-forwarded-client-cert`, in DER.
fn certificate(element: &str) -> Vec<u8> {
    let encoded = element.split('"').nth(1).unwrap();
    let pem = encoded.split('%').enumerate().map(|(at, part)| match at {
        0 => part.to_owned(),
        _ => format!("{}{}", char::from(u8::from_str_radix(&part[..2], 16).unwrap()), &part[2..]),
    });
    let pem: String = pem.collect();
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

/// Pairs of names and values.
type Pairs = &'static [(&'static str, &'static str)];

/// Returns CheckRequests made of paths, headers and context extensions.
fn checks() -> Vec<Vec<u8>> {
    let requests: &[(&str, Pairs, Pairs)] = &[
        ("/", &[], &[]),
        ("/a?x=1", &[("authorization", "Bearer sk_fuzz_a_good_key"), ("x-talos-actor-id", "root")], &[]),
        (
            "/a",
            &[("x-api-key", GOOD_KEY), ("x_talos_scopes", "a")],
            &[("talos.scopes", "orders:read"), ("talos.audience", "a")],
        ),
        ("/a?key=sk_fuzz_a_good_key&b=c", &[], &[("talos.token", "none")]),
        ("/a", &[("cookie", "a=b; key=sk_fuzz_a_good_key; c=d")], &[("talos.mode", "optional")]),
        (
            "/a",
            &[("authorization", "Bearer a"), ("x-api-key", "b"), ("content-type", "application/grpc")],
            &[],
        ),
        ("/a/../b;c%2f%00", &[("authorization", "Basic eA==")], &[("talos.mode", "off")]),
        (
            "/",
            &[(
                "authorization",
                "Bearer ory_ak_v1_QixnByGCBjgtgmeemzLZCC1ub13BfZEMqLxZRdhyG7QrWJ1dEpXua6mofykVe3GT_7riK15piuHVKCG2m9uopkfmwoo78uGm1TKQ",
            )],
            &[("talos.wrong", "1")],
        ),
    ];
    let entry = |&(key, value): &(&str, &str)| Entry {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
    };
    let message = |(path, headers, extensions): &(&str, Pairs, Pairs)| {
        let http = HttpRequest {
            method: Bytes::from_static(b"GET"),
            path: Bytes::copy_from_slice(path.as_bytes()),
            host: Bytes::from_static(b"api.example.com"),
            headers: headers.iter().map(entry).collect(),
            ..HttpRequest::default()
        };
        let attributes = AttributeContext {
            request: Some(Request { http: Some(http) }),
            context_extensions: extensions.iter().map(entry).collect(),
            ..AttributeContext::default()
        };
        CheckRequest { attributes: Some(attributes) }.encode_to_vec()
    };
    requests.iter().map(message).collect()
}

/// The committed corpora include the seeds; `TALOS_BLESS=1` writes them.
#[test]
fn the_corpora_have_their_seeds() {
    for (target, _) in TARGETS {
        let seeds = seeds(target);
        assert!(!seeds.is_empty(), "{target}");
        for (number, seed) in seeds.iter().enumerate() {
            let file = corpus_directory(target).join(format!("seed-{number:02}"));
            if std::env::var_os("TALOS_BLESS").is_some() {
                std::fs::create_dir_all(corpus_directory(target)).unwrap();
                std::fs::write(&file, seed).unwrap();
            }
            assert!(
                std::fs::read(&file).ok().as_ref() == Some(seed),
                "{}: TALOS_BLESS=1 writes it",
                file.display()
            );
        }
    }
}

#[test]
fn the_corpora_and_their_mutations_keep_all_properties() {
    let seed = u64::from_le_bytes(Rng::system().bytes());
    println!("seed {seed}");
    let rng = Arc::new(Rng::seeded(seed));
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "{name}");
        corpus.iter().for_each(|data| target(data));
        #[expect(clippy::disallowed_methods, reason = "a test's own stopwatch")]
        let started = Instant::now();
        let mut count = 0;
        while started.elapsed() < MUTATION_TIME {
            target(&mutate(&corpus, &rng));
            count += 1;
        }
        println!("{name}: {} inputs of the corpus, {count} mutations", corpus.len());
        assert!(count >= 100, "{name}: {count}");
    }
}

/// Returns an input of the corpus with a few bytes changed, removed, repeated or inserted.
fn mutate(corpus: &[Vec<u8>], rng: &Rng) -> Vec<u8> {
    let below = |bound: usize| u32::from_le_bytes(rng.bytes()) as usize % bound.max(1);
    let mut data = corpus[below(corpus.len())].clone();
    for _ in 0..=below(4) {
        let at = below(data.len() + 1);
        let end = (at + below(16)).min(data.len());
        match below(6) {
            0 if at < data.len() => data[at] = rng.bytes::<1>()[0],
            1 if at < data.len() => data[at] ^= 1 << below(8),
            2 => drop(data.drain(at..end)),
            3 => {
                let part = data[at..end].to_vec();
                drop(data.splice(at..at, part));
            }
            4 => {
                let other = &corpus[below(corpus.len())];
                let from = below(other.len() + 1);
                let to = (from + below(64)).min(other.len());
                drop(data.splice(at..at, other[from..to].iter().copied()));
            }
            _ => data.insert(at, rng.bytes::<1>()[0]),
        }
    }
    data.truncate(MAX_INPUT_BYTES);
    data
}
