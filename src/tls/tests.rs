//! Tests of certificates and keys in files, of the names in certificates, and of sessions.

use std::fs;

use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use tempfile::TempDir;

use super::*;
use crate::caller::{Names, UnusableNames};

/// A certificate and its key, valid from 2020 until `year`.
fn pair(names: Vec<SanType>, year: i32) -> (Vec<u8>, String, String) {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.subject_alt_names = names;
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (certificate.der().to_vec(), certificate.pem(), key.serialize_pem())
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

#[test]
fn only_exact_names_are_read() {
    let read = |names| names::read(&pair(names, 2100).0).names;
    let of = |uri: Option<&str>, dns: &[&str]| {
        Ok(Names { uri: uri.map(str::to_owned), dns: dns.iter().map(|&name| name.to_owned()).collect() })
    };
    assert_eq!(
        read(vec![uri("spiffe://a/b"), dns("One"), dns("two")]),
        of(Some("spiffe://a/b"), &["one", "two"])
    );
    assert_eq!(read(vec![dns("one"), SanType::IpAddress([127, 0, 0, 1].into())]), of(None, &["one"]));
    // The subject is not used.
    assert_eq!(read(vec![]), Err(UnusableNames::None));
    assert_eq!(read(vec![SanType::IpAddress([127, 0, 0, 1].into())]), Err(UnusableNames::None));
    assert_eq!(read(vec![uri("spiffe://a"), uri("spiffe://b")]), Err(UnusableNames::ManyUris));
    assert_eq!(read(vec![uri("spiffe://a\0b")]), Err(UnusableNames::BadCharacter));
    assert_eq!(read(vec![dns("one"), dns("two\0.evil")]), Err(UnusableNames::BadCharacter));
    assert_eq!(names::read(b"nonsense").names, Err(UnusableNames::Malformed));
}

struct Dir {
    dir: TempDir,
    clock: Clock,
}

impl Dir {
    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn files(&self, client_ca: Option<&str>) -> Files {
        let path = |name: &str| self.dir.path().join(name);
        Files { cert: path("cert"), key: path("key"), client_ca: client_ca.map(path) }
    }

    fn read(&self, client_ca: Option<&str>) -> Result<Identity, TlsError> {
        Identity::read(self.files(client_ca), Alpn::Http, self.clock.clone())
    }
}

fn dir() -> Dir {
    let now = Timestamp::from_rfc3339("2026-01-01T00:00:00Z").unwrap();
    Dir { dir: tempfile::tempdir().unwrap(), clock: Clock::manual(now) }
}

#[test]
fn errors_name_the_file_and_show_nothing_of_it() {
    let dir = dir();
    let (_, certificate, key) = pair(vec![dns("one")], 2100);
    let (_, _, other_key) = pair(vec![dns("one")], 2100);
    let problem_of = |dir: &Dir, client_ca| dir.read(client_ca).err().unwrap().to_string();

    assert!(problem_of(&dir, None).contains("/cert: No such file"));
    dir.put("cert", &certificate);
    assert!(problem_of(&dir, None).contains("/key: No such file"));
    for (key, problem) in [
        ("hunter2", "/key: has no unencrypted private key"),
        (&certificate, "/key: has no unencrypted private key"),
        (&other_key, "the key isn't that of the certificate"),
    ] {
        dir.put("key", key);
        let text = problem_of(&dir, None);
        assert!(text.contains(problem) && !text.contains("hunter2"), "{text}");
    }
    dir.put("key", &key);
    dir.read(None).unwrap();
    dir.put("ca", &key);
    assert!(problem_of(&dir, Some("ca")).contains("/ca: has no certificate"));
    dir.put("ca", &certificate.replace("MII", "***"));
    assert!(problem_of(&dir, Some("ca")).contains("/ca: is malformed"));
}

#[test]
fn a_byte_order_mark_is_skipped_and_what_cannot_be_read_is_named() {
    let dir = dir();
    let (_, certificate, key) = pair(vec![dns("one")], 2100);
    for (name, text) in [("cert", &certificate), ("key", &key), ("ca", &certificate)] {
        dir.put(name, &format!("\u{feff}{text}"));
    }
    let validity = dir.read(Some("ca")).unwrap().validity();
    assert_eq!(validity.begins.to_rfc3339(), "2020-01-01T00:00:00Z");
    assert_eq!(validity.expires.to_rfc3339(), "2100-01-01T00:00:00Z");

    let wide: Vec<u8> =
        std::iter::once(0xfeff).chain(key.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    fs::write(dir.dir.path().join("key"), wide).unwrap();
    let text = dir.read(None).unwrap_err().to_string();
    assert!(text.contains("/key: is UTF-16: save it as UTF-8"), "{text}");
    dir.put("key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let text = dir.read(None).unwrap_err().to_string();
    assert!(text.contains("/key: the key can't be used: it must be RSA of 2048"), "{text}");
}

/// An authority that is valid until `year`, and a certificate that it issued.
fn authority(year: i32) -> (String, String) {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "an authority");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let issued = CertificateParams::new(vec!["one".to_owned()]).unwrap();
    let issued = issued.signed_by(&KeyPair::generate().unwrap(), &authority).unwrap();
    (authority.pem(), issued.pem())
}

#[test]
fn cas_of_no_use_are_found() {
    let dir = dir();
    let ((good, leaf), (old, _)) = (authority(2100), authority(2025));
    let (_, self_signed, _) = pair(vec![dns("one")], 2100);
    for (text, expected) in [
        (good.clone(), None),
        (self_signed, None),
        (format!("{old}{good}"), None),
        ("nonsense".to_owned(), None),
        (old, Some("the CA expired at 2025-01-01T00:00:00Z")),
        (leaf, Some("holds the certificate of a client or a server")),
    ] {
        let problem = problem_of_cas(&dir.put("ca", &text), dir.clock.now());
        assert_eq!(problem.is_some(), expected.is_some(), "{text}: {problem:?}");
        assert!(problem.unwrap_or_default().starts_with(expected.unwrap_or_default()), "{text}");
    }
}

#[test]
fn a_bad_pair_changes_nothing_and_a_good_one_takes_its_place() {
    let dir = dir();
    let put = |(_, certificate, key): (Vec<u8>, String, String)| {
        dir.put("cert", &certificate);
        dir.put("key", &key);
    };
    put(pair(vec![dns("one")], 2027));
    let identity = dir.read(None).unwrap();
    let first = identity.config();
    assert_eq!(identity.expires().to_rfc3339(), "2027-01-01T00:00:00Z");

    dir.put("key", "nonsense");
    assert!(identity.reload().is_err());
    put(pair(vec![dns("one")], 2025));
    let text = identity.reload().unwrap_err().to_string();
    assert!(text.contains("expired at 2025-01-01T00:00:00Z"), "{text}");
    assert!(Arc::ptr_eq(&identity.config(), &first));

    put(pair(vec![dns("one")], 2030));
    assert!(identity.reload().unwrap());
    assert!(!identity.reload().unwrap(), "the same again");
    assert!(!Arc::ptr_eq(&identity.config(), &first));
    assert_eq!(identity.expires().to_rfc3339(), "2030-01-01T00:00:00Z");
}

#[test]
fn sessions_are_not_resumed_where_clients_need_certificates() {
    let dir = dir();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let (_, certificate, key) = pair(vec![dns("one")], 2100);
    dir.put("cert", &certificate);
    dir.put("key", &key);
    dir.put("ca", &authority.pem());
    let config = dir.read(Some("ca")).unwrap().config();
    assert!(!config.session_storage.can_cache());
    assert_eq!(config.send_tls13_tickets, 0);
    assert!(!config.ticketer.enabled());
}
