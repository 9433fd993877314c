//! Frames: their sizes and streams, ignored ones, pings (RFC 9113, 4.1, 4.2, 5.5 and 6).

use super::call::Good;
use super::cases::Reaction::{Allowed, Goaway, Reset, Silence};
use super::cases::{Case, hold};
use super::client::Wire;
use super::frames::{
    ACK, CONTINUATION, DATA, DEFAULT_FRAME, END_STREAM, FRAME_SIZE_ERROR, GOAWAY, HEADERS, PING, PRIORITY,
    PROTOCOL_ERROR, PUSH_PROMISE, RST_STREAM, UNKNOWN, WHOLE, WINDOW_UPDATE, frame, headers, last_data, ping,
};
use crate::rig::talos::Talos;

/// A call of which a part was sent.
fn begun(good: &Good) -> Vec<u8> {
    headers(1, &good.head())
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_a_wrong_size_are_refused() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "framer").await;
    // h2 says PROTOCOL_ERROR to most frames that have a wrong size.
    let connection = &[Goaway(FRAME_SIZE_ERROR), Goaway(PROTOCOL_ERROR)];
    // These change nothing but the stream; h2 ends the connection for them.
    let either = &[Reset(FRAME_SIZE_ERROR), Goaway(FRAME_SIZE_ERROR), Goaway(PROTOCOL_ERROR)];
    let long = &[0; DEFAULT_FRAME + 1];
    let longest = &[0; DEFAULT_FRAME];
    let cases: &[Case] = &[
        ("DATA too long", &|good| [begun(good), last_data(1, long)].concat(), either),
        ("HEADERS too long", &|_| frame(HEADERS, WHOLE | END_STREAM, 1, long), connection),
        ("SETTINGS too long", &|_| frame(super::frames::SETTINGS, 0, 0, long), connection),
        ("an unknown frame too long", &|_| frame(UNKNOWN, 0, 0, long), connection),
        ("an unknown frame as long as may be", &|_| frame(UNKNOWN, 0, 0, longest), &[Silence]),
        ("a frame said to be of 16 MiB", &|_| vec![0xff, 0xff, 0xff, UNKNOWN, 0, 0, 0, 0, 0], connection),
        ("PING of 7", &|_| frame(PING, 0, 0, &[0; 7]), connection),
        ("PING of 9", &|_| frame(PING, 0, 0, &[0; 9]), connection),
        ("PING of nothing", &|_| frame(PING, ACK, 0, &[]), connection),
        ("WINDOW_UPDATE of 3", &|_| frame(WINDOW_UPDATE, 0, 0, &[1; 3]), connection),
        (
            "WINDOW_UPDATE of 5",
            &|good| [begun(good), frame(WINDOW_UPDATE, 0, 1, &[1; 5])].concat(),
            connection,
        ),
        ("RST_STREAM of 3", &|good| [begun(good), frame(RST_STREAM, 0, 1, &[0; 3])].concat(), connection),
        ("RST_STREAM of 5", &|good| [begun(good), frame(RST_STREAM, 0, 1, &[0; 5])].concat(), connection),
        ("PRIORITY of 4", &|good| [begun(good), frame(PRIORITY, 0, 1, &[0; 4])].concat(), either),
        ("PRIORITY of 6", &|good| [begun(good), frame(PRIORITY, 0, 1, &[0; 6])].concat(), either),
        ("GOAWAY of 7", &|_| frame(GOAWAY, 0, 0, &[0; 7]), connection),
    ];
    hold(&talos, &good, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_on_the_wrong_kind_of_stream_are_refused() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "framer").await;
    let wrong = &[Goaway(PROTOCOL_ERROR)];
    let cases: &[Case] = &[
        ("DATA on 0", &|_| frame(DATA, END_STREAM, 0, b"a"), wrong),
        ("HEADERS on 0", &|good| frame(HEADERS, WHOLE | END_STREAM, 0, &good.head()), wrong),
        ("PRIORITY on 0", &|_| frame(PRIORITY, 0, 0, &[0, 0, 0, 3, 1]), wrong),
        ("RST_STREAM on 0", &|_| frame(RST_STREAM, 0, 0, &[0; 4]), wrong),
        ("CONTINUATION on 0", &|good| frame(CONTINUATION, WHOLE, 0, &good.head()), wrong),
        ("PUSH_PROMISE on 0", &|good| frame(PUSH_PROMISE, WHOLE, 0, &promise(good)), wrong),
        (
            "PUSH_PROMISE",
            &|good| [begun(good), frame(PUSH_PROMISE, WHOLE, 1, &promise(good))].concat(),
            wrong,
        ),
        ("PING on 1", &|_| frame(PING, 0, 1, &[0; 8]), wrong),
        ("PING on 1, which is open", &|good| [begun(good), frame(PING, 0, 1, &[0; 8])].concat(), wrong),
        ("GOAWAY on 1", &|_| frame(GOAWAY, 0, 1, &[0; 8]), wrong),
    ];
    hold(&talos, &good, cases).await;
}

/// A promised stream and its head.
fn promise(good: &Good) -> Vec<u8> {
    [&2_u32.to_be_bytes()[..], &good.head()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_and_harmless_frames_are_ignored() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "framer").await;
    let within = |frame: Vec<u8>| {
        move |good: &Good| [begun(good), frame.clone(), last_data(1, &good.message)].concat()
    };
    let unknown = |stream, flags| frame(UNKNOWN, flags, stream, &[0xff; 100]);
    let reserved = 1 << 31;
    let cases: &[Case] = &[
        ("an unknown frame", &|_| unknown(0, 0), &[Silence]),
        ("one with all flags", &|_| unknown(0, 0xff), &[Silence]),
        ("one without a payload", &|_| frame(UNKNOWN, 0xff, 0, &[]), &[Silence]),
        ("one on an idle stream", &|_| unknown(9, 0), &[Silence]),
        (
            "many of them",
            &|_| (10..=250).flat_map(|kind| frame(kind, kind, 0, &[kind])).collect(),
            &[Silence],
        ),
        ("one within a call", &within(unknown(1, 0xff)), &[Allowed]),
        ("one after a call", &|good| [good.on(1), unknown(1, 0)].concat(), &[Allowed]),
        ("another stream's within a call", &within(unknown(3, 0)), &[Allowed]),
        ("a ping within a call", &within(ping(*b"pingpong")), &[Allowed]),
        ("a pong that nobody asked for", &within(frame(PING, ACK, 0, &[7; 8])), &[Allowed]),
        ("a ping with all other flags", &within(frame(PING, 0xfe, 0, &[7; 8])), &[Allowed]),
        (
            "DATA with flags without a meaning",
            &|good| [begun(good), frame(DATA, END_STREAM | 0xf6, 1, &good.message)].concat(),
            &[Allowed],
        ),
        (
            "HEADERS with flags without a meaning",
            &|good| [frame(HEADERS, WHOLE | 0xd2, 1, &good.head()), last_data(1, &good.message)].concat(),
            &[Allowed],
        ),
        (
            "the reserved bit of a stream",
            &|good| {
                let head = frame(HEADERS, WHOLE, 1 | reserved, &good.head());
                [head, frame(DATA, END_STREAM, 1 | reserved, &good.message)].concat()
            },
            &[Allowed],
        ),
        (
            "the reserved bit of a window",
            &within(frame(WINDOW_UPDATE, 0, 1, &(1 | reserved).to_be_bytes())),
            &[Allowed],
        ),
        (
            "an error that nobody knows",
            &|good| [begun(good), frame(RST_STREAM, 0, 1, &[0xff; 4])].concat(),
            &[Silence],
        ),
    ];
    hold(&talos, &good, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_are_answered_in_their_order_also_within_a_call() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "pinger").await;
    let mut wire = Wire::open(talos.authz).await;
    let numbers: Vec<[u8; 8]> = (0..100_u64).map(|n| (n << 32 | n).to_be_bytes()).collect();
    wire.send(&headers(1, &good.head())).await;
    let parts = good.message.chunks(good.message.len().div_ceil(numbers.len()));
    let mut parts = parts.map(|part| super::frames::data(1, part));
    for number in &numbers {
        wire.send(&[ping(*number), parts.next().unwrap_or_default()].concat()).await;
    }
    wire.send(&last_data(1, &[])).await;
    wire.answer(1).await.allows(&good);
    wire.until("all pings are answered", |wire| wire.pongs.len() == numbers.len()).await;
    assert!(wire.pongs.iter().eq(&numbers), "{:?}", wire.pongs);
}
