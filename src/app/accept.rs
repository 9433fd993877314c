//! Accepts the connections of one listener within its limits, and completes their TLS handshake.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::end_when::EndWhen;
use super::handshake_limit::HandshakeLimit;
use super::limits::{
    ACCEPT_RETRY_DELAY, MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ADDRESS, TLS_HANDSHAKE_TIMEOUT,
};
use super::listeners::{DetachedSocket, Listener, Socket};
use super::stream::{HookedStream, Stream};
use crate::caller::{Peer, network_of};
use crate::plane::Plane;
use crate::telemetry::connections::{ConnectionRefusal, Connections};
use crate::tls::{ClientTrust, Identity, client_certificate};

/// A listener with its certificate and its limits.
pub(super) struct Acceptor {
    plane: Plane,
    listener: Listener,
    identity: Option<Arc<Identity>>,
    permits: Arc<Semaphore>,
    addresses: Arc<AddressCounts>,
    metrics: Connections,
}

/// An accepted connection before its TLS handshake.
pub(super) struct Accepted {
    socket: Socket,
    peer: Peer,
    guard: ConnectionGuard,
    identity: Option<Arc<Identity>>,
}

/// A connection that is ready to be served.
pub(super) struct Connection {
    /// Decrypted bytes of both directions.
    pub stream: Box<dyn Stream>,
    /// The other end.
    pub peer: Peer,
    /// Counts the connection as open until it is dropped.
    pub guard: ConnectionGuard,
}

/// Counts one open connection against the limits of its listener. Dropping it ends that.
pub(super) struct ConnectionGuard {
    plane: Plane,
    metrics: Connections,
    addresses: Arc<AddressCounts>,
    address: Option<IpAddr>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Acceptor {
    /// Accepts for a plane; with TLS if there is an identity.
    pub(super) fn new(
        plane: Plane,
        listener: Listener,
        identity: Option<Arc<Identity>>,
        metrics: Connections,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Self { plane, listener, identity, permits, addresses: Arc::default(), metrics }
    }

    /// The plane whose connections it accepts.
    pub(super) fn plane(&self) -> Plane {
        self.plane
    }

    /// Certificate and client CAs; None without TLS.
    pub(super) fn identity(&self) -> Option<Arc<Identity>> {
        self.identity.clone()
    }

    /// Accepts the next connection. Cancel-safe: no connection is lost.
    pub(super) async fn accept(&self) -> Accepted {
        loop {
            // The semaphore is never closed. If it were, connections would be served without limit.
            let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
            let (socket, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    let plane = self.plane.name();
                    tracing::warn!(plane, %error, "accepting a connection failed; trying again");
                    sleep(ACCEPT_RETRY_DELAY).await;
                    continue;
                }
            };
            let address = peer.address.map(network_of);
            if !self.addresses.acquire(address) {
                self.metrics.refused(self.plane, ConnectionRefusal::TooManyConnections);
                continue;
            }
            self.metrics.opened(self.plane);
            let guard = ConnectionGuard {
                plane: self.plane,
                metrics: self.metrics.clone(),
                addresses: Arc::clone(&self.addresses),
                address,
                _permit: permit,
            };
            return Accepted { socket, peer, guard, identity: self.identity.clone() };
        }
    }
}

/// An accepted connection that belongs to no runtime, to be sent to another one.
pub(super) struct Detached {
    socket: DetachedSocket,
    peer: Peer,
    guard: ConnectionGuard,
    identity: Option<Arc<Identity>>,
}

impl Detached {
    /// Registers the connection with the current runtime.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub(super) fn attach(self) -> std::io::Result<Accepted> {
        let Self { socket, peer, guard, identity } = self;
        Ok(Accepted { socket: socket.attach()?, peer, guard, identity })
    }
}

impl Accepted {
    /// Takes the connection off the runtime that accepted it.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub(super) fn detach(self) -> std::io::Result<Detached> {
        let Self { socket, peer, guard, identity } = self;
        Ok(Detached { socket: socket.detach()?, peer, guard, identity })
    }

    /// Completes the TLS handshake, where the listener has TLS; None when that fails or takes too
    /// long. Belongs in a task of its own, as the client sets the pace.
    pub(super) async fn handshake(self) -> Option<Connection> {
        let Self { socket, mut peer, guard, identity } = self;
        let stream: Box<dyn Stream> = match (identity, socket) {
            (None, Socket::Tcp(stream)) => Box::new(stream),
            (None, Socket::Unix(stream)) => Box::new(stream),
            (Some(identity), Socket::Tcp(stream)) => guard.secure(&identity, stream, &mut peer).await?,
            (Some(identity), Socket::Unix(stream)) => guard.secure(&identity, stream, &mut peer).await?,
        };
        Some(Connection { stream, peer, guard })
    }
}

impl ConnectionGuard {
    /// Makes the TLS handshake. The stream ends when the client CAs are replaced by some that don't
    /// trust the client's certificate. None if the handshake fails.
    async fn secure<S: Stream + 'static>(
        &self,
        identity: &Arc<Identity>,
        stream: S,
        peer: &mut Peer,
    ) -> Option<Box<dyn Stream>> {
        let client_cas = identity.client_cas();
        let stream = HookedStream::new(stream, HandshakeLimit::new());
        let handshake = TlsAcceptor::from(identity.config()).accept(stream).into_fallible();
        let mut stream = match timeout(TLS_HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err((error, mut stream))) => {
                self.count_refused(ConnectionRefusal::HandshakeFailed);
                match stream.hook_mut().is_reached() {
                    true => self.log_failed_handshake(peer, &"larger than 32 KiB"),
                    false => self.log_failed_handshake(peer, &error),
                }
                return None;
            }
            Err(_) => {
                self.count_refused(ConnectionRefusal::SlowHandshake);
                self.log_failed_handshake(peer, &"timed out");
                return None;
            }
        };
        stream.get_mut().0.hook_mut().complete();
        let chain = stream.get_ref().1.peer_certificates();
        peer.certificate = client_certificate(chain).map(Arc::new);
        let Some(trust) = ClientTrust::new(identity, chain, client_cas) else {
            return Some(Box::new(stream));
        };
        let (metrics, plane, address) = (self.metrics.clone(), self.plane, peer.address);
        let revoked = async move {
            trust.revoked().await;
            metrics.refused(plane, ConnectionRefusal::Untrusted);
            let address = address.map(tracing::field::display);
            tracing::info!(
                plane = plane.name(),
                address,
                "connection closed: the client CAs were replaced, and the new ones don't trust its certificate"
            );
        };
        Some(Box::new(HookedStream::new(stream, EndWhen::new(revoked))))
    }

    /// Counts that the server closes the connection early.
    pub(super) fn count_refused(&self, reason: ConnectionRefusal) {
        self.metrics.refused(self.plane, reason);
    }

    /// Logs at debug level only: anybody can make handshakes fail, and a metric counts them.
    fn log_failed_handshake(&self, peer: &Peer, problem: &dyn std::fmt::Display) {
        let address = peer.address.map(tracing::field::display);
        tracing::debug!(plane = self.plane.name(), address, %problem, "TLS handshake failed");
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.addresses.release(self.address);
        self.metrics.closed(self.plane);
    }
}

/// Number of open connections of each address.
#[derive(Default)]
struct AddressCounts(Mutex<HashMap<IpAddr, u32>>);

impl AddressCounts {
    /// Counts one more; false when the address has reached its limit.
    fn acquire(&self, address: Option<IpAddr>) -> bool {
        let Some(address) = address else {
            return true;
        };
        let mut counts = self.0.lock();
        let count = counts.entry(address).or_default();
        let fits = *count < MAX_CONNECTIONS_PER_ADDRESS;
        *count += u32::from(fits);
        fits
    }

    fn release(&self, address: Option<IpAddr>) {
        let mut counts = self.0.lock();
        if let Some(Entry::Occupied(mut entry)) = address.map(|address| counts.entry(address)) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_an_address_are_limited() {
        let addresses = AddressCounts::default();
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|text| Some(text.parse().unwrap()));
        for _ in 0..MAX_CONNECTIONS_PER_ADDRESS {
            assert!(addresses.acquire(one));
        }
        assert!(!addresses.acquire(one));
        assert!(addresses.acquire(other) && addresses.acquire(None));
        addresses.release(one);
        assert!(addresses.acquire(one));
        for _ in 0..MAX_CONNECTIONS_PER_ADDRESS {
            addresses.release(one);
        }
        addresses.release(other);
        addresses.release(None);
        assert!(addresses.0.lock().is_empty());
    }
}
