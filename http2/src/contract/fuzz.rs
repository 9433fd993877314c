//! The fuzz target: any frames, cut anywhere, keep the contract and the peer's windows.

use bytes::Bytes;

use super::peer::{Breach, OPENING, Peer, Received};
use crate::limits::Limits;

/// Limits that short inputs reach.
const LIMITS: Limits = Limits {
    max_concurrent_streams: 4,
    max_header_list_size: 1_024,
    abuse_budget: 64,
    max_output: 50_000,
    max_pending: 100_000,
    read_ticks: 2,
    write_ticks: 3,
};
/// The response to each request, behind the length of its body.
const RESPONSE: Bytes = Bytes::from_static(&[b'a'; 30_000]);

/// Feeds a session with `data`: a byte that says how input is cut, then frames.
///
/// # Panics
/// Panics when the contract is broken, when the cut changes what is sent, or when a response
/// exceeds the peer's windows.
pub fn check(data: &[u8]) {
    let Some((&cut, frames)) = data.split_first() else {
        return;
    };
    let input = [OPENING, frames].concat();
    let sent = converse(&input, usize::MAX);
    assert_eq!(converse(&input, usize::from(cut).max(1)), sent, "input cut after every {cut} bytes");
    let increments: i64 = frames_of(&input[OPENING.len() - 9..]).map(|frame| increment(&frame)).sum();
    let window = i64::from(u16::MAX) + increments;
    let data = frames_of(&sent).filter(|frame| frame.frame_type == 0).map(|frame| frame.payload.len());
    let data: usize = data.sum();
    assert!(data as i64 <= window, "{data} bytes of DATA, and a window of {window}");
}

/// Returns what a session sends when its input arrives in pieces, and checks the contract at each.
fn converse(input: &[u8], piece: usize) -> Vec<u8> {
    let mut peer = Peer::open(LIMITS, RESPONSE).recording();
    if let Err(breach) = feed(&mut peer, input, piece) {
        panic!("the contract is broken: {breach}");
    }
    peer.octets().to_vec()
}

fn feed(peer: &mut Peer, input: &[u8], piece: usize) -> Result<(), Breach> {
    let (mut end, mut taken) = (0, 0);
    while end < input.len() {
        end = end.saturating_add(piece).min(input.len());
        loop {
            match peer.receive(&input[taken..end])? {
                Received::Frame(count) => taken += count,
                Received::Blocked => peer.read(usize::MAX)?,
                Received::Incomplete => break,
                Received::Closed => return peer.read(usize::MAX),
            }
        }
    }
    peer.read(usize::MAX)
}

struct Frame<'i> {
    frame_type: u8,
    stream: u32,
    payload: &'i [u8],
}

/// Returns the frames of `input`, up to one that is incomplete.
fn frames_of(mut input: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let &[a, b, c, frame_type, _, s, t, u, v] = input.first_chunk::<9>()?;
        let end = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
        let payload = input.get(9..end)?;
        input = &input[end..];
        Some(Frame { frame_type, stream: u32::from_be_bytes([s, t, u, v]) & 0x7fff_ffff, payload })
    })
}

/// Returns the increment of the connection's window that a frame carries.
fn increment(frame: &Frame<'_>) -> i64 {
    match (frame.frame_type, frame.stream, frame.payload.try_into()) {
        (8, 0, Ok(increment)) => i64::from(u32::from_be_bytes(increment) & 0x7fff_ffff),
        _ => 0,
    }
}

/// Returns inputs for a fuzzer to begin with.
pub fn seeds() -> Vec<Vec<u8>> {
    let frame = |frame_type: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[frame_type, flags, 0, 0, 0, stream], payload].concat()
    };
    // POST /a by http: an index, an index, a literal.
    let head = |path: &[u8]| [&[0x83, 0x86, 0x04, path.len() as u8], path].concat();
    // A field that is indexed, in Huffman's code; and the same once more, by its index.
    let indexed = [
        &head(b"/a")[..],
        b"\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf",
    ]
    .concat();
    let again = [&head(b"/b")[..], &[0xbe]].concat();
    let (end, whole) = (0x01, 0x04);
    [
        vec![frame(1, whole, 1, &indexed), frame(0, end, 1, b"hello"), frame(1, whole | end, 3, &again)],
        vec![
            frame(1, end, 1, &head(b"/a")[..3]),
            frame(9, 0, 1, &head(b"/a")[3..5]),
            frame(9, whole, 1, &head(b"/a")[5..]),
            frame(8, 0, 0, &[0, 1, 0, 0]),
            frame(8, 0, 1, &[0, 0, 1, 0]),
        ],
        // Small windows, padding, a priority, a ping, and trailers.
        vec![
            frame(4, 0, 0, &[0, 4, 0, 0, 0, 9]),
            frame(1, whole | 0x28, 1, &[&[2, 0, 0, 0, 0, 7][..], &head(b"/c"), &[0, 0]].concat()),
            frame(0, 0x08, 1, &[3, 1, 2, 0, 0, 0]),
            frame(6, 0, 0, b"whatever"),
            frame(1, whole | end, 1, b"\x00\x01x\x01y"),
            frame(8, 0, 1, &[0, 0, 0, 5]),
            frame(4, 0, 0, &[0, 4, 0, 1, 0, 0]),
            frame(3, 0, 1, &[0, 0, 0, 8]),
        ],
        // A table that shrinks, a header list that is too large, GOAWAY.
        vec![
            frame(1, whole | end, 1, &[&[0x3f, 0x29][..], &indexed].concat()),
            frame(1, whole | end, 3, &[&again[..], b"\x00\x01x\x7f\x80\x08", &[b'v'; 1_151]].concat()),
            frame(7, 0, 0, &[0; 8]),
        ],
    ]
    .iter()
    .map(|frames| [&[5][..], &frames.concat()].concat())
    .collect()
}
