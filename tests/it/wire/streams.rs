//! Streams: their numbers, their states, their windows (RFC 9113, 5.1 and 6.9).

use super::call::{Good, HEALTH, call_of, framed};
use super::cases::Reaction::{Allowed, Goaway, Reset, Silence};
use super::cases::{Case, Reaction, hold};
use super::client::Wire;
use super::frames::{
    CANCEL, FLOW_CONTROL_ERROR, HEADERS, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, MAX_WINDOW, NO_ERROR,
    PRIORITY, PROTOCOL_ERROR, REFUSED_STREAM, STREAM_CLOSED, WHOLE, data, frame, headers, last_data, reset,
    settings, window_update,
};
use crate::rig::support::Must;
use crate::rig::talos::Talos;

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_opened_by_odd_and_rising_numbers() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "streamer").await;
    let wrong = &[Goaway(PROTOCOL_ERROR)];
    // A stream with a lower number was closed when a later one was opened.
    let closed = &[Goaway(PROTOCOL_ERROR), Goaway(STREAM_CLOSED)];
    let cases: &[Case] = &[
        ("an even one", &|good| good.on(2), wrong),
        ("an even one after an odd one", &|good| [good.on(1), good.on(4)].concat(), wrong),
        ("backwards", &|good| [good.on(5), good.on(3)].concat(), closed),
        ("numbers left out", &|good| [good.on(1), good.on(701)].concat(), &[Allowed]),
        ("DATA on an idle stream", &|_| last_data(1, b"a"), wrong),
        ("RST_STREAM on an idle stream", &|_| reset(1, CANCEL), wrong),
        ("WINDOW_UPDATE on an idle stream", &|_| window_update(1, 1), wrong),
        ("DATA on one of the server's", &|_| last_data(2, b"a"), wrong),
        ("RST_STREAM on one of the server's", &|_| reset(2, CANCEL), wrong),
        ("WINDOW_UPDATE on one of the server's", &|_| window_update(2, 1), wrong),
        ("PRIORITY on an idle stream", &|_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]), &[Silence]),
    ];
    hold(&talos, &good, cases).await;
    // The largest there is.
    let mut wire = Wire::open(talos.authz).await;
    wire.send(&good.on(MAX_WINDOW)).await;
    wire.answer(MAX_WINDOW).await.allows(&good);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_on_an_ended_stream_are_refused_or_ignored() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "streamer").await;
    // The answer may be sent before or after the next frame comes.
    // h2 says PROTOCOL_ERROR: of the stream for HEADERS on an open one, else of the connection.
    let ended = &[Reset(STREAM_CLOSED), Goaway(STREAM_CLOSED), Goaway(PROTOCOL_ERROR)];
    let head: &[Reaction] = &[ended as &[_], &[Reset(PROTOCOL_ERROR)]].concat();
    // The client gave it up: what was on its way may be ignored, and need not be.
    let given_up = &[Silence, Reset(STREAM_CLOSED), Goaway(STREAM_CLOSED)];
    let given_up_head: &[Reaction] = &[given_up as &[_], &[Goaway(PROTOCOL_ERROR)]].concat();
    let then = |more: fn(&Good) -> Vec<u8>| move |good: &Good| [good.on(1), more(good)].concat();
    let no_more = |more: fn(&Good) -> Vec<u8>| {
        move |good: &Good| {
            let (first, _) = good.halves();
            [headers(1, &good.head()), data(1, first), reset(1, CANCEL), more(good)].concat()
        }
    };
    let cases: &[Case] = &[
        ("DATA after the end", &then(|_| data(1, b"more")), ended),
        ("empty DATA after the end", &then(|_| last_data(1, &[])), ended),
        ("HEADERS after the end", &then(|good| headers(1, &good.head())), head),
        ("a second call after the end", &then(|good| good.on(1)), head),
        ("PRIORITY after the end", &then(|_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1])), &[Allowed]),
        ("WINDOW_UPDATE after the end", &then(|_| window_update(1, 100)), &[Allowed]),
        ("RST_STREAM after the end", &then(|_| reset(1, NO_ERROR)), &[Allowed, Silence]),
        ("nothing after giving up", &no_more(|_| vec![]), &[Silence]),
        ("DATA after giving up", &no_more(|good| last_data(1, good.halves().1)), given_up),
        ("HEADERS after giving up", &no_more(|good| headers(1, &good.head())), given_up_head),
        ("PRIORITY after giving up", &no_more(|_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1])), &[Silence]),
        ("WINDOW_UPDATE after giving up", &no_more(|_| window_update(1, 100)), given_up),
        ("RST_STREAM after giving up", &no_more(|_| reset(1, CANCEL)), given_up),
    ];
    hold(&talos, &good, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn priorities_are_read_and_count_for_nothing() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "streamer").await;
    // RFC 7540 refused a stream that depends on itself, RFC 9113 doesn't speak of it any more.
    let itself = &[Silence, Reset(PROTOCOL_ERROR), Goaway(PROTOCOL_ERROR)];
    let head_on_itself = &[Allowed, Reset(PROTOCOL_ERROR), Goaway(PROTOCOL_ERROR)];
    let call = |depends_on: u32| {
        move |good: &Good| {
            let block = super::frames::with_priority(depends_on, &good.head());
            let head = frame(HEADERS, WHOLE | super::frames::WITH_PRIORITY, 1, &block);
            [head, last_data(1, &good.message)].concat()
        }
    };
    let cases: &[Case] = &[
        ("a head with a priority", &call(0), &[Allowed]),
        ("one that depends on a stream to come", &call(77), &[Allowed]),
        ("one that alone depends on a stream", &call(3 | 1 << 31), &[Allowed]),
        ("one that depends on itself", &call(1), head_on_itself),
        ("PRIORITY on itself", &|_| frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 1]), itself),
        ("PRIORITY on another one", &|_| frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 255]), &[Silence]),
        (
            "PRIORITY within a call",
            &|good| {
                [
                    headers(1, &good.head()),
                    frame(PRIORITY, 0, 1, &[0x80, 0, 0, 3, 0]),
                    last_data(1, &good.message),
                ]
                .concat()
            },
            &[Allowed],
        ),
    ];
    hold(&talos, &good, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_grow_within_bounds() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "streamer").await;
    let stream = &[Reset(FLOW_CONTROL_ERROR), Goaway(FLOW_CONTROL_ERROR)];
    let connection = &[Goaway(FLOW_CONTROL_ERROR)];
    // An error of the stream's; h2 ends the connection.
    let nothing = &[Reset(PROTOCOL_ERROR), Goaway(PROTOCOL_ERROR)];
    let begun = |more: Vec<u8>| move |good: &Good| [headers(1, &good.head()), more.clone()].concat();
    let cases: &[Case] = &[
        ("by nothing", &|_| window_update(0, 0), &[Goaway(PROTOCOL_ERROR)]),
        ("a stream's by nothing", &begun(window_update(1, 0)), nothing),
        ("the connection's to its bound", &|_| window_update(0, MAX_WINDOW - 65_535), &[Silence]),
        ("the connection's beyond it", &|_| window_update(0, MAX_WINDOW - 65_534), connection),
        ("the connection's by twice the most", &|_| window_update(0, MAX_WINDOW).repeat(2), connection),
        ("a stream's to its bound", &begun(window_update(1, MAX_WINDOW - 65_535)), &[Silence]),
        ("a stream's beyond it", &begun(window_update(1, MAX_WINDOW - 65_534)), stream),
        (
            "a stream's by what all begin with",
            &begun(
                [window_update(1, MAX_WINDOW - 65_535), settings(&[(INITIAL_WINDOW_SIZE, 65_536)])].concat(),
            ),
            connection,
        ),
    ];
    hold(&talos, &good, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_streams_are_open_at_once_than_the_server_said() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "streamer").await;
    let mut wire = Wire::open(talos.authz).await;
    let most = wire.theirs.as_ref().and_then(|theirs| theirs.get(&MAX_CONCURRENT_STREAMS)).copied();
    let most = most.must("a bound");
    let head = good.head();
    let (first, rest) = good.halves();
    let open: Vec<u32> = (0..most).map(|n| n * 2 + 1).collect();
    for stream in &open {
        wire.send(&headers(*stream, &head)).await;
        wire.upload(*stream, first, 16_384, false).await;
    }
    // The surplus is refused, its data with it, and the rest goes on.
    for stream in [most * 2 + 1, most * 2 + 3] {
        wire.call(stream, &good).await;
        let refused = wire.answer(stream).await.reset;
        assert!(matches!(refused, Some(REFUSED_STREAM | PROTOCOL_ERROR)), "{refused:?}");
    }
    for stream in &open {
        wire.upload(*stream, rest, 16_384, true).await;
    }
    for stream in &open {
        wire.answer(*stream).await.allows(&good);
    }
    // All of them are free again.
    let again = most * 2 + 5;
    for stream in (0..most).map(|n| again + n * 2) {
        wire.call(stream, &good).await;
        if stream % 64 == 1 {
            wire.answer(stream).await.allows(&good);
        }
    }
    wire.answer(again + (most - 1) * 2).await.allows(&good);
    // Heads of other calls are as good.
    let last = again + most * 2;
    wire.send(&[headers(last, &call_of(HEALTH)), last_data(last, &framed(&[]))].concat()).await;
    assert_eq!(wire.answer(last).await.message(), super::call::SERVING);
}
