//! Address of the server under test.

use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::LoadError;

/// A TCP address, or `unix:` and the path of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Tcp(String),
    Unix(PathBuf),
}

impl FromStr for Target {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.strip_prefix("unix:") {
            Some(path) => Self::Unix(path.into()),
            None => Self::Tcp(text.to_owned()),
        })
    }
}

/// A connection of either kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send {}
impl<S: AsyncRead + AsyncWrite + Send> Stream for S {}

impl Target {
    /// Opens a connection.
    pub(crate) async fn connect(&self) -> Result<Pin<Box<dyn Stream>>, LoadError> {
        match self {
            Self::Tcp(address) => {
                let stream =
                    TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
                stream.set_nodelay(true)?;
                Ok(Box::pin(stream))
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                Ok(Box::pin(stream.map_err(|error| format!("{}: {error}", path.display()))?))
            }
        }
    }
}
