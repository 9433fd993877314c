//! Where strangers' bytes come in, one function each, with what must hold of whatever is taken in. `tests/fuzz` feeds them for
//! long and by coverage, the tests below with the corpora that it found and with changes made to these.
//!
//! No part of the product: built for tests and with the feature `fuzzing` alone.

mod connection;
#[cfg(test)]
mod corpora;
mod fixture;

use std::time::Duration;

use prost::Message;
use talos_proto::{CheckRequest, CheckResponse};

use crate::admission::xfcc;
use crate::caller::Names;
use crate::clock::Timestamp;
use crate::config::{Authz, ClientAddress, Route, Source};
use crate::credential::claims::{Authority, Expectation};
use crate::credential::page_token::{self, Cursor};
use crate::credential::secrets::{HmacSecrets, hmac_sha256};
use crate::credential::{Form, Presented, api_key, imported, jwt, macaroon};
use crate::doctor::{NotADump, Question, examine, from_bootstrap};
use crate::key::NetworkId;
use crate::rng::Rng;
use crate::service::parse_filter;
use crate::settings::path::{AmbiguousPath, normal_path};
use crate::settings::routes::{Routes, reference};
use crate::tls;
use fixture::{GOOD_KEY, ISSUER, NOW, fixture};

/// A name, and what it feeds.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
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

/// A credential: told apart, and proven if it says that we issued it.
fn credential(data: &[u8]) {
    let Some(shown) = std::str::from_utf8(data).ok().and_then(Presented::new) else {
        return;
    };
    let settings = fixture().service.snapshot();
    match settings.form(shown) {
        Form::Issued(parts) => {
            let Some(proof) = parts.prove(&settings.secrets, NOW) else {
                return;
            };
            // Nobody but us can make one: it is, letter for letter, the credential that its id and time have.
            let uuid = proof.key_id.to_string().parse().unwrap_or_default();
            let is_ours = settings.secrets.verifying(NOW).any(|secret| {
                let alone = HmacSecrets::new(secret.clone(), vec![]);
                api_key::make(&alone, parts.prefix(), uuid, proof.issued_at).expose() == shown.expose()
            });
            assert!(is_ours, "a second spelling of an issued key");
        }
        Form::Macaroon(parts) => drop(macaroon::verify(&settings.secrets, &parts, &expectation())),
        Form::Jwt => drop(jwt::verify(&settings.keys, shown.expose(), &expectation())),
        Form::Imported => {
            let id = imported::key_id(NetworkId::SINGLE, shown.expose()).to_string();
            assert_eq!(id.len(), 64);
        }
    }
}

/// A CheckRequest: decoded, decided, answered.
fn check(data: &[u8]) {
    let Some(answer) = fixture().check(data) else {
        return;
    };
    let answer = CheckResponse::decode(answer).expect("an answer that Envoy can read");
    let request = CheckRequest::decode(data).expect("what was answered could be read");
    let http = request.attributes.and_then(|attributes| attributes.request).and_then(|request| request.http);
    let http = http.unwrap_or_default();
    let Some(passed) = answer.ok_response else {
        let denied = answer.denied_response.expect("allowed or denied");
        let code = denied.status.expect("a status, else Envoy says 403").code;
        assert!(matches!(code, 400 | 401 | 403 | 404 | 429 | 500 | 503), "{code}");
        return;
    };
    assert!(answer.denied_response.is_none(), "allowed and denied");
    let name_of = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_ascii_lowercase();
    // Many servers read x_talos_actor_id as x-talos-actor-id.
    let claims_to_be_ours = |name: &String| name.replace('_', "-").starts_with("x-talos-");
    let given = http.headers.iter().map(|entry| &entry.key);
    let given = given.chain(http.header_map.iter().flat_map(|map| &map.headers).map(|header| &header.key));
    let removed: Vec<String> = passed.headers_to_remove.iter().map(|name| name_of(name)).collect();
    let set: Vec<String> = passed
        .headers
        .iter()
        .filter_map(|option| option.header.as_ref())
        .map(|header| name_of(&header.key))
        .collect();
    for name in given.map(|name| name_of(name)).filter(claims_to_be_ours) {
        assert!(removed.contains(&name) || set.contains(&name), "{name} goes upstream as the client sent it");
    }
    for name in &set {
        assert!(!removed.contains(name), "{name} is set and removed: Envoy removes last");
    }
    // With an identity goes a credential: the key that we know, or a token (whose target is another).
    if set.iter().any(|name| name == "x-talos-key-id") {
        let holds = |wanted: &[u8]| data.windows(wanted.len()).any(|window| window == wanted);
        assert!(holds(GOOD_KEY.as_bytes()) || data.contains(&b'%') || holds(b"eyJ") || holds(b"mc_v1_"));
    }
}

/// A JWT.
fn jwt_token(data: &[u8]) {
    let Ok(token) = std::str::from_utf8(data) else {
        return;
    };
    let settings = fixture().service.snapshot();
    if let Ok(authority) = jwt::verify(&settings.keys, token, &expectation()) {
        believable(&authority);
        let signed = token.rsplit_once('.').map(|(signed, _)| signed);
        assert!(fixture().signed.iter().any(|known| Some(known.as_str()) == signed), "a forged JWT");
    }
}

/// A macaroon: the bytes of one, or a caveat that its holder adds to a good one.
fn macaroon_token(data: &[u8]) {
    let settings = fixture().service.snapshot();
    let judged = |token: &str| {
        let parts = macaroon::Parts::split(token, settings.macaroon_prefix());
        parts.and_then(|parts| macaroon::verify(&settings.secrets, &parts, &expectation()).ok())
    };
    match data.split_first() {
        Some((b'+', caveat)) => {
            let whole = judged(&fixture().macaroon).expect("a good macaroon");
            let Some(narrowed) = judged(&with_caveat(&fixture().macaroon, caveat)) else {
                return;
            };
            believable(&narrowed);
            assert!(
                whole.scopes.grant_all(&narrowed.scopes) && narrowed.expires <= whole.expires,
                "it got wider"
            );
            assert_eq!((&narrowed.key_id, narrowed.visibility), (&whole.key_id, whole.visibility));
        }
        _ => {
            if let Some(authority) = judged(&fixture::encoded(data)) {
                believable(&authority);
            }
        }
    }
}

/// A macaroon with one more caveat, as its holder adds it: no secret is needed.
fn with_caveat(token: &str, caveat: &[u8]) -> String {
    const TAIL: usize = 1 + 2 + 32; // the end of the caveats, then the signature
    let mut bytes = fixture::decoded(token);
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
    fixture::encoded(&bytes)
}

/// A page token; and whatever cursor, sealed and opened.
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

/// A list filter: it means the same when it is written down again.
fn filter(data: &[u8]) {
    let Some(filter) = std::str::from_utf8(data).ok().and_then(|text| parse_filter(text).ok()) else {
        return;
    };
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let actor = filter.actor.as_ref().map(|actor| format!("actor_id = {}", quoted(actor)));
    let status = filter.status.map(|status| format!("status = {}", status.name()));
    let again: Vec<String> = actor.into_iter().chain(status).collect();
    let again = again.join(" AND ");
    // Quotes and backslashes take more room than what was read.
    if again.len() <= crate::service::MAX_FILTER {
        assert_eq!(parse_filter(&again), Ok(filter), "{again}");
    }
}

/// A configuration: read, checked, shown.
fn config(data: &[u8]) {
    match Source::new(None, []).load_text(data) {
        Ok(loaded) => {
            let shown = loaded.config.shown().to_string();
            let secret = loaded.config.secrets.hmac.current.as_ref().map(|secret| secret.expose().to_owned());
            // What a file has twice, once in the clear, isn't given away by us.
            let once = |secret: &String| String::from_utf8_lossy(data).matches(secret.as_str()).count() == 1;
            if let Some(secret) = secret.filter(once) {
                assert!(!shown.contains(&secret), "a secret is shown");
            }
            drop(loaded.origins());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A request, `method host target`, and below it rules, `host methods kind path` each with `-` for what isn't said: decided
/// as the documentation has it.
fn routes(data: &[u8]) {
    let (request, rules) = data.split_at(data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len()));
    let mut request = request.splitn(3, |byte| *byte == b' ');
    let mut next = || request.next().unwrap_or_default();
    let (method, host, target) = (next(), next(), next());
    let rules: Vec<Route> = String::from_utf8_lossy(rules).lines().filter_map(rule).collect();
    // Each is known by its audience.
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

/// A rule as a line, if the configuration may have it.
fn rule(line: &str) -> Option<Route> {
    let mut words = line.splitn(4, ' ').map(|word| Some(word).filter(|word| *word != "-"));
    let mut next = || words.next().flatten();
    let (host, methods, kind, path) = (next(), next(), next(), next());
    let methods: Vec<&str> = methods.into_iter().flat_map(|methods| methods.split(',')).collect();
    let path = kind.map(|kind| serde_json::json!({ kind: path }));
    serde_json::from_value(serde_json::json!({ "host": host, "methods": methods, "path": path })).ok()
}

/// What may be an Envoy's dump, for `talos doctor`: each finding says where and why, and its fix is YAML.
fn doctor_json(data: &[u8]) {
    let Ok(document) = serde_json::from_slice(data) else {
        return;
    };
    let document = from_bootstrap(document);
    let (peer, xff) = (Authz::default(), Authz { client_address: ClientAddress::Xff, ..Authz::default() });
    let clusters = ["talos".to_owned()];
    let compared = [&peer, &xff].map(|authz| Question { clusters: &clusters, authz: Some(authz) });
    for question in [Question::default()].into_iter().chain(compared) {
        let report = match examine(&document, question) {
            Ok(report) => report,
            Err(NotADump) => return,
        };
        for finding in &report.findings {
            assert!(!finding.path.is_empty() && !finding.why.is_empty(), "{finding:?}");
            let fix: Result<serde_json::Value, _> = serde_norway::from_str(&finding.fix);
            assert!(fix.is_ok(), "{finding:?}");
        }
        assert!(report.findings.is_sorted_by_key(|finding| finding.severity));
        assert_eq!(examine(&document, question), Ok(report), "it says the same again");
    }
}

/// Elements of `x-forwarded-client-cert` as Envoy writes them, made by OpenSSL.
const FORWARDED: &str = include_str!("../tests/vectors/forwarded_certificates.txt");

/// Feeds `x-forwarded-client-cert`, a header a line: only certificates that are known name anybody,
/// and what stands before an element doesn't change who it names.
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

/// Feeds a client's certificate in DER: names that are read are of one kind each.
fn client_certificate(data: &[u8]) {
    let shown = [rustls::pki_types::CertificateDer::from(data)];
    let Some(certificate) = tls::client_certificate(Some(&shown)) else {
        return;
    };
    if let Ok(names) = &certificate.names {
        assert!(names.iter().all(|name| !name.is_empty()), "{names:?}");
    }
}

/// What is asked of each token.
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

/// What holds of every authority that we believe in.
fn believable(authority: &Authority) {
    assert!(authority.expires > NOW && authority.issuer == ISSUER);
}
