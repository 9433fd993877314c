//! Connections of one listener, accepted within bounds and made secure: what serves them sees a stream and who is at
//! its other end.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::bounds::{ACCEPT_PAUSE, HANDSHAKE_TIMEOUT, MAX_CONNECTIONS, MAX_PER_ADDRESS};
use super::listeners::{Listener, ParkedSocket, Socket};
use super::recheck::Rechecked;
use crate::caller::{Peer, network_of};
use crate::telemetry::connections::{Connections, Refused};
use crate::tls::{ClientTrust, Identity, client_certificate};

/// Both directions of a connection, over whatever it goes.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A listener, what it shows its clients, and what they take of it.
pub struct Acceptor {
    plane: &'static str,
    listener: Listener,
    identity: Option<Arc<Identity>>,
    places: Arc<Semaphore>,
    addresses: Arc<Addresses>,
    counted: Connections,
}

/// A connection that isn't secure yet, if it is to be. [`Incoming::open`] belongs into a task of its own, as it takes
/// as long as the client likes, within a bound.
pub struct Incoming {
    socket: Socket,
    peer: Peer,
    place: Place,
    identity: Option<Arc<Identity>>,
}

/// A connection to be served. Its place is given up when [`Place`] is dropped.
pub struct Connection {
    /// What comes and goes.
    pub stream: Box<dyn Stream>,
    /// Who is there.
    pub peer: Peer,
    /// What it takes of the listener's bounds.
    pub place: Place,
}

/// One connection's share of what a listener bears.
pub struct Place {
    plane: &'static str,
    counted: Connections,
    addresses: Arc<Addresses>,
    address: Option<IpAddr>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Acceptor {
    /// A listener of this plane; with TLS if there is an identity.
    pub fn new(
        plane: &'static str,
        listener: Listener,
        identity: Option<Arc<Identity>>,
        counted: Connections,
    ) -> Self {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Self { plane, listener, identity, places, addresses: Arc::default(), counted }
    }

    /// What it shows its clients; None without TLS.
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.identity.clone()
    }

    /// The next connection. Nothing is lost when it isn't waited for to the end.
    pub async fn accept(&self) -> Incoming {
        loop {
            // The semaphore is never closed; were it, nothing would be bounded any more, but served.
            let permit = Arc::clone(&self.places).acquire_owned().await.ok();
            let (socket, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(plane = self.plane, %error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let address = peer.address.map(network_of);
            if !self.addresses.enter(address) {
                self.counted.refused(self.plane, Refused::TooMany);
                continue;
            }
            self.counted.opened(self.plane);
            let place = Place {
                plane: self.plane,
                counted: self.counted.clone(),
                addresses: Arc::clone(&self.addresses),
                address,
                _permit: permit,
            };
            return Incoming { socket, peer, place, identity: self.identity.clone() };
        }
    }
}

/// An [`Incoming`] on its way to another runtime.
pub struct Parked {
    socket: ParkedSocket,
    peer: Peer,
    place: Place,
    identity: Option<Arc<Identity>>,
}

impl Parked {
    /// Puts it onto the runtime that this is called in.
    ///
    /// # Errors
    /// When the system says so.
    pub fn resume(self) -> std::io::Result<Incoming> {
        let Self { socket, peer, place, identity } = self;
        Ok(Incoming { socket: socket.resume()?, peer, place, identity })
    }
}

impl Incoming {
    /// Takes it off the runtime that it was accepted in.
    ///
    /// # Errors
    /// When the system says so.
    pub fn park(self) -> std::io::Result<Parked> {
        let Self { socket, peer, place, identity } = self;
        Ok(Parked { socket: socket.park()?, peer, place, identity })
    }

    /// Shakes hands, where the listener has TLS. None when the client didn't do so in time, or isn't to be trusted.
    pub async fn open(self) -> Option<Connection> {
        let Self { socket, mut peer, place, identity } = self;
        let stream: Box<dyn Stream> = match (identity, socket) {
            (None, Socket::Tcp(stream)) => Box::new(stream),
            (None, Socket::Unix(stream)) => Box::new(stream),
            (Some(identity), Socket::Tcp(stream)) => place.secure(&identity, stream, &mut peer).await?,
            (Some(identity), Socket::Unix(stream)) => place.secure(&identity, stream, &mut peer).await?,
        };
        Some(Connection { stream, peer, place })
    }
}

impl Place {
    async fn secure<S: Stream + 'static>(
        &self,
        identity: &Arc<Identity>,
        stream: S,
        peer: &mut Peer,
    ) -> Option<Box<dyn Stream>> {
        let verified_by = identity.client_cas();
        let shaking_hands = TlsAcceptor::from(identity.config()).accept(stream);
        let shaken = timeout(HANDSHAKE_TIMEOUT, shaking_hands).await;
        let stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                self.counted.refused(self.plane, Refused::Handshake);
                self.tell(peer, &error);
                return None;
            }
            Err(_) => {
                self.counted.refused(self.plane, Refused::SlowHandshake);
                self.tell(peer, &"it took too long");
                return None;
            }
        };
        let shown = stream.get_ref().1.peer_certificates();
        peer.certificate = client_certificate(shown).map(Arc::new);
        let Some(trust) = ClientTrust::of(identity, shown, verified_by) else {
            return Some(Box::new(stream));
        };
        let (counted, plane, address) = (self.counted.clone(), self.plane, peer.address);
        let lost = async move {
            trust.lost().await;
            counted.refused(plane, Refused::Untrusted);
            let address = address.map(tracing::field::display);
            tracing::info!(
                plane,
                address,
                "a connection is closed: the client CAs were replaced, and its certificate is no longer trusted"
            );
        };
        Some(Box::new(Rechecked::new(stream, lost)))
    }

    /// Counts that the connection is closed before its time.
    pub fn refused(&self, why: Refused) {
        self.counted.refused(self.plane, why);
    }

    /// Anybody can make a handshake fail: it's the metric that tells how many do.
    fn tell(&self, peer: &Peer, problem: &dyn std::fmt::Display) {
        let address = peer.address.map(tracing::field::display);
        tracing::debug!(plane = self.plane, address, %problem, "a TLS handshake failed");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.addresses.leave(self.address);
        self.counted.closed(self.plane);
    }
}

/// How many connections each address has.
#[derive(Default)]
struct Addresses(Mutex<HashMap<IpAddr, u32>>);

impl Addresses {
    /// Counts one more; false when it has as many as it may have.
    fn enter(&self, address: Option<IpAddr>) -> bool {
        let Some(address) = address else {
            return true;
        };
        let mut counts = self.0.lock();
        let count = counts.entry(address).or_default();
        let fits = *count < MAX_PER_ADDRESS;
        *count += u32::from(fits);
        fits
    }

    fn leave(&self, address: Option<IpAddr>) {
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
    fn an_address_has_its_share_and_gives_it_back() {
        let addresses = Addresses::default();
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|text| Some(text.parse().unwrap()));
        for _ in 0..MAX_PER_ADDRESS {
            assert!(addresses.enter(one));
        }
        assert!(!addresses.enter(one));
        assert!(addresses.enter(other) && addresses.enter(None));
        addresses.leave(one);
        assert!(addresses.enter(one));
        for _ in 0..MAX_PER_ADDRESS {
            addresses.leave(one);
        }
        addresses.leave(other);
        addresses.leave(None);
        assert!(addresses.0.lock().is_empty());
    }
}
