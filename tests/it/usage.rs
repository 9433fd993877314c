//! Usage: every Check is counted once, whatever happens to the database; a process that is killed
//! loses its last interval.

mod cli;
mod exact;
mod killed;
mod outage;
mod report;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::rig::http::Base;
use crate::rig::support::{Must, until};
use crate::rig::talos::{Setup, Talos};

/// Path of the report.
pub const USAGE: &str = "/v2alpha1/admin/usage";

/// A process that writes what it counts soon.
fn setup() -> Setup {
    Setup::new().set("TALOS_USAGE_FLUSH_INTERVAL", "100ms")
}

/// The rows of a report.
async fn rows(talos: &Talos, query: &str) -> Vec<Value> {
    let report = talos.admin.get(&format!("{USAGE}?{query}")).await.expect(200).json();
    report["rows"].as_array().must("rows").clone()
}

/// The number of all Checks that the database has, of those that the filter selects.
async fn total(talos: &Talos, filter: &str) -> u64 {
    let rows = rows(talos, &format!("filter={filter}")).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows[0]["count"].as_u64().must("a number")
}

/// Waits until the database has this number.
async fn counted(talos: &Talos, filter: &str, expected: u64) {
    until(&format!("{expected} Checks are counted"), async || {
        let total = total(talos, filter).await;
        assert!(total <= expected, "{total} of {expected}: some are counted twice");
        (total == expected).then_some(())
    })
    .await;
}

/// A client of Envoy that keeps its connection.
struct Sender {
    requests: http2::SendRequest<Empty<Bytes>>,
    edge: Base,
}

impl Sender {
    async fn connect(edge: Base) -> Sender {
        let stream = TcpStream::connect(edge.0).await.must("connecting to Envoy");
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (requests, connection) = handshake.must("HTTP/2");
        tokio::spawn(connection);
        Sender { requests, edge }
    }

    /// Sends a request with a credential; returns the status.
    async fn send(&mut self, credential: &str) -> u16 {
        let request = Request::get(self.edge.url("/orders"))
            .header("authorization", format!("Bearer {credential}"))
            .body(Empty::new())
            .must("a request");
        let response = self.requests.send_request(request).await.must("a response");
        let status = response.status().as_u16();
        response.into_body().collect().await.must("its body");
        status
    }
}
