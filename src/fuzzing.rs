//! Fuzz targets: one function for each parser of untrusted input, with the properties that must
//! hold of what it accepts.
//!
//! `tests/fuzz` runs them under a coverage-guided fuzzer; the tests below run them on its corpora
//! and on random mutations of these. Only built for tests and with the feature `fuzzing`.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "for tests alone")]

mod connection;
#[cfg(test)]
mod corpora;
mod fixture;

use std::time::Duration;

use prost::Message;
use talos_proto::{CheckRequest, CheckResponse};

use crate::admin_auth::xfcc;
use crate::caller::Names;
use crate::clock::Timestamp;
use crate::config::{Authz, ClientAddress, Route, Source};
use crate::credential::claims::{Authority, Expectation};
use crate::credential::page_token::{self, Cursor};
use crate::credential::secrets::{HmacSecrets, hmac_sha256};
use crate::credential::{Form, Presented, api_key, imported, jwt, macaroon};
use crate::doctor::{Options, examine};
use crate::key::NetworkId;
use crate::rng::Rng;
use crate::service::parse_filter;
use crate::settings::path::{AmbiguousPath, normal_path};
use crate::settings::routes::{Routes, reference};
use crate::tls;
use fixture::{GOOD_KEY, ISSUER, NOW, fixture};

/// Name of a fuzz target, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All fuzz targets.
pub const TARGETS: &[Target] = &[
    ("credential", credential),
    ("http2", connection::http2),
    ("check", check),
    ("jwt", jwt_token),
    ("macaroon", macaroon_token),
    ("page_token", page_token_text),
    ("filter", filter),
    ("config", config),
    ("routes", routes),
    ("doctor", doctor_json),
    ("xfcc", forwarded_certificate),
    ("certificate", client_certificate),
];

/// Classifies a credential and, if it has the form of an issued key, proves it.
fn credential(data: &[u8]) {
    let Some(presented) = std::str::from_utf8(data).ok().and_then(Presented::new) else {
        return;
    };
    let settings = fixture().service.snapshot();
    match settings.form(presented) {
        Form::Issued(parts) => {
            let Some(proof) = parts.prove(&settings.secrets, NOW) else {
                return;
            };
            // Only this server can issue a key, so the text must equal the key of that id and time.
            let uuid = proof.key_id.to_string().parse().unwrap_or_default();
            let is_canonical = settings.secrets.verifying(NOW).any(|secret| {
                let secrets = HmacSecrets::new(secret.clone(), vec![]);
                api_key::make(&secrets, parts.prefix(), uuid, proof.issued_at).expose() == presented.expose()
            });
            assert!(is_canonical, "two spellings of one issued key");
        }
        Form::Macaroon(parts) => drop(macaroon::verify(&settings.secrets, &parts, &expectation())),
        Form::Jwt => drop(jwt::verify(&settings.keys, presented.expose(), &expectation())),
        Form::Imported => {
            let id = imported::key_id(NetworkId::SINGLE, presented.expose()).to_string();
            assert_eq!(id.len(), 64);
        }
    }
}

/// Sends a CheckRequest to the authz plane and checks the headers of its response.
fn check(data: &[u8]) {
    let Some(response) = fixture().check(data) else {
        return;
    };
    let response = CheckResponse::decode(response).expect("a response that Envoy can decode");
    let request = CheckRequest::decode(data).expect("a request that was answered can be decoded");
    let http = request.attributes.and_then(|attributes| attributes.request).and_then(|request| request.http);
    let http = http.unwrap_or_default();
    let Some(allowed) = response.ok_response else {
        let denied = response.denied_response.expect("allowed or denied");
        let code = denied.status.expect("a status, else Envoy says 403").code;
        assert!(matches!(code, 400 | 401 | 403 | 404 | 429 | 500 | 503), "{code}");
        return;
    };
    assert!(response.denied_response.is_none(), "allowed and denied");
    let name_of = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_ascii_lowercase();
    // To servers that make variables of headers, x.talos.a and x_talos_a are x-talos-a.
    let spelled = |name: &str| name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let is_identity_header = |name: &String| spelled(name).starts_with("x-talos-");
    let given = http.headers.iter().map(|entry| &entry.key);
    let given = given.chain(http.header_map.iter().flat_map(|map| &map.headers).map(|header| &header.key));
    let removed: Vec<String> = allowed.headers_to_remove.iter().map(|name| name_of(name)).collect();
    let set: Vec<String> = allowed
        .headers
        .iter()
        .filter_map(|option| option.header.as_ref())
        .map(|header| name_of(&header.key))
        .collect();
    for name in given.map(|name| name_of(name)).filter(is_identity_header) {
        assert!(removed.contains(&name) || set.contains(&name), "{name} goes upstream as the client sent it");
    }
    for name in &set {
        assert!(!removed.contains(name), "{name} is set and removed: Envoy removes last");
    }
    // An identity needs a credential: the known key, or a token (tokens have their own targets).
    if set.iter().any(|name| name == "x-talos-key-id") {
        let holds = |wanted: &[u8]| data.windows(wanted.len()).any(|window| window == wanted);
        assert!(holds(GOOD_KEY.as_bytes()) || data.contains(&b'%') || holds(b"eyJ") || holds(b"mc_v1_"));
    }
}

/// Verifies a JWT; only the signed ones of the fixture may be accepted.
fn jwt_token(data: &[u8]) {
    let Ok(token) = std::str::from_utf8(data) else {
        return;
    };
    let settings = fixture().service.snapshot();
    if let Ok(authority) = jwt::verify(&settings.keys, token, &expectation()) {
        assert_valid(&authority);
        let signed = token.rsplit_once('.').map(|(signed, _)| signed);
        assert!(fixture().signed.iter().any(|known| Some(known.as_str()) == signed), "a forged JWT");
    }
}

/// Verifies a macaroon: raw bytes, or after a `+` a caveat that a holder adds to a valid one.
fn macaroon_token(data: &[u8]) {
    let settings = fixture().service.snapshot();
    let verify = |token: &str| {
        let parts = macaroon::Parts::split(token, settings.macaroon_prefix());
        parts.and_then(|parts| macaroon::verify(&settings.secrets, &parts, &expectation()).ok())
    };
    match data.split_first() {
        Some((b'+', caveat)) => {
            let whole = verify(&fixture().macaroon).expect("a good macaroon");
            let Some(narrowed) = verify(&with_caveat(&fixture().macaroon, caveat)) else {
                return;
            };
            assert_valid(&narrowed);
            assert!(
                whole.scopes.grant_all(&narrowed.scopes) && narrowed.expires <= whole.expires,
                "a caveat extended the token"
            );
            assert_eq!((&narrowed.key_id, narrowed.visibility), (&whole.key_id, whole.visibility));
        }
        _ => {
            if let Some(authority) = verify(&fixture::encode_macaroon(data)) {
                assert_valid(&authority);
            }
        }
    }
}

/// Adds a caveat to a macaroon as its holder does, without the secret.
fn with_caveat(token: &str, caveat: &[u8]) -> String {
    const TAIL: usize = 1 + 2 + 32; // end of caveats, header of the signature, signature
    let mut bytes = fixture::decode_macaroon(token);
    let tail = bytes.split_off(bytes.len() - TAIL);
    bytes.push(2);
    let mut length = caveat.len();
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(caveat);
    bytes.push(0);
    bytes.extend_from_slice(&tail[..3]);
    bytes.extend_from_slice(&hmac_sha256(&tail[3..], caveat));
    fixture::encode_macaroon(&bytes)
}

/// Opens a page token, which must be one of the fixture's, and opens a sealed arbitrary cursor.
fn page_token_text(data: &[u8]) {
    let settings = fixture().service.snapshot();
    let text = String::from_utf8_lossy(data);
    let open = |token: &str| page_token::open(&settings.secrets, NOW, NetworkId::SINGLE, "issued", token);
    if let Some(cursor) = open(&text) {
        assert!(fixture().page_tokens.iter().any(|known| *known == text), "a forged token gives {cursor:?}");
    }
    if let Some((time, rest)) = data.split_first_chunk::<8>() {
        let cursor = Cursor {
            created: Timestamp::from_micros(i64::from_le_bytes(*time)),
            key_id: String::from_utf8_lossy(rest).chars().take(64).collect(),
        };
        let sealed =
            page_token::seal(&settings.secrets, &Rng::seeded(1), NetworkId::SINGLE, "issued", &cursor);
        assert_eq!(open(&sealed), Some(cursor));
    }
}

/// Parses a list filter, formats it and parses it again: both must be equal.
fn filter(data: &[u8]) {
    let Some(filter) = std::str::from_utf8(data).ok().and_then(|text| parse_filter(text).ok()) else {
        return;
    };
    let again = filter.to_string();
    // Quotes and backslashes may make the formatted filter longer than the limit.
    if again.len() <= crate::service::MAX_FILTER {
        assert_eq!(parse_filter(&again), Ok(filter), "{again}");
    }
}

/// Loads and shows a configuration; secrets must not be shown.
fn config(data: &[u8]) {
    match Source::new(None, []).load_text(data) {
        Ok(loaded) => {
            let shown = loaded.config.to_masked().to_string();
            let secret = loaded.config.secrets.hmac.current.as_ref().map(|secret| secret.expose().to_owned());
            // A secret that the file also has elsewhere may be shown from there.
            let once = |secret: &String| String::from_utf8_lossy(data).matches(secret.as_str()).count() == 1;
            if let Some(secret) = secret.filter(once) {
                assert!(!shown.contains(&secret), "a secret is shown");
            }
            drop(loaded.origins());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Matches a request against routes, and compares the result with the reference implementation.
///
/// The first line is the request, `method host target`; each further line is a rule, `host methods
/// kind path`, with `-` for what isn't set.
fn routes(data: &[u8]) {
    let (request, rules) = data.split_at(data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len()));
    let mut request = request.splitn(3, |byte| *byte == b' ');
    let mut next = || request.next().unwrap_or_default();
    let (method, host, target) = (next(), next(), next());
    let rules: Vec<Route> = String::from_utf8_lossy(rules).lines().filter_map(rule).collect();
    // The audience identifies a rule.
    let numbered = rules.into_iter().enumerate();
    let rules: Vec<Route> =
        numbered.map(|(number, rule)| Route { audience: number.to_string().parse().ok(), ..rule }).collect();

    let path = reference::path(target, method);
    let normal = normal_path(target, method).map(|path| path.map(std::borrow::Cow::into_owned));
    assert_eq!(normal, path.clone().ok_or(AmbiguousPath));
    let expected = match path {
        None if rules.iter().any(|rule| rule.path.is_some()) => Err(AmbiguousPath),
        path => Ok(reference::find(&rules, host, method, path.flatten().as_deref())),
    };
    let routes = Routes::compile(&rules);
    let found = routes.find(host, method, target);
    let number = |audience: Option<&String>| audience.and_then(|audience| audience.parse().ok());
    let found = found.map(|policy| policy.and_then(|policy| number(policy.audience.as_ref())));
    assert_eq!(found, expected, "{rules:?}");
}

/// Parses a line as a rule; returns none if the configuration doesn't accept it.
fn rule(line: &str) -> Option<Route> {
    let mut words = line.splitn(4, ' ').map(|word| Some(word).filter(|word| *word != "-"));
    let mut next = || words.next().flatten();
    let (host, methods, kind, path) = (next(), next(), next(), next());
    let methods: Vec<&str> = methods.into_iter().flat_map(|methods| methods.split(',')).collect();
    let path = kind.map(|kind| serde_json::json!({ kind: path }));
    serde_json::from_value(serde_json::json!({ "host": host, "methods": methods, "path": path })).ok()
}

/// Examines an Envoy configuration dump: each finding has a path and a reason, and its fix is YAML.
fn doctor_json(data: &[u8]) {
    let Ok(document) = std::str::from_utf8(data) else {
        return;
    };
    let (peer, xff) = (Authz::default(), Authz { client_address: ClientAddress::Xff, ..Authz::default() });
    let clusters = ["talos".to_owned()];
    let compared =
        [&peer, &xff].map(|authz| Options { clusters: &clusters, authz: Some(authz), ..Options::default() });
    for options in [Options::default()].into_iter().chain(compared) {
        let report = match examine(document, options) {
            Ok(report) => report,
            Err(_) => return,
        };
        for finding in &report.findings {
            assert!(!finding.path.is_empty() && !finding.why.is_empty(), "{finding:?}");
            let fix: Result<serde_json::Value, _> = serde_norway::from_str(&finding.fix);
            assert!(fix.is_ok(), "{finding:?}");
        }
        assert!(report.findings.is_sorted_by_key(|finding| finding.severity));
        assert_eq!(examine(document, options), Ok(report), "the result is deterministic");
    }
}

/// Elements of `x-forwarded-client-cert` in Envoy's form, with certificates made by OpenSSL.
const FORWARDED: &str = include_str!("../tests/vectors/forwarded_certificates.txt");

/// Reads `x-forwarded-client-cert`, one header per line: only known certificates name a caller, and
/// elements before the last one don't change who is named.
fn forwarded_certificate(data: &[u8]) {
    let headers: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let known = FORWARDED.lines().next().unwrap_or_default().as_bytes();
    let alone = xfcc::read(&headers).map(|certificate| certificate.names);
    if let Ok(names) = &alone {
        let names: Vec<&str> = names.iter().flat_map(Names::iter).collect();
        assert!([&["spiffe://a/x", "one", "two"][..], &["spiffe://b"]].contains(&&names[..]), "{names:?}");
    }
    let after = xfcc::read(&[&[known][..], &headers].concat()).map(|certificate| certificate.names);
    assert!(after.is_err() || after == alone, "{after:?}, alone {alone:?}");
    let before = xfcc::read(&[&headers[..], &[known]].concat());
    if let Ok(certificate) = before {
        let of_known = xfcc::read(&[known]).map(|certificate| certificate.names);
        assert_eq!(Ok(certificate.names), of_known, "the last element isn't the one that counts");
    }
}

/// Reads a client certificate in DER: the names in it aren't empty.
fn client_certificate(data: &[u8]) {
    let shown = [rustls::pki_types::CertificateDer::from(data)];
    let Some(certificate) = tls::client_certificate(Some(&shown)) else {
        return;
    };
    if let Ok(names) = &certificate.names {
        assert!(names.iter().all(|name| !name.is_empty()), "{names:?}");
    }
}

/// Returns what the targets expect of a token.
fn expectation() -> Expectation<'static> {
    Expectation {
        network: NetworkId::SINGLE,
        now: NOW,
        clock_skew: Duration::from_secs(300),
        issuers: &[ISSUER],
        audiences: &[],
        client: None,
        max_age: None,
    }
}

/// Asserts what holds of every accepted token.
fn assert_valid(authority: &Authority) {
    assert!(authority.expires > NOW && authority.issuer == ISSUER);
}
