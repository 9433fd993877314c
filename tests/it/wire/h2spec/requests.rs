//! Requests of the cases, and the reactions to them.

use super::super::call::{CALL, Good, block};
use super::super::cases::Reaction::{self, Allowed, Goaway, Reset, Silence};
use super::super::frames::{
    CANCEL, COMPRESSION_ERROR, CONTINUATION, END_HEADERS, END_STREAM, FRAME_SIZE_ERROR, HEADERS,
    INITIAL_WINDOW_SIZE, PRIORITY, PROTOCOL_ERROR, STREAM_CLOSED, WHOLE, WITH_PRIORITY, frame, headers,
    last_data, reset, settings, with_priority,
};
use super::super::hpack::{Encoder, Form, Style};
use crate::rig::support::Must;

pub(super) const PROTOCOL: &[Reaction] = &[Goaway(PROTOCOL_ERROR)];
pub(super) const FRAME_SIZE: &[Reaction] = &[Goaway(FRAME_SIZE_ERROR)];
pub(super) const COMPRESSION: &[Reaction] = &[Goaway(COMPRESSION_ERROR)];
pub(super) const MALFORMED: &[Reaction] = &[Reset(PROTOCOL_ERROR)];
pub(super) const ANSWERED: &[Reaction] = &[Allowed];
pub(super) const IGNORED: &[Reaction] = &[Silence];
pub(super) const CLOSED_STREAM: &[Reaction] = &[Reset(STREAM_CLOSED)];
/// On a stream whose response is sent; a busy machine may not have sent it yet.
pub(super) const CLOSED: &[Reaction] = &[Goaway(STREAM_CLOSED), Reset(STREAM_CLOSED)];

/// A complete request whose header block is in two frames, with `more` between them.
pub(super) fn continued(good: &Good, more: &[u8]) -> Vec<u8> {
    let head = good.head();
    let (first, rest) = head.split_at(head.len() / 2);
    let begin = frame(HEADERS, 0, 1, first);
    let end = frame(CONTINUATION, END_HEADERS, 1, rest);
    [&begin[..], more, &end, &last_data(1, &good.message)].concat()
}

/// Frames on a stream that is half-closed (remote), as its response has no window.
pub(super) fn half_closed(good: &Good, more: &[u8]) -> Vec<u8> {
    let shut = settings(&[(INITIAL_WINDOW_SIZE, 0)]);
    let open = settings(&[(INITIAL_WINDOW_SIZE, 65_535)]);
    [&shut[..], &good.on(1), more, &open].concat()
}

/// Frames on a stream that its client has reset.
pub(super) fn after_reset(good: &Good, more: &[u8]) -> Vec<u8> {
    [&headers(1, &good.head())[..], &reset(1, CANCEL), more].concat()
}

/// A complete request that has this field in this form.
pub(super) fn with_field(good: &Good, form: Form, name: &str, huffman: bool) -> Vec<u8> {
    let mut block = good.head();
    let style = Style { form, name_by_index: true, huffman_name: huffman, huffman_value: huffman };
    Encoder::new().field(name.as_bytes(), b"something", style, &mut block);
    [headers(1, &block), last_data(1, &good.message)].concat()
}

/// A complete request whose header block begins or ends with these octets.
pub(super) fn with_octets(good: &Good, first: &[u8], last: &[u8]) -> Vec<u8> {
    let block = [first, &good.head(), last].concat();
    [headers(1, &block), last_data(1, &good.message)].concat()
}

/// A request without a body.
pub(super) fn bodiless(block: &[u8]) -> Vec<u8> {
    frame(HEADERS, WHOLE | END_STREAM, 1, block)
}

/// The head of a Check without one of its fields.
pub(super) fn without(name: &str) -> Vec<u8> {
    let rest: Vec<_> = CALL.into_iter().filter(|(known, _)| *known != name).collect();
    block(&rest)
}

/// The head of a Check with a second field of a name.
pub(super) fn twice(name: &str) -> Vec<u8> {
    let again = CALL.into_iter().find(|(known, _)| *known == name).must("a field of a Check");
    block(&[&[again][..], &CALL].concat())
}

pub(super) fn with_dependency(good: &Good, stream: u32) -> Vec<u8> {
    let block = with_priority(stream, &good.head());
    [frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &block), last_data(1, &good.message)].concat()
}

pub(super) fn priority(stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(PRIORITY, 0, stream, payload)
}

/// A Huffman-coded value, right or wrong, of a field `x`.
pub(super) fn huffman_value(value: &[u8]) -> Vec<u8> {
    [&[0, 1, b'x', 0x80 | value.len() as u8][..], value].concat()
}
