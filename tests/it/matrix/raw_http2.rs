//! HTTP/2 in forms that no client library sends.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::http::Base;
use crate::rig::support::{Must, within};

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_OF_STREAM_AND_HEADERS: u8 = 5;
/// `:status: 200` in HPACK's static table.
const STATUS_200: u8 = 0x88;

/// Sends a GET with these headers, valid or not, and fails if it is answered with 200.
pub async fn assert_refused(base: Base, path: &str, headers: &[(&str, &str)]) {
    let mut block = vec![];
    let authority = base.0.to_string();
    let pseudo = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", &authority)];
    for (name, value) in pseudo.iter().chain(headers) {
        // A literal that isn't indexed, its texts as they are.
        block.push(0);
        text(name, &mut block);
        text(value, &mut block);
    }
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frame(SETTINGS, 0, 0, &[], &mut request);
    frame(HEADERS, END_OF_STREAM_AND_HEADERS, 1, &block, &mut request);
    within("a raw HTTP/2 request", exchange(base, &request)).await;
}

async fn exchange(base: Base, request: &[u8]) {
    let mut stream = TcpStream::connect(base.0).await.must("connecting");
    stream.write_all(request).await.must("sending");
    let mut head = [0; 9];
    // Until something is said about the request, if only by closing the connection.
    while stream.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length.try_into().must("a length")];
        stream.read_exact(&mut payload).await.must("a whole frame");
        match head[3] {
            HEADERS => {
                assert_ne!(payload.first(), Some(&STATUS_200), "the request was answered with 200");
                return;
            }
            RST_STREAM | GOAWAY => return,
            _ => {}
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).must("a short frame").to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

fn text(text: &str, out: &mut Vec<u8>) {
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 127);
    match length {
        Some(length) => out.push(length),
        None => {
            let rest = u8::try_from(text.len() - 127).ok().filter(|rest| *rest < 128);
            out.extend_from_slice(&[127, rest.must("a text shorter than 255 bytes")]);
        }
    }
    out.extend_from_slice(text.as_bytes());
}
