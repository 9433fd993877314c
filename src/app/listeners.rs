//! Listening sockets. All are bound before any plane is served, so a bad address stops the start.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream, lookup_host};

use super::limits::LISTEN_BACKLOG;
use crate::caller::Peer;
use crate::config::listen_address;
use crate::plane::Plane;

/// A listening socket.
pub(super) enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

/// The socket of an accepted connection.
pub(super) enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

/// Section of the configuration that sets a plane's listener.
pub(super) fn setting(plane: Plane) -> String {
    format!("serve.{}", plane.section())
}

/// Raises the soft limit of open files, and so of connections, to the hard limit.
pub(super) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // A refusal leaves the soft limit, which is enough to serve.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

impl Socket {
    /// Takes the socket off the runtime that accepted it.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub(super) fn detach(self) -> std::io::Result<DetachedSocket> {
        match self {
            Self::Tcp(stream) => stream.into_std().map(DetachedSocket::Tcp),
            Self::Unix(stream) => stream.into_std().map(DetachedSocket::Unix),
        }
    }
}

/// A socket that belongs to no runtime.
pub(super) enum DetachedSocket {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixStream),
}

impl DetachedSocket {
    /// Registers the socket with the current runtime.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub(super) fn attach(self) -> std::io::Result<Socket> {
        match self {
            Self::Tcp(stream) => TcpStream::from_std(stream).map(Socket::Tcp),
            Self::Unix(stream) => UnixStream::from_std(stream).map(Socket::Unix),
        }
    }
}

/// Listens on the first of the name's addresses that can be bound.
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
    // A restarted process can bind while connections of the last one are in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}

/// A listener that can't be bound.
#[derive(Debug, thiserror::Error)]
#[error("serve.{}: can't listen on {address}: {source}{}", plane.section(), self.cure())]
pub struct BindError {
    plane: Plane,
    address: String,
    source: std::io::Error,
}

impl BindError {
    /// Returns true if another process listens there.
    pub fn is_in_use(&self) -> bool {
        self.source.kind() == ErrorKind::AddrInUse
    }

    /// Advice, after a semicolon.
    fn cure(&self) -> String {
        let section = self.plane.section();
        match self.source.kind() {
            ErrorKind::AddrInUse if self.address.contains('/') => {
                format!("; end the process that listens there, or set another serve.{section}.socket")
            }
            ErrorKind::AddrInUse => {
                format!("; end the process that listens there, or set another serve.{section}.port")
            }
            ErrorKind::AddrNotAvailable => {
                format!("; set serve.{section}.host to an address of this machine")
            }
            ErrorKind::PermissionDenied if self.address.contains('/') => {
                "; let this user write to its directory".to_owned()
            }
            ErrorKind::PermissionDenied => {
                "; only root, or a process with CAP_NET_BIND_SERVICE, may use a port below 1024".to_owned()
            }
            _ => String::new(),
        }
    }
}

impl Listener {
    /// Binds a TCP address and closes it again. Returns the address.
    ///
    /// # Errors
    /// As [`Listener::tcp`].
    pub(super) async fn probe(plane: Plane, host: &str, port: u16) -> Result<String, BindError> {
        let address = listen_address(host, port);
        match bind(&address).await {
            Ok(_) => Ok(address),
            Err(source) => Err(BindError { plane, address, source }),
        }
    }

    /// Binds a TCP address.
    ///
    /// # Errors
    /// When the address is in use, doesn't belong to this machine, or can't be resolved.
    pub(super) async fn tcp(plane: Plane, host: &str, port: u16) -> Result<Self, BindError> {
        let address = listen_address(host, port);
        let bound = bind(&address).await.map_err(|source| BindError { plane, address, source })?;
        if let Ok(address) = bound.local_addr() {
            tracing::info!(plane = plane.name(), %address, setting = setting(plane), "listening");
        }
        Ok(Self::Tcp(bound))
    }

    /// Binds a Unix socket, and replaces a socket file on which no process listens any more.
    ///
    /// # Errors
    /// When the socket is in use, or the file can't be made.
    pub(super) async fn unix(plane: Plane, path: &Path) -> Result<Self, BindError> {
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
        let setting = format!("{}.socket", setting(plane));
        tracing::info!(plane = plane.name(), path = %path.display(), setting, "listening");
        Ok(Self::Unix(bound))
    }

    /// Accepts the next connection, with what the operating system knows of the other end.
    ///
    /// # Errors
    /// When file descriptors are used up, or the client has already reset the connection.
    pub(super) async fn accept(&self) -> std::io::Result<(Socket, Peer)> {
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
