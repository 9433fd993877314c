//! Certificates made for the occasion.

use rcgen::{CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

use crate::rig::support::Must;

/// An authority and what it signs.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(vec![]).must("parameters of an authority");
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Talos tests");
        let key = KeyPair::generate().must("a key");
        Authority(CertifiedIssuer::self_signed(params, key).must("an authority"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues certificate and key for a name, valid until `year`.
    pub fn issue(&self, name: &str, year: i32) -> (String, String) {
        self.sign(CertificateParams::new(vec![name.to_owned()]).must("parameters"), year)
    }

    /// Issues certificate and key of a client with these names, valid until `year`. Its subject is
    /// the first of them.
    pub fn client(&self, names: Vec<SanType>, year: i32) -> (String, String) {
        let mut params = CertificateParams::new(vec![]).must("parameters");
        if let Some(SanType::DnsName(name)) = names.first() {
            params.distinguished_name.push(DnType::CommonName, name.as_str());
        }
        params.subject_alt_names = names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, year)
    }

    fn sign(&self, mut params: CertificateParams, year: i32) -> (String, String) {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().must("a key");
        let certificate = params.signed_by(&key, &self.0).must("a certificate");
        (certificate.pem(), key.serialize_pem())
    }
}

pub fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().must(name))
}

pub fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().must(name))
}

/// Returns the `x-forwarded-client-cert` that Envoy writes for a client's certificate, with `names`
/// as it would write them.
pub fn forwarded(pem: &str, names: &str) -> String {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).must("a certificate");
    let hash: String = Sha256::digest(&der).iter().map(|byte| format!("{byte:02x}")).collect();
    let encoded = pem.bytes().map(|byte| match byte {
        b'\n' | b' ' | b'+' | b'/' | b'=' => format!("%{byte:02X}"),
        byte => char::from(byte).to_string(),
    });
    format!("By=spiffe://test/gateway;Hash={hash};Cert=\"{}\";{names}", encoded.collect::<String>())
}
