//! Whether a client that was let in would be let in again: its certificate's issuer may have been
//! replaced since.

use std::future::pending;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use super::Identity;

/// A client's certificate, to be verified anew whenever the listener's client CAs are replaced.
pub struct ClientTrust {
    identity: Arc<Identity>,
    chain: Vec<CertificateDer<'static>>,
    /// The number of the client CAs that it was verified by last.
    verified_by: watch::Receiver<u64>,
}

impl ClientTrust {
    /// What a client has shown in a handshake that began when `verified_by` was taken; None when it
    /// wasn't asked for a certificate.
    pub fn new(
        identity: &Arc<Identity>,
        shown: Option<&[CertificateDer<'_>]>,
        verified_by: watch::Receiver<u64>,
    ) -> Option<Self> {
        let chain: Vec<_> = shown?.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Some(Self { identity: Arc::clone(identity), chain, verified_by })
    }

    /// Resolves once the certificate isn't trusted any more.
    pub async fn revoked(mut self) {
        // The sender ends with the identity, which this holds.
        while self.verified_by.changed().await.is_ok() {
            if !self.identity.trusts(&self.chain) {
                return;
            }
        }
        pending().await
    }
}
