//! Bodies of many clients that don't end: those that find no memory are refused, and the others go
//! on.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{memory_bound, patient};
use crate::rig::http::{Call, Version};
use crate::rig::support::{Must, until, within};
use crate::rig::talos::{JWKS, SELF_REVOKE};

/// More than there is room for: each body is held twice.
const CLIENTS: usize = 450;
/// Bytes of a body, of which the last never comes.
const BODY: usize = 120_000;

#[tokio::test(flavor = "multi_thread")]
async fn bodies_beyond_the_memory_of_the_process_are_refused() {
    let talos = patient().start().await;
    let before = talos.process.memory();
    talos.process.forget_peak();
    let head = format!(
        "POST {SELF_REVOKE} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {BODY}\r\n\r\n"
    );
    let sent = [head.as_bytes(), &vec![b' '; BODY - 1]].concat();
    let mut streams = vec![];
    for _ in 0..CLIENTS {
        let mut stream = TcpStream::connect(talos.public.0).await.must("connecting");
        // One that is refused may be closed before it has said all.
        let _ = stream.write_all(&sent).await;
        streams.push(stream);
    }
    let refused = until("some are refused", async || {
        let page = talos.metrics.get("/metrics").await.text();
        let reset = page.contains("talos_http_refused_total{plane=\"public\",reason=\"memory\"}");
        let is_503 =
            page.lines().any(|line| line.contains("503") && line.starts_with("talos_http_requests_total"));
        (reset || is_503).then_some(())
    });
    refused.await;
    // A health check needs no more than every connection has.
    talos.public.send(Version::Http2, Call::get("/health/alive")).await.expect(200);
    let growth = talos.process.peak_memory().saturating_sub(before);
    println!("{} KiB more", growth / 1024);
    assert!(growth < memory_bound(CLIENTS), "{growth} bytes");
    let mut answers = vec![];
    for mut stream in streams.drain(CLIENTS - 50..) {
        let mut answer = vec![];
        let _ = within("an answer", stream.read_to_end(&mut answer)).await;
        answers.push(String::from_utf8_lossy(&answer).into_owned());
    }
    let refused = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 503 ")).count();
    println!("{refused} of the last 50 are refused with 503");
    assert!(refused > 0, "{:?}", answers.first());
    drop(streams);
    // The memory of their bodies is free again.
    until("a request is answered", async || {
        let body = serde_json::json!({ "credential": "a".repeat(100_000) });
        let reply = talos.public.send(Version::Http1, Call::post(SELF_REVOKE).json(&body)).await;
        (reply.status == 400).then_some(())
    })
    .await;
    talos.public.send(Version::Http2, Call::get(JWKS)).await.expect(200);
}
