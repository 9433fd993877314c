//! Stopping: requests in flight are completed, unless a second signal comes.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::check::Check;
use crate::rig::grpc::Health;
use crate::rig::http::{Base, Call, Version};
use crate::rig::support::{Json, Must, until, within};
use crate::rig::talos::{ISSUED, Talos};

/// An issue request that the server has begun to read and that lacks its end.
struct SlowIssue {
    stream: TcpStream,
    missing: String,
}

impl SlowIssue {
    async fn begin(admin: Base) -> SlowIssue {
        let body = json!({ "name": "slow", "actor_id": "alice" }).to_string();
        let head = format!(
            "POST {ISSUED} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             expect: 100-continue\r\n\r\n",
            admin.0,
            body.len()
        );
        let mut stream = TcpStream::connect(admin.0).await.must("connecting");
        stream.write_all(head.as_bytes()).await.must("sending a request's head");
        // This answer says that the server waits for the body: the request is in flight.
        let mut line = [0; 25];
        within("100 Continue", stream.read_exact(&mut line)).await.must("100 Continue");
        assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
        let (first, missing) = body.split_at(body.len() / 2);
        stream.write_all(first.as_bytes()).await.must("sending half a body");
        SlowIssue { stream, missing: missing.to_owned() }
    }

    async fn finish(mut self) -> Value {
        self.stream.write_all(self.missing.as_bytes()).await.must("sending the rest of a body");
        let mut answer = String::new();
        within("the answer", self.stream.read_to_string(&mut answer)).await.must("reading the answer");
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").must("a body");
        serde_json::from_str(body).must("JSON")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_it_after_all_that_is_in_flight() {
    let mut talos = Talos::start().await;
    let key = talos.issue(json!({})).await;
    let request = Check::bearer(&key.secret).build();

    let mut watch = talos.grpc().await.watch("").await;
    assert_eq!(watch.next().await, Some(Health::Serving));
    let mut issues = Vec::new();
    for _ in 0..8 {
        issues.push(SlowIssue::begin(talos.admin).await);
    }
    let mut checks = Vec::new();
    for _ in 0..2 {
        let grpc = talos.grpc().await;
        for _ in 0..4 {
            checks.push(grpc.check_slowly(&request).await);
        }
        // Answered behind them on the same connection: so the server has seen them.
        grpc.check(&request).await.allowed();
    }

    talos.process.signal(Signal::TERM);
    assert_eq!(watch.next().await, Some(Health::NotServing));
    drop(watch);
    let metrics = talos.metrics;
    until("readiness is off", async || {
        let answer = metrics.try_send(Version::Http1, Call::get("/health/ready")).await;
        answer.map_or(true, |reply| reply.status == 503).then_some(())
    })
    .await;
    assert!(talos.process.ended().is_none(), "it ended with work in flight");

    for check in checks {
        let answer = check.finish().await.must("a Check in flight");
        answer.verdict().must("a Check in flight is decided").allowed();
    }
    for issue in issues {
        let issued = issue.finish().await;
        assert!(issued.text("/secret").starts_with("ory_ak_v1_"), "{issued:#}");
    }
    let status = talos.process.end().await;
    assert_eq!(status.code(), Some(0), "{status}:\n{}", talos.process.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_process_stops_at_once_for_either_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut talos = Talos::start().await;
        // Connections that wait for nothing must not hold it up.
        let idle = talos.grpc().await;
        let _open = TcpStream::connect(talos.admin.0).await.must("connecting");
        idle.health("").await.must("a health check");
        talos.process.signal(signal);
        let status = talos.process.end().await;
        assert_eq!(status.code(), Some(0), "{status}:\n{}", talos.process.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    for second in [Signal::TERM, Signal::INT] {
        let mut talos = Talos::start().await;
        let mut watch = talos.grpc().await.watch("").await;
        assert_eq!(watch.next().await, Some(Health::Serving));
        let in_flight = SlowIssue::begin(talos.admin).await;
        talos.process.signal(Signal::TERM);
        assert_eq!(watch.next().await, Some(Health::NotServing));
        assert!(talos.process.ended().is_none(), "it ended with work in flight");

        let start = Instant::now();
        talos.process.signal(second);
        let status = talos.process.end().await;
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        let log = talos.process.log();
        assert_eq!(status.code(), Some(1), "{status}:\n{log}");
        let name = if second == Signal::TERM { "SIGTERM" } else { "SIGINT" };
        let last = log.lines().last().must("a line");
        assert!(last.contains(name) && last.contains("stopped at once"), "{last}");
        drop(in_flight);
    }
}
