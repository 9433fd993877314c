//! TLS to a collector: its issuers, and the certificate that this process shows.

use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig, Identity};

use super::{TracesError, first_variable};
use crate::tls::SystemIssuers;

/// Variables of the standard that name a file of issuers, the more special first.
const ISSUERS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];
/// Variables of the standard that name the client's certificate.
const CERTIFICATES: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"];
/// Variables of the standard that name its private key.
const KEYS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"];

/// Makes the TLS settings: the issuers of the standard's variables, else those of the system, which
/// `SSL_CERT_FILE` replaces, and the client's certificate, if the variables name one.
///
/// # Errors
/// When a file that a variable names can't be read, or one of certificate and key is missing.
pub(super) fn config() -> Result<ClientTlsConfig, TracesError> {
    let config = ClientTlsConfig::new();
    let config = match read(&ISSUERS)? {
        Some(pem) => config.ca_certificate(Certificate::from_pem(pem)),
        None => config.ca_certificates(system_issuers()),
    };
    match (read(&CERTIFICATES)?, read(&KEYS)?) {
        (Some(certificate), Some(key)) => Ok(config.identity(Identity::from_pem(certificate, key))),
        (None, None) => Ok(config),
        (Some(_), None) => Err(TracesError::HalfIdentity { variable: KEYS[1] }),
        (None, Some(_)) => Err(TracesError::HalfIdentity { variable: CERTIFICATES[1] }),
    }
}

/// Reads the file that the first of these variables names.
fn read(variables: &[&'static str]) -> Result<Option<Vec<u8>>, TracesError> {
    let Some((variable, file)) = first_variable(variables) else { return Ok(None) };
    std::fs::read(&file).map(Some).map_err(|source| TracesError::File { variable, file, source })
}

fn system_issuers() -> Vec<Certificate> {
    let SystemIssuers { pem, problems } = SystemIssuers::load();
    if pem.is_empty() {
        tracing::warn!(
            reasons = problems.join("; "),
            "the system has no issuers of certificates: no collector is trusted; name a file by SSL_CERT_FILE"
        );
    }
    pem.into_iter().map(Certificate::from_pem).collect()
}
