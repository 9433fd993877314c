//! Certificates for the connection to Redis.

use std::path::Path;

use ::redis::{ClientTlsConfig, TlsCertificates};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::settings::{RedisSettingsError, RedisTls};

/// Reads the files of TLS settings, and converts them for the library.
///
/// # Errors
/// When a file can't be read, or the CA file has no certificate, which the library would accept.
pub(super) fn certificates(tls: &RedisTls) -> Result<TlsCertificates, RedisSettingsError> {
    let root_cert = tls.ca_file.as_deref().map(read).transpose()?;
    if root_cert.as_ref().is_some_and(|ca| CertificateDer::pem_slice_iter(ca).next().is_none()) {
        return Err(RedisSettingsError::Tls("ca_file: has no certificate".to_owned()));
    }
    let client_tls = match &tls.client_files {
        Some((certificate, key)) => {
            let client_key = read(key)?;
            if std::str::from_utf8(&client_key).is_err() {
                return Err(RedisSettingsError::Tls("key_file: must be PEM".to_owned()));
            }
            Some(ClientTlsConfig { client_cert: read(certificate)?, client_key })
        }
        None => None,
    };
    Ok(TlsCertificates { client_tls, root_cert })
}

fn read(path: &Path) -> Result<Vec<u8>, RedisSettingsError> {
    std::fs::read(path).map_err(|error| RedisSettingsError::Tls(format!("{}: {error}", path.display())))
}
