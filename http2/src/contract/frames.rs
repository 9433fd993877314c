//! Frames as peers send them, valid or not.

use crate::frame::{self, flag, frame_type, setting};
use crate::stream::StreamId;

pub(super) const END_HEADERS: u8 = flag::END_HEADERS;
pub(super) const END_STREAM: u8 = flag::END_STREAM;
/// A header block of `POST /` by http, as short as it can be.
pub(super) const POST: &[u8] = &[0x83, 0x86, 0x84];

pub(super) fn framed(frame_type: u8, flags: u8, stream: StreamId, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    frame::write(frame_type, flags, stream, payload, &mut out);
    out
}

/// Stream number `n` of a client.
pub(super) const fn client_stream(n: u32) -> StreamId {
    n * 2 + 1
}

/// A request that waits for its body.
pub(super) fn open(stream: StreamId) -> Vec<u8> {
    framed(frame_type::HEADERS, END_HEADERS, stream, POST)
}

/// A complete request.
pub(super) fn request(stream: StreamId) -> Vec<u8> {
    framed(frame_type::HEADERS, END_HEADERS | END_STREAM, stream, POST)
}

pub(super) fn reset(stream: StreamId) -> Vec<u8> {
    framed(frame_type::RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

pub(super) fn data(stream: StreamId, flags: u8, payload: &[u8]) -> Vec<u8> {
    framed(frame_type::DATA, flags, stream, payload)
}

pub(super) fn ping() -> Vec<u8> {
    framed(frame_type::PING, 0, 0, &[7; 8])
}

pub(super) fn window_update(stream: StreamId, increment: u32) -> Vec<u8> {
    framed(frame_type::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

/// A SETTINGS frame with these initial window sizes, as many as fit.
pub(super) fn initial_windows(values: impl IntoIterator<Item = u32>) -> Vec<u8> {
    let payload = values
        .into_iter()
        .take(2_730)
        .flat_map(|value| [&setting::INITIAL_WINDOW_SIZE.to_be_bytes()[..], &value.to_be_bytes()].concat());
    framed(frame_type::SETTINGS, 0, 0, &payload.collect::<Vec<_>>())
}

/// A request's header block of several parts, in as many frames as it needs.
pub(super) fn block_in_frames(stream: StreamId, parts: &[&[u8]]) -> Vec<u8> {
    let block = [POST, &parts.concat()].concat();
    let mut chunks = block.chunks(frame::MAX_FRAME_SIZE).peekable();
    let mut out = vec![];
    let mut frame_type = frame_type::HEADERS;
    while let Some(chunk) = chunks.next() {
        let end = if chunks.peek().is_none() { END_HEADERS } else { 0 };
        out.extend(framed(frame_type, end, stream, chunk));
        frame_type = frame_type::CONTINUATION;
    }
    out
}

/// A string literal of 128 bytes or more.
pub(super) fn long_string(length: usize) -> Vec<u8> {
    let rest = length - 127;
    [&[0x7f, (rest & 0x7f) as u8 | 0x80, (rest >> 7) as u8][..], &vec![b'n'; length]].concat()
}
