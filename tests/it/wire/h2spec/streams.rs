//! Cases about streams and their frames.

use super::super::cases::Case;
use super::super::cases::Reaction::{Goaway, Reset};
use super::super::frames::{
    CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, FRAME_SIZE_ERROR, HEADERS, PADDED, RST_STREAM,
    STREAM_CLOSED, WHOLE, data, frame, headers, last_data, reset, window_update,
};
use super::requests::{
    ANSWERED, CLOSED, CLOSED_STREAM, FRAME_SIZE, IGNORED, PROTOCOL, after_reset, bodiless, continued,
    half_closed, priority, with_dependency,
};

pub(super) const STREAMS: &[Case] = &[
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
