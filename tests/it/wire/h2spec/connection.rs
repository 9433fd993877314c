//! Cases about the connection as a whole.

use super::super::cases::Case;
use super::super::cases::Reaction::{Goaway, Hangup, Reset};
use super::super::frames::{
    ACK, DEFAULT_FRAME, ENABLE_PUSH, FLOW_CONTROL_ERROR, GOAWAY, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE,
    MAX_WINDOW, PING, SETTINGS, UNKNOWN, WINDOW_UPDATE, data, frame, goaway, headers, last_data, ping, reset,
    settings, window_update,
};
use super::requests::{
    ANSWERED, COMPRESSION, FRAME_SIZE, IGNORED, MALFORMED, PROTOCOL, bodiless, continued, priority,
};

pub(super) const CONNECTION: &[Case] = &[
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
        &|_| window_update(0, MAX_WINDOW).repeat(2),
        &[Goaway(FLOW_CONTROL_ERROR)],
    ),
    (
        "http2/6.9.1/3 stream window above 2^31-1",
        &|good| [headers(1, &good.head()), window_update(1, MAX_WINDOW).repeat(2)].concat(),
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
