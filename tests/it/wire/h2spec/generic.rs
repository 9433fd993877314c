//! Cases of the section "generic": what any client sends.

use super::super::call::{CALL, block, call_with, fields};
use super::super::cases::Case;
use super::super::cases::Reaction::{Hangup, Status};
use super::super::frames::{
    CANCEL, CONTINUATION, DATA, END_STREAM, HEADERS, MAX_CONCURRENT_STREAMS, NO_ERROR, PADDED, WHOLE, data,
    frame, goaway, headers, last_data, padded, ping, reset, settings, window_update,
};
use super::super::hpack::{Encoder, Form, INDEXED};
use super::requests::{
    ANSWERED, IGNORED, after_reset, bodiless, continued, half_closed, priority, with_dependency, with_field,
    with_octets,
};

pub(super) const GENERIC: &[Case] = &[
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
    // Requests that are no gRPC calls get an HTTP status.
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
