//! Issuers of certificates that the system trusts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Issuers of certificates that the system trusts, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
#[derive(Debug)]
pub struct SystemIssuers {
    /// Certificates, each as PEM that ends with a line ending.
    pub pem: Vec<String>,
    /// Reasons why others can't be read.
    pub problems: Vec<String>,
}

impl SystemIssuers {
    /// Reads the issuers.
    pub fn load() -> Self {
        let found = rustls_native_certs::load_native_certs();
        Self {
            pem: found.certs.iter().map(|certificate| to_pem(certificate)).collect(),
            problems: found.errors.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Encodes a certificate as PEM.
fn to_pem(der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{encoded}\n-----END CERTIFICATE-----\n")
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn several_certificates_in_one_text_are_read_back() {
        let certificates: [Vec<u8>; 3] =
            [vec![0x30, 0x82, 0xff], (0..=255).cycle().take(3_000).collect(), vec![1]];
        let text: String = certificates.iter().map(|der| to_pem(der)).collect();
        let read: Result<Vec<CertificateDer<'_>>, _> =
            CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        let read: Vec<Vec<u8>> = read.unwrap().iter().map(|der| der.to_vec()).collect();
        assert_eq!(read, certificates);
    }
}
