//! Clients that leave things unfinished, many at once: each is sent away in its time, and the
//! others don't notice.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::rig::authority::Authority;
use crate::rig::check::Check;
use crate::rig::http::{Base, Call, Version};
use crate::rig::support::{Must, until};
use crate::rig::talos::{ISSUED, JWKS, Setup, Talos};
use crate::rig::tls::{Client, NAME};
use crate::wire::call::Good;
use crate::wire::frames::{HEADERS, PREFACE, data, frame, headers, settings};

/// Returns the number of slow connections on a plane. From 1,000 on, the slowest ones are waited
/// for, too.
fn count() -> usize {
    std::env::var("TALOS_TEST_SLOW").map_or(40, |count| count.parse().must("TALOS_TEST_SLOW"))
}

const MANY: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Head,
    Body,
    Idle,
    Handshake,
    Http2,
}

const KINDS: [Kind; 5] = [Kind::Head, Kind::Body, Kind::Idle, Kind::Handshake, Kind::Http2];

/// A client that says too little.
struct Slow {
    kind: Kind,
    /// The bytes that the client sends before it falls silent.
    first: Vec<u8>,
    /// Within how long it is sent away: `app/limits.rs` and `http/body.rs`.
    bound: Duration,
}

impl Slow {
    /// A slow client of an HTTP plane, or of TLS on any plane.
    fn http(kind: Kind) -> Slow {
        let (first, secs) = match kind {
            Kind::Head => (b"GET /health/alive HTTP/1.1\r\nhost: local".to_vec(), 10),
            Kind::Body => (
                b"POST /v2alpha1/apiKeys:selfRevoke HTTP/1.1\r\nhost: localhost\r\n\
                  content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
                    .to_vec(),
                15,
            ),
            Kind::Idle => (b"GET /health/alive HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(), 75),
            // The beginning of a ClientHello.
            Kind::Handshake => (vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01], 5),
            // No request ever. Closed politely: the client has a moment to do it itself.
            Kind::Http2 => ([PREFACE, &settings(&[])].concat(), 75 + 5),
        };
        Slow { kind, first, bound: Duration::from_secs(secs) }
    }

    /// A slow client of the authz plane. It doesn't answer the keepalive's PING either.
    fn grpc(kind: Kind, good: &Good) -> Slow {
        let head = good.head();
        let (first, secs) = match kind {
            Kind::Head => (frame(HEADERS, 0, 1, &head[..head.len() / 2]), 10),
            Kind::Body => ([headers(1, &head), data(1, good.halves().0)].concat(), 30 + 10),
            Kind::Idle => (good.on(1), 30 + 10),
            Kind::Http2 => (vec![], 30 + 10),
            Kind::Handshake => return Slow::http(kind),
        };
        let first = [PREFACE, &settings(&[]), &first].concat();
        Slow { kind, first, bound: Duration::from_secs(secs) }
    }
}

/// Time that a busy machine may take on top.
const SLACK: Duration = Duration::from_secs(6);

/// Opens a connection, says too little, and waits until it is closed.
async fn slow(base: Base, Slow { kind, first, bound }: Slow) -> (Kind, Duration) {
    let mut stream = TcpStream::connect(base.0).await.must("connecting");
    stream.write_all(&first).await.must("writing");
    let began = Instant::now();
    let mut rest = vec![];
    let timeout = bound + SLACK;
    let ended = tokio::time::timeout(timeout, stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "{kind:?} at {} was still open after {timeout:?}", base.0);
    let answer = String::from_utf8_lossy(&rest);
    let is_told = !first.starts_with(b"POST ") || answer.starts_with("HTTP/1.1 408 ");
    assert!(is_told, "{answer}");
    (kind, began.elapsed())
}

/// Number of measurements of the 99th percentile: one pause of the machine would decide a single
/// one.
const TIMES: usize = 5;

/// Returns the median 99th percentile of `count` good requests, one after the other on connections
/// of their own.
async fn p99(count: usize, ask: impl AsyncFn()) -> Duration {
    let mut percentiles = [Duration::ZERO; TIMES];
    for percentile in &mut percentiles {
        let mut times = vec![];
        for _ in 0..count / TIMES {
            let began = Instant::now();
            ask().await;
            times.push(began.elapsed());
        }
        times.sort();
        *percentile = times[times.len() * 99 / 100];
    }
    percentiles.sort();
    percentiles[TIMES / 2]
}

async fn bears(
    talos: &Talos,
    name: &str,
    base: Base,
    (kinds, client): (&[Kind], impl Fn(Kind) -> Slow),
    good: impl AsyncFn(),
) {
    let requests = count().clamp(100, 2_000);
    let quiet = p99(requests, &good).await;
    let before = talos.process.memory();
    let mut slow_ones = JoinSet::new();
    for number in 0..count() {
        let kind = kinds[number % kinds.len()];
        let client = client(kind);
        if count() >= MANY || client.bound < Duration::from_secs(20) {
            slow_ones.spawn(slow(base, client));
        } else {
            // A client that isn't closed within the test, but takes its connection.
            slow_ones.spawn(async move {
                let waited = tokio::time::timeout(Duration::from_secs(15), slow(base, client)).await;
                assert!(waited.is_err(), "{kind:?} was closed before its time: {waited:?}");
                (kind, Duration::ZERO)
            });
        }
    }
    let open = format!("talos_connections{{plane=\"{name}\"}} ");
    until("all of them are there", async || {
        let page = talos.metrics.get("/metrics").await.text();
        let line = page.lines().find_map(|line| line.strip_prefix(open.as_str()));
        // Good requests come and go; so do half-open handshakes, which are soonest sent away.
        (line.and_then(|number| number.parse::<usize>().ok())? >= count() * 3 / 4).then_some(())
    })
    .await;
    let busy = p99(requests, &good).await;
    let memory = talos.process.memory().saturating_sub(before) / 1024 / count() as u64;
    println!(
        "{name}: {} slow connections of {kinds:?}; p99 of {requests} good requests {quiet:?} before, {busy:?} beside \
         them, ratio {:.2}; {memory} KiB a connection",
        count(),
        busy.as_secs_f64() / quiet.as_secs_f64()
    );
    let mut longest = [Duration::ZERO; 5];
    while let Some(done) = slow_ones.join_next().await {
        let (kind, took) = done.must("a slow connection");
        let longest = &mut longest[KINDS.iter().position(|known| *known == kind).must("a kind")];
        *longest = took.max(*longest);
    }
    println!("{name}: closed after at most {longest:?} of {KINDS:?}");
}

/// Starts a process without limits of selfRevoke, which would end slow bodies before the timeouts
/// do.
async fn patient() -> Talos {
    let setup = Setup::new().set("TALOS_SERVE_PUBLIC_SELF_REVOKE_PER_ADDRESS", "0");
    setup.set("TALOS_SERVE_PUBLIC_SELF_REVOKE_TOTAL", "0").start().await
}

const WITHOUT_TLS: [Kind; 4] = [Kind::Head, Kind::Body, Kind::Idle, Kind::Http2];

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_of_the_public_plane_are_disconnected_and_others_are_served() {
    let talos = patient().await;
    bears(&talos, "public", talos.public, (&WITHOUT_TLS, Slow::http), async || {
        talos.public.send(Version::Http1, Call::get(JWKS)).await.expect(200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_of_the_admin_plane_are_disconnected_and_others_are_served() {
    let talos = patient().await;
    bears(&talos, "admin", talos.admin, (&WITHOUT_TLS, Slow::http), async || {
        talos.admin.send(Version::Http1, Call::get(ISSUED)).await.expect(200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_of_the_metrics_plane_are_disconnected_and_others_are_served() {
    let talos = patient().await;
    // Requests to the metrics plane have no body that could be slow.
    let kinds = [Kind::Head, Kind::Idle, Kind::Http2];
    bears(&talos, "metrics", talos.metrics, (&kinds, Slow::http), async || {
        talos.metrics.send(Version::Http1, Call::get("/health/alive")).await.expect(200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_of_the_authz_plane_are_disconnected_and_others_are_served() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "patient").await;
    let key = talos.issue(json!({})).await;
    bears(&talos, "authz", talos.authz, (&WITHOUT_TLS, |kind| Slow::grpc(kind, &good)), async || {
        talos.check(Check::bearer(&key.secret)).await.allowed();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_handshakes_are_disconnected_and_others_are_served() {
    let authority = Authority::new();
    let client = Client::trusting(&authority);
    let pair = authority.issue(NAME, 2100);
    let setup = Setup::new().tls("PUBLIC", &pair).tls("AUTHZ", &pair);
    let talos = setup.start_until(async |talos| client.grpc(talos.authz).await.is_ok()).await;
    bears(&talos, "public", talos.public, (&[Kind::Handshake], Slow::http), async || {
        client.send(talos.public, Version::Http2, Call::get(JWKS)).await.expect(200);
    })
    .await;
    bears(&talos, "authz", talos.authz, (&[Kind::Handshake], Slow::http), async || {
        client.grpc(talos.authz).await.must("connecting").health("").await.must("an answer");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_a_mesh_may_connect_at_once() {
    let talos = Setup::new().start().await;
    let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").must("the kernel's bound");
    let count = allowed.trim().parse::<usize>().must("a number").min(1_000);
    for base in [talos.authz, talos.admin, talos.public] {
        // While it stands still nothing is accepted: all of them have to wait in the kernel's
        // queue.
        talos.process.signal(Signal::STOP);
        let mut waiting = vec![];
        let connecting = async {
            while waiting.len() < count {
                waiting.push(TcpStream::connect(base.0).await.must("connecting"));
            }
        };
        let all = tokio::time::timeout(Duration::from_secs(10), connecting).await;
        talos.process.signal(Signal::CONT);
        assert!(all.is_ok(), "only {} found a place at {}", waiting.len(), base.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn self_revocation_has_limits() {
    let talos = Setup::new()
        .set("TALOS_SERVE_PUBLIC_SELF_REVOKE_PER_ADDRESS", "5")
        .set("TALOS_SERVE_PUBLIC_SELF_REVOKE_TOTAL", "100")
        .start()
        .await;
    let body = json!({ "credential": "unknown" });
    let send = async |base: Base| base.post(crate::rig::talos::SELF_REVOKE, &body).await;
    for number in 0..5 {
        let began = Instant::now();
        // Both planes count together.
        let base = if number % 2 == 0 { talos.public } else { talos.admin };
        send(base).await.expect_error(400, "UNKNOWN_CREDENTIAL");
        assert!(began.elapsed() >= Duration::from_millis(25), "refusals take no less than one step");
    }
    for base in [talos.public, talos.admin] {
        let refused = send(base).await.expect(429);
        let wait: u64 = refused.header("retry-after").must("Retry-After").parse().must("seconds");
        assert!((1..=13).contains(&wait), "{wait}");
        refused.expect_error(429, "TOO_MANY_REQUESTS");
    }
    talos.public.get(JWKS).await.expect(200);
}
