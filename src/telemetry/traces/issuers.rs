//! Issuers that a collector's certificate may come from.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};

use super::{TracesError, variable_text};

/// Variables of the standard that name a file of issuers, the more special first.
const VARIABLES: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];

/// Makes the TLS settings: the issuers of the standard's variables, else those of the system, which
/// `SSL_CERT_FILE` replaces.
///
/// # Errors
/// When a file that a variable names can't be read.
pub(super) fn tls_config() -> Result<ClientTlsConfig, TracesError> {
    let named = VARIABLES.iter().find_map(|variable| Some((*variable, variable_text(variable)?)));
    if let Some((variable, file)) = named {
        let pem =
            std::fs::read(&file).map_err(|source| TracesError::Certificate { variable, file, source })?;
        return Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)));
    }
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let reasons: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        tracing::warn!(
            reasons = reasons.join("; "),
            "the system has no issuers of certificates: no collector is trusted; name a file by SSL_CERT_FILE"
        );
    }
    let pem = |der: &[u8]| {
        let text = STANDARD.encode(der);
        Certificate::from_pem(format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n"))
    };
    Ok(ClientTlsConfig::new().ca_certificates(found.certs.iter().map(|der| pem(der))))
}
