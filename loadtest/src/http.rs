//! One HTTP/1.1 connection.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::Failure;

/// A connection that asks one thing at a time.
pub struct Http {
    host: String,
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Http {
    /// Connects.
    pub async fn connect(address: &str) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(connection);
        Ok(Self { host: address.to_owned(), sender })
    }

    /// Sends a request and reads its answer to the end.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<(u16, Bytes), Failure> {
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
        let answer = self.sender.send_request(request.body(body)?).await?;
        let status = answer.status().as_u16();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    /// Asks the admin plane; the answer must have this status.
    pub async fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        expected: u16,
    ) -> Result<Value, Failure> {
        let (status, answer) = self.send(method, path, &[], body).await?;
        if status != expected {
            let text = String::from_utf8_lossy(&answer);
            return Err(format!("{method} {path}: {status} instead of {expected}: {text}").into());
        }
        Ok(serde_json::from_slice(&answer).unwrap_or(Value::Null))
    }
}
