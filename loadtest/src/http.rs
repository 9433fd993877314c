//! One HTTP/1.1 connection.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::LoadError;

/// A connection with one request at a time.
pub(crate) struct Http {
    host: String,
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Http {
    /// Opens a connection.
    pub(crate) async fn connect(address: &str) -> Result<Self, LoadError> {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(connection);
        Ok(Self { host: address.to_owned(), sender })
    }

    /// Sends further requests to this host.
    pub(crate) fn set_host(&mut self, host: &str) {
        host.clone_into(&mut self.host);
    }

    /// Returns the connection, for requests to this host.
    pub(crate) fn with_host(mut self, host: &str) -> Self {
        self.set_host(host);
        self
    }

    /// Sends a request and reads the whole response.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<(u16, Bytes), LoadError> {
        let mut request = http::Request::builder().method(method).uri(path).header("host", &self.host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Full::from(body.to_string())
            }
            None => Full::default(),
        };
        self.sender.ready().await?;
        let response = self.sender.send_request(request.body(body)?).await?;
        let status = response.status().as_u16();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }

    /// Calls the admin plane.
    ///
    /// # Errors
    /// Fails when the response doesn't have the expected status.
    pub(crate) async fn call(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        expected: u16,
    ) -> Result<Value, LoadError> {
        let (status, response) = self.send(method, path, &[], body).await?;
        if status != expected {
            let text = String::from_utf8_lossy(&response);
            return Err(format!("{method} {path}: {status} instead of {expected}: {text}").into());
        }
        Ok(serde_json::from_slice(&response).unwrap_or(Value::Null))
    }
}
