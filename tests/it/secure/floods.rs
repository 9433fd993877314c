//! HTTP/2 floods: each ends with its connection, and memory stays where it was.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::http::{Base, Call, Version};
use crate::rig::support::Must;
use crate::rig::talos::{JWKS, Setup};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Most that a flood may make the process grow by, in bytes.
const GROWTH: u64 = 64 * 1024 * 1024;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).must("a small frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET path`, `http`, and an authority, as HPACK literals that aren't indexed.
fn head(path: &str) -> Vec<u8> {
    let literal = |index: u8, value: &str| {
        [&[index, u8::try_from(value.len()).must("short")], value.as_bytes()].concat()
    };
    [&[0x82, 0x86][..], &literal(0x04, path), &literal(0x01, "localhost")].concat()
}

/// A header of this many bytes that isn't indexed.
fn large_header(size: usize) -> Vec<u8> {
    let mut header = vec![0x00, 0x01, b'x'];
    // A length of 7 bits and more (RFC 7541, 5.1).
    let mut rest = size - 127;
    header.push(0x7f);
    while rest >= 128 {
        header.push((rest % 128) as u8 | 0x80);
        rest /= 128;
    }
    header.push(rest as u8);
    header.extend(std::iter::repeat_n(b'a', size));
    header
}

/// Makes the bytes that each round of a flood sends.
type Flood = fn(u32) -> Vec<u8>;

const FLOODS: [(&str, Flood); 5] = [
    ("rapid reset", |round| {
        let stream = round * 2 + 1;
        [frame(1, 0x05, stream, &head(JWKS)), frame(3, 0, stream, &8_u32.to_be_bytes())].concat()
    }),
    ("CONTINUATION without end", |round| match round {
        0 => frame(1, 0x01, 1, &head("/")),
        _ => frame(9, 0, 1, &[]),
    }),
    ("a head without end", |round| match round {
        0 => frame(1, 0x01, 1, &[head("/"), large_header(16_000)].concat()),
        _ => frame(9, 0, 1, &large_header(16_000)),
    }),
    ("resets by error", |round| {
        // A window update of nothing is an error of its stream, which the server has to reset.
        let stream = round * 2 + 1;
        [frame(1, 0x05, stream, &head(JWKS)), frame(8, 0, stream, &[0; 4])].concat()
    }),
    ("pings that nobody reads the answers to", |_| frame(6, 0, 0, &[0; 8])),
];

/// Sends a flood until the connection ends; returns the rounds, and whether a GOAWAY came first.
async fn flood(base: Base, name: &str, next: Flood) -> (u32, bool) {
    let mut stream = TcpStream::connect(base.0).await.must("connecting");
    let (mut reader, mut writer) = stream.split();
    let answers = async {
        let (mut seen, mut answers) = (vec![], [0; 16 * 1024]);
        // Slowly, as somebody would who wants the server to keep its answers.
        while let Ok(read @ 1..) = reader.read(&mut answers).await {
            seen.extend_from_slice(&answers[..read]);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        seen
    };
    let send = async {
        let mut rounds = 0;
        let opening = [PREFACE, &frame(4, 0, 0, &[])].concat();
        if writer.write_all(&opening).await.is_err() {
            return rounds;
        }
        while rounds < 50_000 && writer.write_all(&next(rounds)).await.is_ok() {
            rounds += 1;
        }
        rounds
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), async {
        let (mut seen, mut sent) = (None, None);
        tokio::pin!(answers, send);
        while seen.is_none() || sent.is_none() {
            tokio::select! {
                all = &mut answers, if seen.is_none() => seen = Some(all),
                rounds = &mut send, if sent.is_none() => sent = Some(rounds),
            }
            // A client that was sent away by GOAWAY and still writes is met by a closed connection
            // in the end.
            if seen.is_some() && sent.is_none() {
                sent = Some(u32::MAX);
            }
        }
        (seen.unwrap_or_default(), sent.unwrap_or_default())
    })
    .await;
    let (seen, rounds) = ended.must(&format!("{name}: the server bears it for ever"));
    (rounds, has_goaway(&seen))
}

fn has_goaway(mut answers: &[u8]) -> bool {
    while let [a, b, c, kind, ..] = answers {
        if *kind == 7 {
            return true;
        }
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize + 9;
        answers = answers.get(length..).unwrap_or_default();
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_end_with_the_connection_and_memory_stays() {
    let talos = Setup::new().start().await;
    for (plane, base) in [("public", talos.public), ("admin", talos.admin)] {
        for (name, next) in FLOODS {
            if name.starts_with("pings") {
                continue;
            }
            let before = talos.process.memory();
            let (rounds, goaway) = flood(base, name, next).await;
            let growth = talos.process.memory().saturating_sub(before);
            println!(
                "{plane}: {name}: ended after {rounds} rounds, GOAWAY {goaway}, {} KiB more",
                growth / 1024
            );
            assert!(growth < GROWTH, "{plane}: {name}: {growth} bytes");
            base.send(Version::Http2, Call::get("/health/alive")).await.expect(200);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_and_long_heads_cost_no_memory() {
    let talos = Setup::new().start().await;
    let before = talos.process.memory();
    let mut stream = TcpStream::connect(talos.public.0).await.must("connecting");
    stream.write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat()).await.must("writing");
    let (_, ping) = FLOODS[4];
    let many: Vec<u8> = (0..1_000).flat_map(ping).collect();
    for _ in 0..200 {
        // The client doesn't read the answers, so the server stops reading in the end.
        let written = tokio::time::timeout(Duration::from_millis(200), stream.write_all(&many)).await;
        if !matches!(written, Ok(Ok(()))) {
            break;
        }
    }
    let growth = talos.process.memory().saturating_sub(before);
    assert!(growth < GROWTH, "{growth} bytes");

    // HTTP/1.1: a head that never ends, and one of very many lines.
    for line in ["a", "x: y\r\n"] {
        let mut stream = TcpStream::connect(talos.public.0).await.must("connecting");
        stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n").await.must("writing");
        let chunk = line.repeat(16 * 1024);
        let mut sent = 0;
        while sent < 16 * 1024 * 1024 && stream.write_all(chunk.as_bytes()).await.is_ok() {
            sent += chunk.len();
        }
        assert!(sent < 16 * 1024 * 1024, "a head of {sent} bytes was read");
    }
    let growth = talos.process.memory().saturating_sub(before);
    assert!(growth < GROWTH, "{growth} bytes");
    talos.public.send(Version::Http1, Call::get(JWKS)).await.expect(200);
}
