//! Verifies certificates of connected clients again when the client CAs are replaced.

use std::future::pending;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use super::Identity;

/// A client's certificate chain, verified again whenever the listener's client CAs are replaced.
pub struct ClientTrust {
    identity: Arc<Identity>,
    chain: Vec<CertificateDer<'static>>,
    /// Number of the client CAs that last verified the chain.
    client_cas: watch::Receiver<u64>,
}

impl ClientTrust {
    /// The chain of a client whose handshake began after `client_cas` was subscribed to; None when
    /// the client needs no certificate.
    pub fn new(
        identity: &Arc<Identity>,
        chain: Option<&[CertificateDer<'_>]>,
        client_cas: watch::Receiver<u64>,
    ) -> Option<Self> {
        let chain: Vec<_> = chain?.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Some(Self { identity: Arc::clone(identity), chain, client_cas })
    }

    /// Resolves once the certificate is no longer trusted.
    pub async fn revoked(mut self) {
        // The sender lives as long as the identity, which is held here.
        while self.client_cas.changed().await.is_ok() {
            if !self.identity.trusts(&self.chain) {
                return;
            }
        }
        pending().await
    }
}
