//! Flow control of responses (RFC 9113, 5.2 and 6.9).
//!
//! The client itself checks that nothing is sent beyond a window.

use super::call::{Good, NOWHERE, call_of, framed};
use super::client::Wire;
use super::frames::{CANCEL, DEFAULT_FRAME, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, headers, last_data, reset};
use crate::rig::talos::Talos;

/// Waits for a response without a body, after which the server has sent all that it could.
async fn pause(wire: &mut Wire, stream: u32) {
    wire.ping().await;
    wire.send(&[headers(stream, &call_of(NOWHERE)), last_data(stream, &framed(&[]))].concat()).await;
    let answer = wire.answer(stream).await;
    assert_eq!((answer.grpc_status(), answer.data.len()), (Some(12), 0), "{answer:?}");
}

/// Waits until so much of an answer has come, and sees that it stays so.
async fn comes_to(wire: &mut Wire, stream: u32, bytes: usize, pause_on: &mut u32) {
    wire.until("data", |wire| wire.received(stream) >= bytes).await;
    pause(wire, *pause_on).await;
    *pause_on += 2;
    assert_eq!(wire.received(stream), bytes);
}

async fn small_windows(talos: &Talos, initial: u32) -> Wire {
    let mut wire = Wire::open_with(talos.authz, &[(INITIAL_WINDOW_SIZE, initial)]).await;
    wire.replenishes = false;
    wire
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_in_the_pieces_that_its_window_lets_through() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "waiter").await;
    for initial in [0, 1, 4, 5, 6, 10, 100] {
        let mut wire = small_windows(&talos, initial).await;
        wire.send(&good.on(1)).await;
        let mut came = initial as usize;
        let mut pauses = 3;
        comes_to(&mut wire, 1, came, &mut pauses).await;
        for more in [1, 1, 1, 2, 3, 50] {
            wire.grant(1, more).await;
            came += more as usize;
            comes_to(&mut wire, 1, came, &mut pauses).await;
        }
        assert!(!wire.heard[&1].is_over());
        wire.grant(1, 100_000).await;
        wire.answer(1).await.allows(&good);
    }
    // The window was there before the answer was.
    let mut wire = small_windows(&talos, 0).await;
    wire.send(&headers(1, &good.head())).await;
    wire.grant(1, 100_000).await;
    wire.upload(1, &good.message, DEFAULT_FRAME, true).await;
    wire.answer(1).await.allows(&good);
    // A byte more than it takes, and just what it takes.
    let length = u32::try_from(5 + length(&talos, &good).await).unwrap_or(0);
    for initial in [length - 1, length, length + 1] {
        let mut wire = small_windows(&talos, initial).await;
        wire.send(&good.on(1)).await;
        if initial < length {
            comes_to(&mut wire, 1, initial as usize, &mut 3).await;
            wire.grant(1, 1).await;
        }
        wire.answer(1).await.allows(&good);
    }
}

/// Bytes of the message that answers a Check. Answers are of one length as long as tokens are.
async fn length(talos: &Talos, good: &Good) -> usize {
    let mut wire = Wire::open(talos.authz).await;
    wire.send(&good.on(1)).await;
    wire.answer(1).await.message().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_initial_window_counts_for_open_streams() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "waiter").await;
    let mut wire = small_windows(&talos, 10).await;
    let mut pauses = 3;
    wire.send(&good.on(1)).await;
    comes_to(&mut wire, 1, 10, &mut pauses).await;
    // Now 5 bytes too many have come: so many must be made good before a further one.
    wire.settings(&[(INITIAL_WINDOW_SIZE, 5)]).await;
    comes_to(&mut wire, 1, 10, &mut pauses).await;
    wire.grant(1, 4).await;
    comes_to(&mut wire, 1, 10, &mut pauses).await;
    wire.grant(1, 1).await;
    comes_to(&mut wire, 1, 10, &mut pauses).await;
    wire.grant(1, 1).await;
    comes_to(&mut wire, 1, 11, &mut pauses).await;
    wire.settings(&[(INITIAL_WINDOW_SIZE, 0)]).await;
    wire.settings(&[(INITIAL_WINDOW_SIZE, 5)]).await;
    comes_to(&mut wire, 1, 11, &mut pauses).await;
    // Two changes that come together, of which the first lets nothing through.
    wire.announce(&[(INITIAL_WINDOW_SIZE, 1)]).await;
    wire.settings(&[(INITIAL_WINDOW_SIZE, 20)]).await;
    comes_to(&mut wire, 1, 26, &mut pauses).await;
    // A new stream begins with what is in force.
    pauses += 2;
    let second = pauses - 2;
    wire.send(&good.on(second)).await;
    comes_to(&mut wire, second, 20, &mut pauses).await;
    wire.settings(&[(INITIAL_WINDOW_SIZE, 100_000)]).await;
    for stream in [1, second] {
        wire.answer(stream).await.allows(&good);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_window_of_the_connection_counts_for_all_streams() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "waiter").await;
    let mut wire = small_windows(&talos, 1 << 20).await;
    let calls = 65_535 / length(&talos, &good).await + 3;
    let streams: Vec<u32> = (0..calls).map(|call| call as u32 * 2 + 1).collect();
    for stream in &streams {
        wire.send(&good.on(*stream)).await;
    }
    let total = |wire: &Wire| streams.iter().map(|stream| wire.received(*stream)).sum::<usize>();
    let mut pauses = 10_001;
    let mut came = 65_535;
    for more in [0, 1, 10, 100] {
        if more > 0 {
            wire.grant(0, more).await;
        }
        came += more as usize;
        wire.until("data", |wire| total(wire) >= came).await;
        pause(&mut wire, pauses).await;
        pauses += 2;
        assert_eq!(total(&wire), came);
    }
    // Streams that are given up leave the connection's window to the others.
    let waits = |stream: &u32| wire.heard.get(stream).is_none_or(|heard| !heard.is_over());
    let waiting: Vec<u32> = streams.iter().copied().filter(waits).collect();
    assert!(waiting.len() >= 2, "{waiting:?}");
    let given_up = waiting[0];
    wire.send(&reset(given_up, CANCEL)).await;
    wire.grant(0, 1 << 20).await;
    for stream in streams.iter().filter(|stream| **stream != given_up) {
        wire.answer(*stream).await.allows(&good);
    }
    wire.call(20_001, &good).await;
    wire.answer(20_001).await.allows(&good);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_stream_holds_up_no_other_and_leaves_nothing_behind() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "waiter").await;
    let mut wire = small_windows(&talos, 0).await;
    let mut stream = 1;
    wire.send(&good.on(stream)).await;
    let blocked = stream;
    for _ in 0..10 {
        stream += 2;
        wire.send(&good.on(stream)).await;
        wire.grant(stream, 100_000).await;
        wire.answer(stream).await.allows(&good);
    }
    assert_eq!(wire.received(blocked), 0);
    wire.grant(0, 1 << 20).await;
    wire.grant(blocked, 3).await;
    wire.send(&reset(blocked, CANCEL)).await;
    // More of them than there may be at once, each time a few.
    for _ in 0..60 {
        let first = stream + 2;
        let calls: Vec<u8> = (0..30).flat_map(|call| good.on(first + call * 2)).collect();
        wire.send(&calls).await;
        wire.ping().await;
        let resets: Vec<u8> = (0..30).flat_map(|call| reset(first + call * 2, CANCEL)).collect();
        wire.send(&resets).await;
        stream = first + 60;
    }
    wire.replenishes = true;
    wire.settings(&[(INITIAL_WINDOW_SIZE, 65_535)]).await;
    for _ in 0..100 {
        stream += 2;
        wire.call(stream, &good).await;
        wire.answer(stream).await.allows(&good);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_gets_all_responses_in_order() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "waiter").await;
    let long = good.answered_by(20_000);
    let mut wire = Wire::narrow(talos.authz).await;
    let mut stream = 1;
    for _ in 0..3 {
        let first = stream;
        wire.grant(0, 1 << 22).await;
        // Far more answers than fit between the two, none of them read.
        for call in 0..700 {
            wire.call(stream, if call % 100 == 0 { &long } else { &good }).await;
            stream += 2;
        }
        for answered in (first..stream).step_by(2) {
            wire.answer(answered).await.allows(&good);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_answers_come_in_frames_that_the_client_takes() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "waiter").await;
    let long = good.answered_by(60_000);
    for (frame, window) in
        [(16_384, 65_535), (16_384, 1 << 20), (20_000, 1 << 20), (1 << 20, 1 << 20), (16_384, 1_000)]
    {
        let values = [(MAX_FRAME_SIZE, frame), (INITIAL_WINDOW_SIZE, window)];
        let mut wire = Wire::open_with(talos.authz, &values).await;
        wire.call(1, &long).await;
        let heard = wire.answer(1).await;
        heard.allows(&long);
        assert!(heard.data.len() > 50_000, "{} bytes are no long answer", heard.data.len());
        wire.call(3, &good).await;
        wire.answer(3).await.allows(&good);
    }
}
