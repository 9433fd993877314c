//! Reasons within a certificate for which every peer refuses it.

use std::path::Path;

use x509_parser::parse_x509_certificate;
use x509_parser::x509::X509Version;

use super::pem;
use crate::clock::Timestamp;

/// Times between which a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Beginning.
    pub begins: Timestamp,
    /// End.
    pub expires: Timestamp,
}

impl Validity {
    /// Reads a certificate, without verifying it. One that can't be read has expired.
    pub(super) fn read(der: &[u8]) -> Self {
        let Ok(([], certificate)) = parse_x509_certificate(der) else {
            return Self { begins: Timestamp::from_secs(0), expires: Timestamp::from_secs(0) };
        };
        let validity = certificate.validity();
        Self {
            begins: Timestamp::from_secs(validity.not_before.timestamp()),
            expires: Timestamp::from_secs(validity.not_after.timestamp()),
        }
    }
}

/// Returns what is wrong with the CAs in a PEM file; None if one of them is good, or the file can't
/// be read.
///
/// TLS doesn't compare the end of a CA with the time, but what it issues hardly outlives it.
pub fn problem_of_cas(path: &Path, now: Timestamp) -> Option<String> {
    let certificates = pem::certificates(path).ok()?;
    let issuers = certificates.iter().filter(|der| is_issuer(der));
    match issuers.map(|der| Validity::read(der).expires).max() {
        None => Some("holds the certificate of a client or a server, and no CA".to_owned()),
        Some(last) if last <= now => {
            let at = last.to_rfc3339();
            Some(format!("the CA expired at {at}: hardly a certificate that it issued is still valid"))
        }
        Some(_) => None,
    }
}

/// Returns true for the certificate of a CA, for a self-signed one, which is its own CA, and for
/// one of version 1, which doesn't say what it is.
fn is_issuer(der: &[u8]) -> bool {
    parse_x509_certificate(der).is_ok_and(|(_, certificate)| {
        certificate.is_ca()
            || certificate.version() == X509Version::V1
            || certificate.subject().as_raw() == certificate.issuer().as_raw()
    })
}
