//! TLS of the listeners: certificates read from files, put in the place of older ones while connections go on.

mod names;
mod pem;
mod trust;

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

pub use trust::ClientTrust;

use crate::caller::Certificate;
use crate::clock::{Clock, Timestamp};
use crate::config::Tls;

/// Why the files of a listener can't be used. Tells nothing of what is in them.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("{path}: {source}")]
    File {
        /// Its path.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file isn't what it should be.
    #[error("{path}: {problem}")]
    Content {
        /// Its path.
        path: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The certificate and the key can't be used together.
    #[error("{cert_file} and {key_file}: {problem}")]
    Pair {
        /// The certificate's path.
        cert_file: String,
        /// The key's path.
        key_file: String,
        /// What is wrong.
        problem: String,
    },
    /// The issuers of clients can't be used.
    #[error("{path}: {problem}")]
    Issuers {
        /// Their path.
        path: String,
        /// What is wrong.
        problem: VerifierBuilderError,
    },
    /// It has ended, and the one in force has not.
    #[error("{path}: the certificate expired at {}", expired.to_rfc3339())]
    Expired {
        /// Its path.
        path: String,
        /// When.
        expired: Timestamp,
    },
}

/// The protocols that a listener speaks above TLS, the preferred one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2 or HTTP/1.1.
    Http,
    /// HTTP/2 alone.
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

/// The files of a listener with TLS.
#[derive(Debug, Clone)]
pub struct Files {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

impl Files {
    /// Those that a listener's settings name; None when it has no TLS.
    pub fn of(tls: &Tls) -> Option<Self> {
        let (cert, key) = (tls.cert_file.clone()?, tls.key_file.clone()?);
        Some(Self { cert, key, client_ca: tls.client_ca_file.clone() })
    }

    /// Their paths.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.cert, &self.key].into_iter().chain(&self.client_ca)
    }
}

/// What a listener shows its clients and asks of them. Every handshake uses what is in force when it begins.
pub struct Identity {
    files: Files,
    alpn: Alpn,
    clock: Clock,
    in_force: ArcSwap<InForce>,
    /// How often the client CAs have been replaced.
    client_cas: watch::Sender<u64>,
}

struct InForce {
    config: Arc<ServerConfig>,
    expires: Timestamp,
    /// Hash of all that it was made of.
    content: [u8; 32],
    /// None when no certificates of clients are asked for.
    verifier: Option<ClientVerifier>,
}

/// What clients' certificates are verified by.
struct ClientVerifier {
    verifier: Arc<dyn ClientCertVerifier>,
    /// Hash of the CAs, in order.
    cas: [u8; 32],
}

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    /// When one can't be read or used, or they don't go together.
    pub fn read(files: Files, alpn: Alpn, clock: Clock) -> Result<Self, TlsError> {
        let in_force = ArcSwap::from_pointee(build(&files, alpn, &clock)?);
        Ok(Self { files, alpn, clock, in_force, client_cas: watch::Sender::new(0) })
    }

    /// Reads the files again; says whether they are others than those in force. Connections that
    /// there are go on with what they began with, but for those of clients whose certificates the
    /// new client CAs don't vouch for: see [`ClientTrust`].
    ///
    /// # Errors
    /// As [`Identity::read`], and when the certificate has expired: then what is in force stays.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let new = build(&self.files, self.alpn, &self.clock)?;
        if new.content == self.in_force.load().content {
            return Ok(false);
        }
        if new.expires <= self.clock.now() && new.expires <= self.expires() {
            let path = self.files.cert.display().to_string();
            return Err(TlsError::Expired { path, expired: new.expires });
        }
        let cas = |in_force: &InForce| in_force.verifier.as_ref().map(|verifier| verifier.cas);
        let are_other_cas = cas(&new) != cas(&self.in_force.load());
        self.in_force.store(Arc::new(new));
        if are_other_cas {
            self.client_cas.send_modify(|number| *number += 1);
        }
        Ok(true)
    }

    /// The number of the client CAs in force, and of those to come. To be taken before a handshake
    /// begins.
    pub fn client_cas(&self) -> watch::Receiver<u64> {
        self.client_cas.subscribe()
    }

    /// Whether a client that shows this chain now is let in.
    fn trusts(&self, chain: &[CertificateDer<'_>]) -> bool {
        let in_force = self.in_force.load();
        let (Some(client), Some((leaf, intermediates))) = (&in_force.verifier, chain.split_first()) else {
            return true;
        };
        let now = Time(self.clock.clone()).current_time();
        now.is_some_and(|now| client.verifier.verify_client_cert(leaf, intermediates, now).is_ok())
    }

    /// For the next handshake.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.in_force.load().config)
    }

    /// When the certificate in force expires.
    pub fn expires(&self) -> Timestamp {
        self.in_force.load().expires
    }

    /// The files that it is made of.
    pub fn files(&self) -> &Files {
        &self.files
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Identity({:?})", self.files)
    }
}

/// What the certificate that a client showed says of it; None without one.
pub fn client_certificate(shown: Option<&[CertificateDer<'_>]>) -> Option<Certificate> {
    shown?.first().map(|certificate| names::read(certificate))
}

/// Reads the one certificate that stands in a text: what it says, and its DER. None when that isn't
/// one.
pub fn certificate_in(pem: &[u8]) -> Option<(Certificate, CertificateDer<'static>)> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let [der] = <[_; 1]>::try_from(certificates.ok()?).ok()?;
    Some((names::read(&der), der))
}

fn build(files: &Files, alpn: Alpn, clock: &Clock) -> Result<InForce, TlsError> {
    let chain = pem::certificates(&files.cert)?;
    let key = pem::key(&files.key)?;
    let mut content = Sha256::new();
    for part in chain.iter().map(|certificate| &certificate[..]).chain([key.secret_der()]) {
        content.update(Sha256::digest(part));
    }
    let leaf = chain.first().map(|leaf| names::read(leaf).expires);
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
            let roots = Arc::new(issuers(path, roots)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            let fail = |problem| TlsError::Issuers { path: path.display().to_string(), problem };
            let verifier = verifier.map_err(fail)?;
            client = Some(ClientVerifier { verifier: Arc::clone(&verifier), cas });
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| pair_error(files, &error))?;
    config.alpn_protocols = alpn.protocols();
    if files.client_ca.is_some() {
        // Who takes an earlier session up again shows no certificate: it could have expired meanwhile.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    let expires = leaf.unwrap_or(Timestamp::from_secs(0));
    Ok(InForce { config: Arc::new(config), expires, content: content.finalize().into(), verifier: client })
}

fn pair_error(files: &Files, error: &rustls::Error) -> TlsError {
    TlsError::Pair {
        cert_file: files.cert.display().to_string(),
        key_file: files.key.display().to_string(),
        problem: match error {
            rustls::Error::InconsistentKeys(_) => "the key isn't that of the certificate".to_owned(),
            error => error.to_string(),
        },
    }
}

fn issuers(path: &Path, certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let problem = "a certificate in it can't be read";
        let content = |_| TlsError::Content { path: path.display().to_string(), problem };
        roots.add(certificate).map_err(content)?;
    }
    Ok(roots)
}

/// The clock, as the library asks it.
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
