//! The server that a command calls, with all that is needed to connect to it.

use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::secret::SecretString;

/// A server to call.
#[derive(Default)]
pub(super) struct Server {
    /// Base URL, or `unix://` and the path of a socket.
    pub endpoint: String,
    /// CA certificates in PEM form that verify the server; none: the system's.
    pub ca_cert: Option<Vec<u8>>,
    /// Client certificate chain and private key in PEM form.
    pub identity: Option<Zeroizing<Vec<u8>>>,
    /// Bearer token.
    pub token: Option<SecretString>,
    /// Host name of the network that requests are for.
    pub network: Option<String>,
}

impl Server {
    /// Creates a server that needs nothing but its endpoint.
    #[cfg(test)]
    pub(super) fn at(endpoint: impl Into<String>) -> Self {
        Self { endpoint: endpoint.into(), ..Self::default() }
    }

    /// Returns the path of the socket of a `unix://` endpoint.
    pub(super) fn socket(&self) -> Option<PathBuf> {
        self.endpoint.trim().strip_prefix("unix://").map(PathBuf::from)
    }
}
