//! Inputs of a client with TLS: handshakes that come to nothing, and records that are next to
//! nothing.

use tokio::io::AsyncWriteExt;

use super::client::{Input, Pace, Plane, Style};
use super::frames::{Check, hello, stream};
use super::patient;
use crate::rig::authority::Authority;
use crate::rig::http::Version;
use crate::rig::support::Must;
use crate::rig::talos::Talos;
use crate::rig::tls::{Client, NAME};

/// Bytes of a record that has a KeyUpdate and nothing else.
const KEY_UPDATE: usize = 5 + 5 + 1 + 16;

/// A process whose authz plane has TLS.
pub async fn start() -> (Talos, Check, Plane) {
    let authority = Authority::new();
    let client = Client::trusting(&authority);
    let setup = patient().tls("AUTHZ", &authority.issue(NAME, 2100));
    let talos = setup.start_until(async |talos| client.grpc(talos.authz).await.is_ok()).await;
    let mut check = Check::new(&talos).await;
    check.tls = Some(client.clone());
    let plane = Plane { name: "authz with TLS", base: talos.authz, tls: Some(client) };
    (talos, check, plane)
}

/// Over connections that are secure already.
pub fn record_inputs(check: &Check) -> Vec<Input> {
    let small = check.honest();
    vec![Input { name: "Checks in records of 10 bytes".to_owned(), record: Some(32), ..small }]
}

/// A connection for each.
pub fn handshake_inputs(check: &Check, plane: &Plane) -> Vec<Input> {
    let whole = plane.tls.as_ref().must("TLS").hello();
    let raw = |name: &str, style: Style, bytes: Vec<u8>| {
        Input::new(name, vec![], style, move |_| bytes.clone()).raw()
    };
    let left = check.clone();
    vec![
        raw("half a handshake", Style::Reconnects, whole.clone()),
        raw("half a handshake, nothing waited for", Style::Leaves, whole.clone()),
        raw("a ClientHello in records of a byte", Style::Reconnects, in_records(&whole, 1)),
        raw("a ClientHello in records of 16 bytes", Style::Reconnects, in_records(&whole, 16)),
        raw("half a ClientHello", Style::Leaves, whole[..whole.len() / 2].to_vec()),
        raw(
            "a ClientHello that announces 16 MB",
            Style::Leaves,
            record(22, &[&[1, 0xff, 0xff, 0xff][..], &[0; 300]].concat()),
        ),
        raw(
            "30 KB of a ClientHello",
            Style::Leaves,
            [record(22, &[&[1, 0, 0xfd, 0xe8][..], &[0; 15_000]].concat()), record(22, &[0; 15_000])]
                .concat(),
        ),
        raw("a ClientHello twice", Style::Reconnects, whole.repeat(2)),
        raw("alerts", Style::Reconnects, record(21, &[1, 0]).repeat(50)),
        raw("records of nothing", Style::Reconnects, record(22, &[]).repeat(50)),
        raw("no TLS", Style::Reconnects, hello(&[])),
        // Few bytes a connection: rustls ends it after 32 new keys without content.
        Input::new("new keys without end", hello(&[]), Style::RenewsKeys, |_| vec![]),
        Input::new("handshakes without a word", vec![], Style::Leaves, |_| vec![]),
        Input::new("handshakes and bytes that are no frames", vec![], Style::Reconnects, |_| vec![0xff; 300]),
        Input::new("a Check whose answer isn't waited for", hello(&[]), Style::Leaves, move |n| {
            left.on(stream(n % 2))
        }),
    ]
}

/// A record of TLS.
fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).must("a short record").to_be_bytes();
    [&[kind, 3, 1][..], &length, content].concat()
}

/// Returns the handshake in records of at most `bytes`.
fn in_records(handshake: &[u8], bytes: usize) -> Vec<u8> {
    handshake[5..].chunks(bytes).map(|part| record(22, part)).collect::<Vec<_>>().concat()
}

/// Sends new keys over one connection, until `budget` bytes are sent or the server ends it.
pub async fn renew_keys(plane: &Plane, opening: &[u8], budget: usize, pace: &Pace, bytes: &mut usize) {
    let client = plane.tls.as_ref().must("TLS");
    let Ok(mut stream) = client.connect(plane.base, Version::Http2).await else {
        return;
    };
    *bytes += opening.len();
    if stream.write_all(opening).await.is_err() {
        return;
    }
    while *bytes < budget {
        pace.bytes(KEY_UPDATE).await;
        let renewed = stream.get_mut().1.refresh_traffic_keys();
        if renewed.is_err() || stream.flush().await.is_err() {
            return;
        }
        *bytes += KEY_UPDATE;
    }
}
