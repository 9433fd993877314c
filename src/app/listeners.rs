//! Sockets, bound before anything is served: what can't be bound stops the start.

use std::net::SocketAddr;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream, lookup_host};

use super::bounds::BACKLOG;
use crate::caller::Peer;
use crate::config::listen_address;

/// A bound socket.
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

/// An accepted connection, as the system gives it.
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

/// As many files, so connections, as the system lets us have: shells and services are often given fewer at first.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Whatever doesn't let us leaves us with what we have.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

impl Socket {
    /// Takes it off the runtime that it was accepted in.
    ///
    /// # Errors
    /// When the system says so.
    pub fn park(self) -> std::io::Result<ParkedSocket> {
        match self {
            Self::Tcp(stream) => stream.into_std().map(ParkedSocket::Tcp),
            Self::Unix(stream) => stream.into_std().map(ParkedSocket::Unix),
        }
    }
}

/// An accepted connection on its way to another runtime.
pub enum ParkedSocket {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixStream),
}

impl ParkedSocket {
    /// Puts it onto the runtime that this is called in.
    ///
    /// # Errors
    /// When the system says so.
    pub fn resume(self) -> std::io::Result<Socket> {
        match self {
            Self::Tcp(stream) => TcpStream::from_std(stream).map(Socket::Tcp),
            Self::Unix(stream) => UnixStream::from_std(stream).map(Socket::Unix),
        }
    }
}

/// Listens on the first of the name's addresses that can be had.
async fn bind(address: &str) -> std::io::Result<TcpListener> {
    let mut problem = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for address in lookup_host(address).await? {
        match listen(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => problem = error,
        }
    }
    Err(problem)
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Those who follow a process needn't wait until its last connections are forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A listener that can't be bound.
#[derive(Debug, thiserror::Error)]
#[error("serve.{plane}: can't listen on {address}: {source}")]
pub struct BindError {
    plane: &'static str,
    address: String,
    source: std::io::Error,
}

impl Listener {
    /// Binds a TCP address.
    ///
    /// # Errors
    /// When it is taken, not ours or not to be resolved.
    pub async fn tcp(plane: &'static str, host: &str, port: u16) -> Result<Self, BindError> {
        let address = listen_address(host, port);
        let bound = bind(&address).await.map_err(|source| BindError { plane, address, source })?;
        if let Ok(address) = bound.local_addr() {
            tracing::info!(plane, %address, "listening");
        }
        Ok(Self::Tcp(bound))
    }

    /// Binds a Unix socket; takes the place of one that nobody listens on any more.
    ///
    /// # Errors
    /// When it is in use or can't be made there.
    pub async fn unix(plane: &'static str, path: &Path) -> Result<Self, BindError> {
        let fail = |source| BindError { plane, address: path.display().to_string(), source };
        if UnixStream::connect(path).await.is_ok() {
            return Err(fail(std::io::ErrorKind::AddrInUse.into()));
        }
        let is_socket = std::fs::symlink_metadata(path)
            .is_ok_and(|file| std::os::unix::fs::FileTypeExt::is_socket(&file.file_type()));
        if is_socket {
            std::fs::remove_file(path).map_err(fail)?;
        }
        let bound = UnixListener::bind(path).map_err(fail)?;
        tracing::info!(plane, path = %path.display(), "listening");
        Ok(Self::Unix(bound))
    }

    /// The next connection, and what the system tells of its other end.
    ///
    /// # Errors
    /// When there is none to be had at the moment (descriptors are used up, or it was reset already).
    pub async fn accept(&self) -> std::io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let address = Some(address.ip().to_canonical());
                Ok((Socket::Tcp(stream), Peer { address, ..Peer::default() }))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let uid = Some(stream.peer_cred()?.uid());
                Ok((Socket::Unix(stream), Peer { uid, ..Peer::default() }))
            }
        }
    }
}
