//! The cases of h2spec 2.6, by section and number, with the reaction of this server to each.
//!
//! Many are in other tables, too, by the rule that they are about. Here they are complete, so each
//! line of a run of h2spec against the authz plane is found. A comment says why a reaction isn't
//! the one that h2spec asks for.

use std::collections::BTreeMap;

use super::call::{CALL, Good, block, call_and, call_with, fields};
use super::cases::Reaction::{self, Allowed, Goaway, Hangup, Reset, Silence, Status};
use super::cases::{Case, hold, react};
use super::client::Wire;
use super::frames::{
    ACK, CANCEL, COMPRESSION_ERROR, CONTINUATION, DATA, DEFAULT_FRAME, ENABLE_PUSH, END_HEADERS, END_STREAM,
    FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE, MOST_WINDOW, NO_ERROR, PADDED, PING, PREFACE, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE,
    REFUSED_STREAM, RST_STREAM, SETTINGS, STREAM_CLOSED, UNKNOWN, WHOLE, WINDOW_UPDATE, WITH_PRIORITY, data,
    frame, goaway, headers, last_data, padded, ping, reset, settings, window_update, with_priority,
};
use super::hpack::{Encoder, Form, INDEXED, Style};
use crate::rig::support::Must;
use crate::rig::talos::Talos;

/// Number of cases of each section, as h2spec lists them.
const SECTIONS: [(&str, usize); 49] = [
    ("generic/1", 1),
    ("generic/2", 5),
    ("generic/3.1", 3),
    ("generic/3.2", 3),
    ("generic/3.3", 5),
    ("generic/3.4", 1),
    ("generic/3.5", 1),
    ("generic/3.7", 1),
    ("generic/3.8", 1),
    ("generic/3.9", 2),
    ("generic/3.10", 2),
    ("generic/4", 4),
    ("generic/5", 15),
    ("http2/3.5", 2),
    ("http2/4.1", 3),
    ("http2/4.2", 3),
    ("http2/4.3", 3),
    ("http2/5.1", 13),
    ("http2/5.1.1", 2),
    ("http2/5.1.2", 1),
    ("http2/5.3.1", 2),
    ("http2/5.4.1", 2),
    ("http2/5.5", 2),
    ("http2/6.1", 3),
    ("http2/6.2", 4),
    ("http2/6.3", 2),
    ("http2/6.4", 3),
    ("http2/6.5", 3),
    ("http2/6.5.2", 5),
    ("http2/6.5.3", 2),
    ("http2/6.7", 4),
    ("http2/6.8", 1),
    ("http2/6.9", 3),
    ("http2/6.9.1", 3),
    ("http2/6.9.2", 3),
    ("http2/6.10", 6),
    ("http2/7", 2),
    ("http2/8.1", 1),
    ("http2/8.1.2", 1),
    ("http2/8.1.2.1", 4),
    ("http2/8.1.2.2", 2),
    ("http2/8.1.2.3", 7),
    ("http2/8.1.2.6", 2),
    ("http2/8.2", 1),
    ("hpack/2.3.3", 2),
    ("hpack/4.2", 1),
    ("hpack/5.2", 3),
    ("hpack/6.1", 1),
    ("hpack/6.3", 1),
];

/// Cases that are no row of a table, as they take several steps.
const IN_STEPS: [&str; 5] =
    ["http2/3.5/2", "http2/5.1.2/1", "http2/6.9.1/1", "http2/6.9.2/1", "http2/6.9.2/2"];

const PROTOCOL: &[Reaction] = &[Goaway(PROTOCOL_ERROR)];
const FRAME_SIZE: &[Reaction] = &[Goaway(FRAME_SIZE_ERROR)];
const COMPRESSION: &[Reaction] = &[Goaway(COMPRESSION_ERROR)];
const MALFORMED: &[Reaction] = &[Reset(PROTOCOL_ERROR)];
const ANSWERED: &[Reaction] = &[Allowed];
const IGNORED: &[Reaction] = &[Silence];
const CLOSED_STREAM: &[Reaction] = &[Reset(STREAM_CLOSED)];
/// On a stream whose response is sent; a busy machine may not have sent it yet.
const CLOSED: &[Reaction] = &[Goaway(STREAM_CLOSED), Reset(STREAM_CLOSED)];

/// A complete request whose header block is in two frames, with `more` between them.
fn continued(good: &Good, more: &[u8]) -> Vec<u8> {
    let head = good.head();
    let (first, rest) = head.split_at(head.len() / 2);
    let begin = frame(HEADERS, 0, 1, first);
    let end = frame(CONTINUATION, END_HEADERS, 1, rest);
    [&begin[..], more, &end, &last_data(1, &good.message)].concat()
}

/// Frames on a stream that is half-closed (remote), as its response has no window.
fn half_closed(good: &Good, more: &[u8]) -> Vec<u8> {
    let shut = settings(&[(INITIAL_WINDOW_SIZE, 0)]);
    let open = settings(&[(INITIAL_WINDOW_SIZE, 65_535)]);
    [&shut[..], &good.on(1), more, &open].concat()
}

/// Frames on a stream that its client has reset.
fn after_reset(good: &Good, more: &[u8]) -> Vec<u8> {
    [&headers(1, &good.head())[..], &reset(1, CANCEL), more].concat()
}

/// A complete request that has this field in this form.
fn with_field(good: &Good, form: Form, name: &str, huffman: bool) -> Vec<u8> {
    let mut block = good.head();
    let style = Style { form, name_by_index: true, huffman_name: huffman, huffman_value: huffman };
    Encoder::new().field(name.as_bytes(), b"something", style, &mut block);
    [headers(1, &block), last_data(1, &good.message)].concat()
}

/// A complete request whose header block begins or ends with these octets.
fn with_octets(good: &Good, first: &[u8], last: &[u8]) -> Vec<u8> {
    let block = [first, &good.head(), last].concat();
    [headers(1, &block), last_data(1, &good.message)].concat()
}

/// A request without a body.
fn bodiless(block: &[u8]) -> Vec<u8> {
    frame(HEADERS, WHOLE | END_STREAM, 1, block)
}

/// The head of a Check without one of its fields.
fn without(name: &str) -> Vec<u8> {
    let rest: Vec<_> = CALL.into_iter().filter(|(known, _)| *known != name).collect();
    block(&rest)
}

/// The head of a Check with a second field of a name.
fn twice(name: &str) -> Vec<u8> {
    let again = CALL.into_iter().find(|(known, _)| *known == name).must("a field of a Check");
    block(&[&[again][..], &CALL].concat())
}

fn with_dependency(good: &Good, stream: u32) -> Vec<u8> {
    let block = with_priority(stream, &good.head());
    [frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &block), last_data(1, &good.message)].concat()
}

fn priority(stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(PRIORITY, 0, stream, payload)
}

/// A Huffman-coded value, right or wrong, of a field `x`.
fn huffman_value(value: &[u8]) -> Vec<u8> {
    [&[0, 1, b'x', 0x80 | value.len() as u8][..], value].concat()
}

const GENERIC: &[Case] = &[
    ("generic/1/1 preface", &|good| good.on(1), ANSWERED),
    ("generic/2/1 PRIORITY, idle", &|_| priority(1, &[0, 0, 0, 0, 255]), IGNORED),
    ("generic/2/2 WINDOW_UPDATE, half-closed", &|good| half_closed(good, &window_update(1, 100)), ANSWERED),
    ("generic/2/3 PRIORITY, half-closed", &|good| half_closed(good, &priority(1, &[0; 5])), ANSWERED),
    ("generic/2/4 RST_STREAM, half-closed", &|good| half_closed(good, &reset(1, CANCEL)), IGNORED),
    ("generic/2/5 PRIORITY, closed", &|good| [good.on(1), priority(1, &[0; 5])].concat(), ANSWERED),
    ("generic/3.1/1 DATA", &|good| good.on(1), ANSWERED),
    (
        "generic/3.1/2 several DATA",
        &|good| {
            let (first, rest) = good.halves();
            [headers(1, &good.head()), data(1, first), last_data(1, rest)].concat()
        },
        ANSWERED,
    ),
    (
        "generic/3.1/3 DATA with padding",
        &|good| {
            let body = frame(DATA, PADDED | END_STREAM, 1, &padded(&good.message, 8));
            [headers(1, &good.head()), body].concat()
        },
        ANSWERED,
    ),
    ("generic/3.2/1 HEADERS", &|good| good.on(1), ANSWERED),
    (
        "generic/3.2/2 HEADERS with padding",
        &|good| {
            let head = frame(HEADERS, WHOLE | PADDED, 1, &padded(&good.head(), 8));
            [head, last_data(1, &good.message)].concat()
        },
        ANSWERED,
    ),
    ("generic/3.2/3 HEADERS with priority", &|good| with_dependency(good, 0), ANSWERED),
    ("generic/3.3/1 weight 1", &|good| [priority(1, &[0; 5]), good.on(1)].concat(), ANSWERED),
    ("generic/3.3/2 weight 256", &|good| [priority(1, &[0, 0, 0, 0, 255]), good.on(1)].concat(), ANSWERED),
    (
        "generic/3.3/3 stream dependency",
        &|good| [priority(3, &[0, 0, 0, 1, 255]), good.on(1)].concat(),
        ANSWERED,
    ),
    (
        "generic/3.3/4 exclusive dependency",
        &|good| [priority(3, &[0x80, 0, 0, 1, 255]), good.on(1)].concat(),
        ANSWERED,
    ),
    (
        "generic/3.3/5 a lower stream after PRIORITY on an idle one",
        &|good| [priority(99, &[0, 0, 0, 0, 255]), good.on(1)].concat(),
        ANSWERED,
    ),
    ("generic/3.4/1 RST_STREAM", &|good| after_reset(good, &[]), IGNORED),
    ("generic/3.5/1 SETTINGS", &|_| settings(&[(MAX_CONCURRENT_STREAMS, 100)]), IGNORED),
    ("generic/3.7/1 PING", &|_| ping(*b"h2spec!!"), IGNORED),
    ("generic/3.8/1 GOAWAY", &|_| goaway(0, NO_ERROR), &[Hangup]),
    ("generic/3.9/1 WINDOW_UPDATE, connection", &|_| window_update(0, 1), IGNORED),
    (
        "generic/3.9/2 WINDOW_UPDATE, stream",
        &|good| [headers(1, &good.head()), window_update(1, 1), last_data(1, &good.message)].concat(),
        ANSWERED,
    ),
    ("generic/3.10/1 CONTINUATION", &|good| continued(good, &[]), ANSWERED),
    (
        "generic/3.10/2 several CONTINUATION",
        &|good| continued(good, &frame(CONTINUATION, 0, 1, &[]).repeat(3)),
        ANSWERED,
    ),
    // Not a gRPC call: it is told so by a status of HTTP's.
    ("generic/4/1 GET", &|_| bodiless(&call_with(":method", "GET")), &[Status(405)]),
    ("generic/4/2 HEAD", &|_| bodiless(&call_with(":method", "HEAD")), &[Status(405)]),
    ("generic/4/3 POST", &|good| good.on(1), ANSWERED),
    (
        "generic/4/4 POST with trailers",
        &|good| {
            let trailers = bodiless(&block(&[("x-test", "ok")]));
            [headers(1, &good.head()), data(1, &good.message), trailers].concat()
        },
        ANSWERED,
    ),
    (
        "generic/5/1 indexed",
        &|good| {
            let block = Encoder::new().block(&fields(&CALL), INDEXED);
            [headers(1, &block), last_data(1, &good.message)].concat()
        },
        ANSWERED,
    ),
    ("generic/5/2 kept, indexed name", &|good| with_field(good, Form::Kept, "user-agent", false), ANSWERED),
    (
        "generic/5/3 kept, indexed name, Huffman",
        &|good| with_field(good, Form::Kept, "user-agent", true),
        ANSWERED,
    ),
    ("generic/5/4 kept, new name", &|good| with_field(good, Form::Kept, "x-test", false), ANSWERED),
    ("generic/5/5 kept, new name, Huffman", &|good| with_field(good, Form::Kept, "x-test", true), ANSWERED),
    (
        "generic/5/6 not indexed, indexed name",
        &|good| with_field(good, Form::NotIndexed, "user-agent", false),
        ANSWERED,
    ),
    (
        "generic/5/7 not indexed, indexed name, Huffman",
        &|good| with_field(good, Form::NotIndexed, "user-agent", true),
        ANSWERED,
    ),
    ("generic/5/8 not indexed, new name", &|good| with_field(good, Form::NotIndexed, "x-a", false), ANSWERED),
    (
        "generic/5/9 not indexed, new name, Huffman",
        &|good| with_field(good, Form::NotIndexed, "x-a", true),
        ANSWERED,
    ),
    (
        "generic/5/10 never indexed, indexed name",
        &|good| with_field(good, Form::NeverIndexed, "user-agent", false),
        ANSWERED,
    ),
    (
        "generic/5/11 never indexed, indexed name, Huffman",
        &|good| with_field(good, Form::NeverIndexed, "user-agent", true),
        ANSWERED,
    ),
    (
        "generic/5/12 never indexed, new name",
        &|good| with_field(good, Form::NeverIndexed, "x-a", false),
        ANSWERED,
    ),
    (
        "generic/5/13 never indexed, new name, Huffman",
        &|good| with_field(good, Form::NeverIndexed, "x-a", true),
        ANSWERED,
    ),
    ("generic/5/14 table size update", &|good| with_octets(good, &[0x3e], &[]), ANSWERED),
    ("generic/5/15 several table size updates", &|good| with_octets(good, &[0x20, 0x3e], &[]), ANSWERED),
];

const CONNECTION: &[Case] = &[
    ("http2/3.5/1 preface", &|good| good.on(1), ANSWERED),
    ("http2/4.1/1 unknown type", &|_| frame(UNKNOWN, 0, 0, b"payload"), IGNORED),
    ("http2/4.1/2 undefined flag", &|_| frame(PING, 0x16, 0, b"h2spec!!"), IGNORED),
    ("http2/4.1/3 reserved bit", &|_| frame(PING, 0, 1 << 31, b"h2spec!!"), IGNORED),
    (
        "http2/4.2/1 DATA of 2^14",
        &|good| {
            let long = good.grown_by(DEFAULT_FRAME);
            let (first, rest) = long.message.split_at(DEFAULT_FRAME);
            [headers(1, &good.head()), data(1, first), last_data(1, rest)].concat()
        },
        ANSWERED,
    ),
    (
        "http2/4.2/2 DATA too large",
        &|good| [headers(1, &good.head()), last_data(1, &[0; DEFAULT_FRAME + 1])].concat(),
        FRAME_SIZE,
    ),
    ("http2/4.2/3 HEADERS too large", &|_| bodiless(&[0; DEFAULT_FRAME + 1]), FRAME_SIZE),
    ("http2/4.3/1 invalid fragment", &|_| bodiless(&[0x40]), COMPRESSION),
    ("http2/4.3/2 PRIORITY in a header block", &|good| continued(good, &priority(1, &[0; 5])), PROTOCOL),
    (
        "http2/4.3/3 HEADERS of another stream in a header block",
        &|good| continued(good, &headers(3, &good.head())),
        PROTOCOL,
    ),
    ("http2/5.4.1/1 connection error closes", &|_| frame(PING, 0, 3, &[0; 8]), PROTOCOL),
    ("http2/5.4.1/2 connection error sends GOAWAY", &|_| frame(PING, 0, 3, &[0; 8]), PROTOCOL),
    ("http2/5.5/1 extension frame", &|_| frame(UNKNOWN, 0, 0, &[0; 8]), IGNORED),
    (
        "http2/5.5/2 extension frame in a header block",
        &|good| continued(good, &frame(UNKNOWN, 0, 0, &[0; 8])),
        PROTOCOL,
    ),
    ("http2/6.5/1 ACK with a payload", &|_| frame(SETTINGS, ACK, 0, &[0; 6]), FRAME_SIZE),
    ("http2/6.5/2 SETTINGS on a stream", &|_| frame(SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 100]), PROTOCOL),
    ("http2/6.5/3 length no multiple of 6", &|_| frame(SETTINGS, 0, 0, &[0, 3, 0]), FRAME_SIZE),
    ("http2/6.5.2/1 ENABLE_PUSH of 2", &|_| settings(&[(ENABLE_PUSH, 2)]), PROTOCOL),
    (
        "http2/6.5.2/2 INITIAL_WINDOW_SIZE too large",
        &|_| settings(&[(INITIAL_WINDOW_SIZE, 1 << 31)]),
        &[Goaway(FLOW_CONTROL_ERROR)],
    ),
    ("http2/6.5.2/3 MAX_FRAME_SIZE too small", &|_| settings(&[(MAX_FRAME_SIZE, 16_383)]), PROTOCOL),
    ("http2/6.5.2/4 MAX_FRAME_SIZE too large", &|_| settings(&[(MAX_FRAME_SIZE, 1 << 24)]), PROTOCOL),
    ("http2/6.5.2/5 unknown setting", &|_| settings(&[(0xff, 1)]), IGNORED),
    (
        "http2/6.5.3/1 several INITIAL_WINDOW_SIZE",
        &|good| {
            let windows = [(INITIAL_WINDOW_SIZE, 0), (INITIAL_WINDOW_SIZE, 65_535)];
            [settings(&windows), good.on(1)].concat()
        },
        ANSWERED,
    ),
    ("http2/6.5.3/2 SETTINGS is acknowledged", &|_| settings(&[]), IGNORED),
    ("http2/6.7/1 PING", &|_| ping(*b"h2spec!!"), IGNORED),
    ("http2/6.7/2 PING with ACK", &|_| frame(PING, ACK, 0, b"h2spec!!"), IGNORED),
    ("http2/6.7/3 PING on a stream", &|_| frame(PING, 0, 1, b"h2spec!!"), PROTOCOL),
    ("http2/6.7/4 PING of another length", &|_| frame(PING, 0, 0, &[0; 6]), FRAME_SIZE),
    ("http2/6.8/1 GOAWAY on a stream", &|_| frame(GOAWAY, 0, 1, &[0; 8]), PROTOCOL),
    ("http2/6.9/1 connection window by 0", &|_| window_update(0, 0), PROTOCOL),
    (
        "http2/6.9/2 stream window by 0",
        &|good| [headers(1, &good.head()), window_update(1, 0)].concat(),
        MALFORMED,
    ),
    ("http2/6.9/3 another length", &|_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1]), FRAME_SIZE),
    (
        "http2/6.9.1/2 connection window above 2^31-1",
        &|_| window_update(0, MOST_WINDOW).repeat(2),
        &[Goaway(FLOW_CONTROL_ERROR)],
    ),
    (
        "http2/6.9.1/3 stream window above 2^31-1",
        &|good| [headers(1, &good.head()), window_update(1, MOST_WINDOW).repeat(2)].concat(),
        &[Reset(FLOW_CONTROL_ERROR)],
    ),
    (
        "http2/6.9.2/3 INITIAL_WINDOW_SIZE too large",
        &|_| settings(&[(INITIAL_WINDOW_SIZE, u32::MAX)]),
        &[Goaway(FLOW_CONTROL_ERROR)],
    ),
    ("http2/7/1 GOAWAY, unknown code", &|_| goaway(0, 0xff), &[Hangup]),
    (
        "http2/7/2 RST_STREAM, unknown code",
        &|good| [headers(1, &good.head()), reset(1, 0xff)].concat(),
        IGNORED,
    ),
];

const STREAMS: &[Case] = &[
    ("http2/5.1/1 idle: DATA", &|_| last_data(1, b"test"), PROTOCOL),
    ("http2/5.1/2 idle: RST_STREAM", &|_| reset(1, CANCEL), PROTOCOL),
    ("http2/5.1/3 idle: WINDOW_UPDATE", &|_| window_update(1, 100), PROTOCOL),
    ("http2/5.1/4 idle: CONTINUATION", &|good| frame(CONTINUATION, END_HEADERS, 1, &good.head()), PROTOCOL),
    ("http2/5.1/5 half-closed: DATA", &|good| half_closed(good, &last_data(1, b"test")), CLOSED_STREAM),
    ("http2/5.1/6 half-closed: HEADERS", &|good| half_closed(good, &bodiless(&good.head())), CLOSED_STREAM),
    (
        "http2/5.1/7 half-closed: CONTINUATION",
        &|good| half_closed(good, &frame(CONTINUATION, END_HEADERS, 1, &good.head())),
        PROTOCOL,
    ),
    ("http2/5.1/8 reset: DATA", &|good| after_reset(good, &last_data(1, b"test")), CLOSED_STREAM),
    ("http2/5.1/9 reset: HEADERS", &|good| after_reset(good, &bodiless(&good.head())), CLOSED_STREAM),
    (
        "http2/5.1/10 reset: CONTINUATION",
        &|good| after_reset(good, &frame(CONTINUATION, END_HEADERS, 1, &good.head())),
        PROTOCOL,
    ),
    ("http2/5.1/11 closed: DATA", &|good| [good.on(1), last_data(1, b"test")].concat(), CLOSED),
    ("http2/5.1/12 closed: HEADERS", &|good| [good.on(1), bodiless(&good.head())].concat(), CLOSED),
    (
        "http2/5.1/13 closed: CONTINUATION",
        &|good| [good.on(1), frame(CONTINUATION, END_HEADERS, 1, &good.head())].concat(),
        PROTOCOL,
    ),
    ("http2/5.1.1/1 even number", &|good| good.on(2), PROTOCOL),
    // h2spec asks for PROTOCOL_ERROR. Opening stream 5 closed stream 3 (RFC 9113, 5.1.1).
    ("http2/5.1.1/2 falling numbers", &|good| [good.on(5), good.on(3)].concat(), &[Goaway(STREAM_CLOSED)]),
    // h2spec asks for PROTOCOL_ERROR, as RFC 7540 did; RFC 9113 ignores priorities.
    ("http2/5.3.1/1 HEADERS depends on itself", &|good| with_dependency(good, 1), ANSWERED),
    ("http2/5.3.1/2 PRIORITY depends on itself", &|_| priority(1, &[0, 0, 0, 1, 255]), IGNORED),
    ("http2/6.1/1 DATA, connection", &|_| last_data(0, b"test"), PROTOCOL),
    ("http2/6.1/2 DATA, half-closed", &|good| half_closed(good, &last_data(1, b"test")), CLOSED_STREAM),
    (
        "http2/6.1/3 DATA, pad length",
        &|good| [headers(1, &good.head()), frame(DATA, PADDED, 1, &[6, b'T', b'e', b's', b't'])].concat(),
        PROTOCOL,
    ),
    (
        "http2/6.2/1 PRIORITY in a header block",
        &|good| continued(good, &priority(1, &[0, 0, 0, 0, 255])),
        PROTOCOL,
    ),
    (
        "http2/6.2/2 HEADERS of another stream in a header block",
        &|good| continued(good, &headers(3, &good.head())),
        PROTOCOL,
    ),
    (
        "http2/6.2/3 HEADERS, connection",
        &|good| frame(HEADERS, WHOLE | END_STREAM, 0, &good.head()),
        PROTOCOL,
    ),
    (
        "http2/6.2/4 HEADERS, pad length",
        &|good| frame(HEADERS, WHOLE | PADDED, 1, &[&[255][..], &good.head()].concat()),
        PROTOCOL,
    ),
    ("http2/6.3/1 PRIORITY, connection", &|_| priority(0, &[0; 5]), PROTOCOL),
    (
        "http2/6.3/2 PRIORITY, another length",
        &|good| [headers(1, &good.head()), priority(1, &[0; 4])].concat(),
        &[Reset(FRAME_SIZE_ERROR)],
    ),
    ("http2/6.4/1 RST_STREAM, connection", &|_| reset(0, CANCEL), PROTOCOL),
    ("http2/6.4/2 RST_STREAM, idle", &|_| reset(1, CANCEL), PROTOCOL),
    (
        "http2/6.4/3 RST_STREAM, another length",
        &|good| [headers(1, &good.head()), frame(RST_STREAM, 0, 1, &[0; 3])].concat(),
        FRAME_SIZE,
    ),
    (
        "http2/6.10/1 several CONTINUATION",
        &|good| continued(good, &frame(CONTINUATION, 0, 1, &[]).repeat(2)),
        ANSWERED,
    ),
    ("http2/6.10/2 DATA in a header block", &|good| continued(good, &data(1, b"test")), PROTOCOL),
    (
        "http2/6.10/3 CONTINUATION, connection",
        &|good| [frame(HEADERS, 0, 1, &good.head()), frame(CONTINUATION, END_HEADERS, 0, &[])].concat(),
        PROTOCOL,
    ),
    (
        "http2/6.10/4 CONTINUATION after END_HEADERS",
        &|good| [headers(1, &good.head()), frame(CONTINUATION, END_HEADERS, 1, &[])].concat(),
        PROTOCOL,
    ),
    (
        "http2/6.10/5 CONTINUATION after the last CONTINUATION",
        &|good| {
            let end = frame(CONTINUATION, END_HEADERS, 1, &[]);
            [frame(HEADERS, 0, 1, &good.head()), end.repeat(2)].concat()
        },
        PROTOCOL,
    ),
    (
        "http2/6.10/6 CONTINUATION after DATA",
        &|good| {
            let end = frame(CONTINUATION, END_HEADERS, 1, &[]);
            [headers(1, &good.head()), data(1, b"\0"), end].concat()
        },
        PROTOCOL,
    ),
];

const MESSAGES: &[Case] = &[
    (
        "http2/8.1/1 second HEADERS without END_STREAM",
        &|good| [headers(1, &good.head()), headers(1, &block(&[("x-test", "ok")]))].concat(),
        MALFORMED,
    ),
    ("http2/8.1.2/1 capitals", &|_| bodiless(&call_and(&[("X-TEST", "ok")])), MALFORMED),
    (
        "http2/8.1.2.1/1 unknown pseudo-header",
        &|_| bodiless(&block(&[&CALL[..4], &[(":test", "ok")][..], &CALL[4..]].concat())),
        MALFORMED,
    ),
    (
        "http2/8.1.2.1/2 a response's pseudo-header",
        &|_| bodiless(&block(&[&CALL[..4], &[(":status", "200")][..], &CALL[4..]].concat())),
        MALFORMED,
    ),
    (
        "http2/8.1.2.1/3 pseudo-header in trailers",
        &|good| {
            let trailers = bodiless(&block(&[(":method", "200")]));
            [headers(1, &good.head()), data(1, &good.message), trailers].concat()
        },
        MALFORMED,
    ),
    (
        "http2/8.1.2.1/4 pseudo-header after others",
        &|_| bodiless(&block(&[&CALL[1..], &CALL[..1]].concat())),
        MALFORMED,
    ),
    ("http2/8.1.2.2/1 connection", &|_| bodiless(&call_and(&[("connection", "keep-alive")])), MALFORMED),
    ("http2/8.1.2.2/2 TE", &|_| bodiless(&call_with("te", "trailers, deflate")), MALFORMED),
    ("http2/8.1.2.3/1 empty :path", &|_| bodiless(&call_with(":path", "")), MALFORMED),
    ("http2/8.1.2.3/2 no :method", &|_| bodiless(&without(":method")), MALFORMED),
    ("http2/8.1.2.3/3 no :scheme", &|_| bodiless(&without(":scheme")), MALFORMED),
    ("http2/8.1.2.3/4 no :path", &|_| bodiless(&without(":path")), MALFORMED),
    ("http2/8.1.2.3/5 two :method", &|_| bodiless(&twice(":method")), MALFORMED),
    ("http2/8.1.2.3/6 two :scheme", &|_| bodiless(&twice(":scheme")), MALFORMED),
    ("http2/8.1.2.3/7 two :path", &|_| bodiless(&twice(":path")), MALFORMED),
    (
        "http2/8.1.2.6/1 content-length, one DATA",
        &|_| [headers(1, &call_and(&[("content-length", "1")])), last_data(1, b"test")].concat(),
        MALFORMED,
    ),
    (
        "http2/8.1.2.6/2 content-length, several DATA",
        &|_| {
            let head = headers(1, &call_and(&[("content-length", "1")]));
            [head, data(1, b"test"), last_data(1, b"test")].concat()
        },
        MALFORMED,
    ),
    (
        "http2/8.2/1 PUSH_PROMISE",
        &|good| {
            let promise = [&2_u32.to_be_bytes()[..], &good.head()].concat();
            [headers(1, &good.head()), frame(PUSH_PROMISE, END_HEADERS, 1, &promise)].concat()
        },
        PROTOCOL,
    ),
    ("hpack/2.3.3/1 indexed, invalid", &|good| with_octets(good, &[], &[0xc6]), COMPRESSION),
    (
        "hpack/2.3.3/2 literal, invalid name index",
        &|good| with_octets(good, &[], &[0x7f, 0x07, 0x05, b'e', b'm', b'p', b't', b'y']),
        COMPRESSION,
    ),
    ("hpack/4.2/1 table size update at the end", &|good| with_octets(good, &[], &[0x21]), COMPRESSION),
    (
        "hpack/5.2/1 padding of more than 7 bits",
        &|good| with_octets(good, &[], &huffman_value(&[0x1f, 0xff])),
        COMPRESSION,
    ),
    ("hpack/5.2/2 padding of zeros", &|good| with_octets(good, &[], &huffman_value(&[0x18])), COMPRESSION),
    ("hpack/5.2/3 EOS", &|good| with_octets(good, &[], &huffman_value(&[0xff; 4])), COMPRESSION),
    ("hpack/6.1/1 index 0", &|good| with_octets(good, &[], &[0x80]), COMPRESSION),
    (
        "hpack/6.3/1 table size update above the limit",
        &|good| with_octets(good, &[0x3f, 0xe2, 0x1f], &[]),
        COMPRESSION,
    ),
];

#[test]
fn the_tables_have_every_case() {
    let rows = [GENERIC, CONNECTION, STREAMS, MESSAGES].concat();
    let names = rows.iter().map(|(name, ..)| name.split(' ').next().unwrap_or_default());
    let mut sections = BTreeMap::<&str, Vec<usize>>::new();
    for name in names.chain(IN_STEPS) {
        let (section, number) = name.rsplit_once('/').must("a section and a number");
        sections.entry(section).or_default().push(number.parse().must("a number"));
    }
    for (section, cases) in SECTIONS {
        let mut numbers = sections.remove(section).unwrap_or_default();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=cases).collect::<Vec<_>>(), "{section}");
    }
    assert!(sections.is_empty(), "{sections:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn generic() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "h2spec").await;
    hold(&talos, &good, GENERIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_connection() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "h2spec").await;
    hold(&talos, &good, CONNECTION).await;
    // http2/3.5/2: an invalid preface.
    let mut wire = Wire::connect(talos.authz).await;
    wire.send(&[b"INVALID CONNECTION PREFACE\r\n\r\n", PREFACE].concat()).await;
    let reaction = react(&mut wire, &good, PROTOCOL).await;
    assert!([Goaway(PROTOCOL_ERROR), Hangup].contains(&reaction), "{reaction:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_streams() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "h2spec").await;
    hold(&talos, &good, STREAMS).await;
    // http2/5.1.2/1: more streams than SETTINGS_MAX_CONCURRENT_STREAMS.
    let mut wire = Wire::open(talos.authz).await;
    let most = wire.theirs.as_ref().and_then(|theirs| theirs.get(&MAX_CONCURRENT_STREAMS)).copied();
    let most = most.must("a limit of streams");
    for stream in (0..=most).map(|n| n * 2 + 1) {
        wire.send(&headers(stream, &good.head())).await;
    }
    assert_eq!(wire.answer(most * 2 + 1).await.reset, Some(REFUSED_STREAM));
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_windows() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "h2spec").await;
    // http2/6.9.1/1: a window of one byte.
    let mut wire = Wire::open_with(talos.authz, &[(INITIAL_WINDOW_SIZE, 1)]).await;
    wire.replenishes = false;
    wire.send(&good.on(1)).await;
    wire.until("a byte", |wire| wire.received(1) >= 1).await;
    wire.ping().await;
    assert_eq!(wire.received(1), 1);
    // http2/6.9.2/1: a window that opens after the request.
    let mut wire = Wire::open_with(talos.authz, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    wire.replenishes = false;
    wire.send(&good.on(1)).await;
    wire.ping().await;
    assert_eq!(wire.received(1), 0);
    wire.settings(&[(INITIAL_WINDOW_SIZE, 1)]).await;
    wire.until("a byte", |wire| wire.received(1) >= 1).await;
    wire.ping().await;
    assert_eq!(wire.received(1), 1);
    // http2/6.9.2/2: a window that becomes negative.
    let mut wire = Wire::open_with(talos.authz, &[(INITIAL_WINDOW_SIZE, 3)]).await;
    wire.replenishes = false;
    wire.send(&good.on(1)).await;
    wire.until("three bytes", |wire| wire.received(1) >= 3).await;
    wire.settings(&[(INITIAL_WINDOW_SIZE, 2)]).await;
    wire.grant(1, 2).await;
    wire.until("a byte more", |wire| wire.received(1) >= 4).await;
    wire.ping().await;
    assert_eq!(wire.received(1), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_and_hpack() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "h2spec").await;
    hold(&talos, &good, MESSAGES).await;
}
