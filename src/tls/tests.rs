use std::fs;

use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tempfile::TempDir;

use super::*;
use crate::caller::{Names, UnusableNames};

/// A pair, valid from 2020 until `year`.
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
fn only_exact_names_count() {
    let read = |names| names::read(&pair(names, 2100).0).names;
    let of = |uri: Option<&str>, dns: &[&str]| {
        Ok(Names { uri: uri.map(str::to_owned), dns: dns.iter().map(|&name| name.to_owned()).collect() })
    };
    assert_eq!(
        read(vec![uri("spiffe://a/b"), dns("One"), dns("two")]),
        of(Some("spiffe://a/b"), &["one", "two"])
    );
    assert_eq!(read(vec![dns("one"), SanType::IpAddress([127, 0, 0, 1].into())]), of(None, &["one"]));
    // A subject is no name.
    assert_eq!(read(vec![]), Err(UnusableNames::None));
    assert_eq!(read(vec![SanType::IpAddress([127, 0, 0, 1].into())]), Err(UnusableNames::None));
    assert_eq!(read(vec![uri("spiffe://a"), uri("spiffe://b")]), Err(UnusableNames::ManyUris));
    assert_eq!(read(vec![uri("spiffe://a\0b")]), Err(UnusableNames::BadCharacter));
    assert_eq!(read(vec![dns("one"), dns("two\0.evil")]), Err(UnusableNames::BadCharacter));
    assert_eq!(names::read(b"nonsense").names, Err(UnusableNames::Malformed));
}

struct Place {
    dir: TempDir,
    clock: Clock,
}

impl Place {
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

fn place() -> Place {
    let now = Timestamp::from_rfc3339("2026-01-01T00:00:00Z").unwrap();
    Place { dir: tempfile::tempdir().unwrap(), clock: Clock::manual(now) }
}

#[test]
fn what_is_wrong_with_the_files_is_told_and_nothing_of_them() {
    let place = place();
    let (_, certificate, key) = pair(vec![dns("one")], 2100);
    let (_, _, other_key) = pair(vec![dns("one")], 2100);
    let told = |place: &Place, client_ca| place.read(client_ca).err().unwrap().to_string();

    assert!(told(&place, None).contains("/cert: No such file"));
    place.put("cert", &certificate);
    assert!(told(&place, None).contains("/key: No such file"));
    for (key, problem) in [
        ("hunter2", "/key: has no unencrypted private key"),
        (&certificate, "/key: has no unencrypted private key"),
        (&other_key, "the key isn't that of the certificate"),
    ] {
        place.put("key", key);
        let told = told(&place, None);
        assert!(told.contains(problem) && !told.contains("hunter2"), "{told}");
    }
    place.put("key", &key);
    place.read(None).unwrap();
    place.put("ca", &key);
    assert!(told(&place, Some("ca")).contains("/ca: has no certificate"));
    place.put("ca", &certificate.replace("MII", "***"));
    assert!(told(&place, Some("ca")).contains("/ca: is malformed"));
}

#[test]
fn a_bad_pair_changes_nothing_and_a_good_one_takes_its_place() {
    let place = place();
    let put = |(_, certificate, key): (Vec<u8>, String, String)| {
        place.put("cert", &certificate);
        place.put("key", &key);
    };
    put(pair(vec![dns("one")], 2027));
    let identity = place.read(None).unwrap();
    let first = identity.config();
    assert_eq!(identity.expires().to_rfc3339(), "2027-01-01T00:00:00Z");

    place.put("key", "nonsense");
    assert!(identity.reload().is_err());
    put(pair(vec![dns("one")], 2025));
    let told = identity.reload().unwrap_err().to_string();
    assert!(told.contains("expired at 2025-01-01T00:00:00Z"), "{told}");
    assert!(Arc::ptr_eq(&identity.config(), &first));

    put(pair(vec![dns("one")], 2030));
    assert!(identity.reload().unwrap());
    assert!(!identity.reload().unwrap(), "the same again");
    assert!(!Arc::ptr_eq(&identity.config(), &first));
    assert_eq!(identity.expires().to_rfc3339(), "2030-01-01T00:00:00Z");
}

#[test]
fn sessions_are_not_taken_up_again_where_certificates_are_asked_for() {
    let place = place();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let (_, certificate, key) = pair(vec![dns("one")], 2100);
    place.put("cert", &certificate);
    place.put("key", &key);
    place.put("ca", &authority.pem());
    let config = place.read(Some("ca")).unwrap().config();
    assert!(!config.session_storage.can_cache());
    assert_eq!(config.send_tls13_tickets, 0);
    assert!(!config.ticketer.enabled());
}
