//! The preface and settings (RFC 9113, 3.4 and 6.5).

use super::call::Good;
use super::cases::Reaction::{Allowed, Goaway, Hangup, Silence};
use super::cases::{Case, hold, react};
use super::client::Wire;
use super::frames::{
    ACK, ENABLE_PUSH, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE, PREFACE, PROTOCOL_ERROR, SETTINGS, frame,
    headers, settings, window_update,
};
use crate::rig::talos::Talos;

#[tokio::test(flavor = "multi_thread")]
async fn connections_begin_with_the_preface_and_settings() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "opener").await;
    let wrong = &[Goaway(PROTOCOL_ERROR), Hangup];
    // SETTINGS must come first (RFC 9113, 3.4); h2 accepts other frames.
    let unsettled = &[Goaway(PROTOCOL_ERROR), Hangup, Allowed];
    let cases: &[Case] = &[
        ("HTTP/1.1", &|_| b"GET / HTTP/1.1\r\nhost: talos.test\r\n\r\n".to_vec(), wrong),
        ("a wrong last byte", &|_| [&PREFACE[..23], b"x"].concat(), wrong),
        ("a wrong first byte", &|_| [b"Q", &PREFACE[1..]].concat(), wrong),
        ("TLS", &|_| [&[0x16, 3, 1, 2, 0, 1][..], &[0; 40]].concat(), wrong),
        ("a call before settings", &|good| [PREFACE, &good.on(1)].concat(), unsettled),
        ("a call beside settings", &|good| [PREFACE, &settings(&[]), &good.on(1)].concat(), &[Allowed]),
        (
            "as Envoy begins",
            &|good| {
                let settings = settings(&[
                    (HEADER_TABLE_SIZE, 4_096),
                    (ENABLE_PUSH, 0),
                    (MAX_CONCURRENT_STREAMS, 2_147_483_647),
                    (INITIAL_WINDOW_SIZE, 268_435_456),
                    // Extended CONNECT, and that priorities mean nothing.
                    (8, 1),
                    (9, 1),
                ]);
                [PREFACE, &settings, &window_update(0, 268_369_921), &good.on(1)].concat()
            },
            &[Allowed],
        ),
    ];
    for (name, make, due) in cases {
        let mut wire = Wire::connect(talos.authz).await;
        wire.send(&make(&good)).await;
        let reaction = react(&mut wire, &good, due).await;
        assert!(due.contains(&reaction), "{name}: {reaction:?}, not one of {due:?}");
    }
    // A byte at a time is as good as all at once.
    let mut wire = Wire::connect(talos.authz).await;
    for byte in [PREFACE, &settings(&[(ENABLE_PUSH, 0)]), &good.on(1)].concat() {
        wire.send(&[byte]).await;
    }
    wire.answer(1).await.allows(&good);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_heeded_or_refused() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "settler").await;
    let fine = &[Silence];
    let wrong = &[Goaway(PROTOCOL_ERROR)];
    // h2 says PROTOCOL_ERROR to every frame that has a wrong size.
    let size = &[Goaway(FRAME_SIZE_ERROR), Goaway(PROTOCOL_ERROR)];
    // h2 says PROTOCOL_ERROR to a window that is too large, too.
    let window = &[Goaway(FLOW_CONTROL_ERROR), Goaway(PROTOCOL_ERROR)];
    let cases: &[Case] = &[
        ("none", &|_| settings(&[]), fine),
        ("unknown ones", &|_| settings(&[(0, 1), (7, 7), (0xffff, u32::MAX), (0x0a0a, 0)]), fine),
        ("flags without a meaning", &|_| frame(SETTINGS, 0xfe, 0, &[0, 2, 0, 0, 0, 0]), fine),
        ("all that are known", &|_| settings(&ALL), fine),
        ("one of them twice", &|_| settings(&[(MAX_FRAME_SIZE, 16_384), (MAX_FRAME_SIZE, 16_385)]), fine),
        ("a thousand", &|_| settings(&[(MAX_HEADER_LIST_SIZE, 65_536); 1_000]), fine),
        ("the smallest frame", &|_| settings(&[(MAX_FRAME_SIZE, 16_384)]), fine),
        ("the largest frame", &|_| settings(&[(MAX_FRAME_SIZE, (1 << 24) - 1)]), fine),
        ("the largest window", &|_| settings(&[(INITIAL_WINDOW_SIZE, (1 << 31) - 1)]), fine),
        ("the largest table", &|_| settings(&[(HEADER_TABLE_SIZE, u32::MAX)]), fine),
        ("five bytes", &|_| frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0]), size),
        ("seven bytes", &|_| frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 0, 0]), size),
        ("an acknowledgement that says something", &|_| frame(SETTINGS, ACK, 0, &[0; 6]), size),
        ("on a stream", &|_| frame(SETTINGS, 0, 1, &[]), wrong),
        ("an acknowledgement on a stream", &|_| frame(SETTINGS, ACK, 1, &[]), wrong),
        ("a push that is neither on nor off", &|_| settings(&[(ENABLE_PUSH, 2)]), wrong),
        ("a window beyond all bounds", &|_| settings(&[(INITIAL_WINDOW_SIZE, 1 << 31)]), window),
        ("frames that are too small", &|_| settings(&[(MAX_FRAME_SIZE, 16_383)]), wrong),
        ("frames that are too large", &|_| settings(&[(MAX_FRAME_SIZE, 1 << 24)]), wrong),
        ("frames of nothing", &|_| settings(&[(MAX_FRAME_SIZE, 0)]), wrong),
        // An acknowledgement without SETTINGS may be ignored, too.
        (
            "an acknowledgement of nothing",
            &|_| frame(SETTINGS, ACK, 0, &[]),
            &[Silence, Goaway(PROTOCOL_ERROR)],
        ),
    ];
    hold(&talos, &good, cases).await;
}

const ALL: [(u16, u32); 6] = [
    (HEADER_TABLE_SIZE, 8_192),
    (ENABLE_PUSH, 0),
    (MAX_CONCURRENT_STREAMS, 0),
    (INITIAL_WINDOW_SIZE, 65_536),
    (MAX_FRAME_SIZE, 32_768),
    (MAX_HEADER_LIST_SIZE, 8_192),
];

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_acknowledged_one_by_one_and_ours_are_what_we_keep_to() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "settler").await;
    let mut wire = Wire::open_with(talos.authz, &ALL).await;
    let theirs = wire.theirs.clone().unwrap_or_default();
    assert!(theirs.get(&MAX_CONCURRENT_STREAMS).is_some_and(|most| *most >= 100), "{theirs:?}");
    assert!(theirs.get(&MAX_HEADER_LIST_SIZE).is_some_and(|most| *most >= 8_192), "{theirs:?}");
    // The other tests count on the table that both ends begin with.
    assert!(matches!(theirs.get(&HEADER_TABLE_SIZE), None | Some(4_096..)), "{theirs:?}");
    // A server may say that it pushes nothing, and nothing else of that.
    assert!(matches!(theirs.get(&ENABLE_PUSH), None | Some(0)), "{theirs:?}");
    assert!(theirs.get(&INITIAL_WINDOW_SIZE).is_none_or(|window| *window < 1 << 31), "{theirs:?}");
    assert!(theirs.get(&MAX_FRAME_SIZE).is_none_or(|most| (16_384..1 << 24).contains(most)), "{theirs:?}");
    for round in 0..20 {
        // Many at once, and within a call.
        let stream = round * 2 + 1;
        let (first, rest) = good.halves();
        wire.send(&headers(stream, &good.head())).await;
        for _ in 0..5 {
            wire.announce(&[(INITIAL_WINDOW_SIZE, 70_000 + round)]).await;
        }
        wire.upload(stream, first, 1_000, false).await;
        wire.settings(&[]).await;
        wire.upload(stream, rest, 1_000, true).await;
        wire.answer(stream).await.allows(&good);
    }
}
