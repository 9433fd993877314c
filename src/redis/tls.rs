//! Certificates for the connection to Redis.

use ::redis::{ClientTlsConfig, TlsCertificates};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::settings::{RedisSettingsError, RedisTls};

/// Converts TLS settings for the library.
///
/// # Errors
/// When the CA file has no certificate, which the library would accept.
pub(super) fn certificates(tls: &RedisTls) -> Result<TlsCertificates, RedisSettingsError> {
    if tls.ca.as_ref().is_some_and(|ca| CertificateDer::pem_slice_iter(ca).next().is_none()) {
        return Err(RedisSettingsError::Tls("ca_file: has no certificate".to_owned()));
    }
    let client_tls = tls.client.as_ref().map(|(certificate, key)| ClientTlsConfig {
        client_cert: certificate.clone(),
        client_key: key.expose().as_bytes().to_vec(),
    });
    Ok(TlsCertificates { client_tls, root_cert: tls.ca.clone() })
}
