//! TLS of the listeners: certificates from files, replaced while connections stay open.

mod names;
mod pem;
mod system;
mod trust;
mod validity;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ServerConfig, VerifierBuilderError, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, crypto, version};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

pub use system::SystemIssuers;
pub use trust::ClientTrust;
pub use validity::{Validity, problem_of_cas};

use crate::caller::Certificate;
use crate::clock::{Clock, Timestamp};
use crate::config::Tls;

/// Files of a listener that can't be used. Holds nothing of their content.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("{path}: {source}")]
    File {
        /// Path of the file.
        path: String,
        /// Reason of the operating system.
        source: std::io::Error,
    },
    /// The content of a file can't be used.
    #[error("{path}: {problem}")]
    Content {
        /// Path of the file.
        path: String,
        /// Reason.
        problem: &'static str,
    },
    /// The certificate and the key can't be used together.
    #[error("{cert_file} and {key_file}: {problem}")]
    Pair {
        /// Path of the certificate.
        cert_file: String,
        /// Path of the key.
        key_file: String,
        /// Reason.
        problem: String,
    },
    /// The client CAs can't be used.
    #[error("{path}: {problem}")]
    ClientCas {
        /// Path of the file.
        path: String,
        /// Reason.
        problem: VerifierBuilderError,
    },
    /// A new certificate has expired, while the one in force expires later.
    #[error("{path}: the certificate expired at {}", expired.to_rfc3339())]
    Expired {
        /// Path of the file.
        path: String,
        /// Time of expiry.
        expired: Timestamp,
    },
}

/// Application protocols of a listener (ALPN), the preferred one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2 or HTTP/1.1.
    Http,
    /// HTTP/2 only.
    Http2,
}

impl Alpn {
    fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Self::Http => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Self::Http2 => vec![b"h2".to_vec()],
        }
    }
}

/// TLS files of a listener.
#[derive(Debug, Clone)]
pub struct Files {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

impl Files {
    /// The configured files; None without TLS.
    pub fn new(tls: &Tls) -> Option<Self> {
        let (cert, key) = (tls.cert_file.clone()?, tls.key_file.clone()?);
        Some(Self { cert, key, client_ca: tls.client_ca_file.clone() })
    }

    /// Path of the client CAs.
    pub fn client_ca(&self) -> Option<&Path> {
        self.client_ca.as_deref()
    }

    /// Paths of the files.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.cert, &self.key].into_iter().chain(&self.client_ca)
    }
}

/// Certificate and client CAs of a listener. A handshake uses those that are in force when it
/// begins.
pub struct Identity {
    files: Files,
    alpn: Alpn,
    clock: Clock,
    in_force: ArcSwap<ActiveTls>,
    /// Number of times that the client CAs were replaced.
    client_cas: watch::Sender<u64>,
}

/// TLS configuration in force.
struct ActiveTls {
    config: Arc<ServerConfig>,
    validity: Validity,
    /// Hash of the content of all files.
    content: [u8; 32],
    /// None when clients need no certificate.
    verifier: Option<ClientVerifier>,
}

/// Verifier of client certificates.
struct ClientVerifier {
    verifier: Arc<dyn ClientCertVerifier>,
    /// Hash of the CAs, in the order of the file.
    cas: [u8; 32],
}

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    /// When a file can't be read, or the files can't be used together.
    pub fn read(files: Files, alpn: Alpn, clock: Clock) -> Result<Self, TlsError> {
        let in_force = ArcSwap::from_pointee(build(&files, alpn, &clock)?);
        Ok(Self { files, alpn, clock, in_force, client_cas: watch::Sender::new(0) })
    }

    /// Reads the files again. Returns whether their content has changed. Open connections keep the
    /// certificate with which they began, unless the new client CAs don't trust their client: see
    /// [`ClientTrust`].
    ///
    /// # Errors
    /// As [`Identity::read`], and when the new certificate has expired. Then nothing changes.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let new = build(&self.files, self.alpn, &self.clock)?;
        if new.content == self.in_force.load().content {
            return Ok(false);
        }
        let expires = new.validity.expires;
        if expires <= self.clock.now() && expires <= self.expires() {
            let path = self.files.cert.display().to_string();
            return Err(TlsError::Expired { path, expired: expires });
        }
        let cas = |in_force: &ActiveTls| in_force.verifier.as_ref().map(|verifier| verifier.cas);
        let have_cas_changed = cas(&new) != cas(&self.in_force.load());
        self.in_force.store(Arc::new(new));
        if have_cas_changed {
            self.client_cas.send_modify(|number| *number += 1);
        }
        Ok(true)
    }

    /// Number of the client CAs in force, with notifications of changes. To be called before a
    /// handshake begins.
    pub fn client_cas(&self) -> watch::Receiver<u64> {
        self.client_cas.subscribe()
    }

    /// Returns true if the client CAs in force trust this chain.
    fn trusts(&self, chain: &[CertificateDer<'_>]) -> bool {
        let in_force = self.in_force.load();
        let (Some(client), Some((leaf, intermediates))) = (&in_force.verifier, chain.split_first()) else {
            return true;
        };
        let now = Time(self.clock.clone()).current_time();
        now.is_some_and(|now| client.verifier.verify_client_cert(leaf, intermediates, now).is_ok())
    }

    /// Configuration of the next handshake.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.in_force.load().config)
    }

    /// Expiry of the certificate in force.
    pub fn expires(&self) -> Timestamp {
        self.validity().expires
    }

    /// Validity of the certificate in force.
    pub fn validity(&self) -> Validity {
        self.in_force.load().validity
    }

    /// Files that it is read from.
    pub fn files(&self) -> &Files {
        &self.files
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Identity({:?})", self.files)
    }
}

/// Names and expiry in a client's certificate; None without one.
pub fn client_certificate(chain: Option<&[CertificateDer<'_>]>) -> Option<Certificate> {
    chain?.first().map(|certificate| names::read(certificate))
}

/// Reads a PEM text that holds exactly one certificate; None for any other text.
pub fn certificate_in(pem: &[u8]) -> Option<(Certificate, CertificateDer<'static>)> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let [der] = <[_; 1]>::try_from(certificates.ok()?).ok()?;
    Some((names::read(&der), der))
}

/// Builds the configuration of a listener from its files.
fn build(files: &Files, alpn: Alpn, clock: &Clock) -> Result<ActiveTls, TlsError> {
    let chain = pem::certificates(&files.cert)?;
    let key = pem::key(&files.key)?;
    let mut content = Sha256::new();
    for part in chain.iter().map(|certificate| &certificate[..]).chain([key.secret_der()]) {
        content.update(Sha256::digest(part));
    }
    let validity = chain.first().map_or_else(|| Validity::read(&[]), |leaf| Validity::read(leaf));
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_details(Arc::clone(&provider), Arc::new(Time(clock.clone())))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(|error| pair_error(files, &error))?;
    let mut client = None;
    let builder = match &files.client_ca {
        Some(path) => {
            let roots = pem::certificates(path)?;
            let mut cas = Sha256::new();
            roots.iter().for_each(|root| cas.update(Sha256::digest(root)));
            let cas: [u8; 32] = cas.finalize().into();
            content.update(cas);
            let roots = Arc::new(client_cas(path, roots)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            let fail = |problem| TlsError::ClientCas { path: path.display().to_string(), problem };
            let verifier = verifier.map_err(fail)?;
            client = Some(ClientVerifier { verifier: Arc::clone(&verifier), cas });
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| pair_error(files, &error))?;
    config.alpn_protocols = alpn.protocols();
    if files.client_ca.is_some() {
        // A resumed session presents no certificate, which could have expired meanwhile.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(ActiveTls { config: Arc::new(config), validity, content: content.finalize().into(), verifier: client })
}

fn pair_error(files: &Files, error: &rustls::Error) -> TlsError {
    TlsError::Pair {
        cert_file: files.cert.display().to_string(),
        key_file: files.key.display().to_string(),
        problem: match error {
            rustls::Error::InconsistentKeys(_) => "the key isn't that of the certificate".to_owned(),
            // What else the library says of a key that it can't read.
            rustls::Error::General(_) => {
                "the key can't be used: it must be RSA of 2048 to 8192 bits, ECDSA (P-256, P-384 or P-521) or Ed25519"
                    .to_owned()
            }
            error => error.to_string(),
        },
    }
}

fn client_cas(path: &Path, certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let problem = "a certificate in it can't be read";
        let content = |_| TlsError::Content { path: path.display().to_string(), problem };
        roots.add(certificate).map_err(content)?;
    }
    Ok(roots)
}

/// Clock in the form that rustls needs.
struct Time(Clock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().as_secs()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Time")
    }
}

#[cfg(test)]
mod tests;
