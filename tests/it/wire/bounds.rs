//! Timeouts and the memory of messages.

use std::time::{Duration, Instant};

use super::call::Good;
use super::cases::answers;
use super::client::Wire;
use super::frames::{
    CONTINUATION, DATA, DEFAULT_FRAME, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, PREFACE, data, frame, headers,
    last_data,
};
use crate::rig::support::{number_from, within};
use crate::rig::talos::Talos;

/// Time that a client may be silent at first, and the delay of a busy machine on top.
const TIMEOUT: Duration = Duration::from_secs(10 + 6);

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_begin_or_finish_time_out() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "opener").await;
    let began = Instant::now();
    tokio::join!(
        who_does_not_begin(&talos),
        who_does_not_finish(&talos, &good),
        who_is_slow(&talos, slow_head(&good)),
        who_is_slow(&talos, slow_frame(&good)),
    );
    assert!(began.elapsed() > Duration::from_secs(9) && began.elapsed() < TIMEOUT, "{:?}", began.elapsed());
    answers(&talos, &good).await;
}

/// Waits until they are sent away.
async fn who_does_not_begin(talos: &Talos) {
    let mut waiting = vec![];
    for first in [0, 1, 23] {
        let mut wire = Wire::connect(talos.authz).await;
        wire.send(&PREFACE[..first]).await;
        waiting.push(wire);
    }
    for mut wire in waiting {
        wire.end_of_silence().await;
    }
}

/// Waits until its calls end with DEADLINE_EXCEEDED, and asserts that the connection lives.
async fn who_does_not_finish(talos: &Talos, good: &Good) {
    let mut wire = Wire::open(talos.authz).await;
    let (first, rest) = good.halves();
    // No data, a part of the message, and the whole message without END_STREAM.
    let calls = [(1, &b""[..]), (3, first), (5, &good.message)];
    for (stream, part) in calls {
        wire.send(&[headers(stream, &good.head()), data(stream, part)].concat()).await;
    }
    for (stream, _) in calls {
        let heard = within("a call is given up", wire.answer(stream)).await;
        assert_eq!(heard.grpc_status(), Some(4), "{heard:?}");
    }
    // Late data for an ended stream are no error of the connection.
    wire.send(&[last_data(3, rest), good.on(7)].concat()).await;
    wire.answer(7).await.allows(good);
}

/// Returns a header block that comes byte by byte, each in a frame of its own.
fn slow_head(good: &Good) -> Vec<Vec<u8>> {
    let part = |(index, byte): (usize, &u8)| {
        let kind = if index == 0 { HEADERS } else { CONTINUATION };
        frame(kind, 0, 1, &[*byte])
    };
    good.head().iter().enumerate().map(part).collect()
}

/// A frame that comes by the byte, after a head.
fn slow_frame(good: &Good) -> Vec<Vec<u8>> {
    let data = frame(DATA, END_STREAM, 1, &[0; DEFAULT_FRAME]);
    let parts = data.chunks(1).map(<[u8]>::to_vec);
    std::iter::once(headers(1, &good.head())).chain(parts).collect()
}

/// Sends a part each second, and asserts that the connection is closed all the same.
async fn who_is_slow(talos: &Talos, parts: Vec<Vec<u8>>) {
    let mut wire = Wire::open(talos.authz).await;
    for part in &parts[..8] {
        wire.send(part).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(wire.end().await.map(|goaway| goaway.code), Some(ENHANCE_YOUR_CALM));
}

/// Half a minute and more: for the long run alone.
#[tokio::test(flavor = "multi_thread")]
async fn silent_clients_are_pinged() {
    if number_from("TALOS_TEST_WIRE", 0) < 5_000 {
        return;
    }
    let talos = Talos::start().await;
    let good = Good::new(&talos, "opener").await;
    let (mut there, mut gone) = (Wire::open(talos.authz).await, Wire::open(talos.authz).await);
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(20)).await;
    for wire in [&mut there, &mut gone] {
        wire.answers_pings = false;
        wire.until("a ping", |wire| !wire.owed.is_empty()).await;
    }
    there.pong().await;
    let asked = began.elapsed();
    gone.end().await;
    println!("asked after {asked:?}, who doesn't answer is sent away after {:?}", began.elapsed());
    assert!(began.elapsed() > Duration::from_secs(35), "{:?}", began.elapsed());
    there.call(1, &good).await;
    there.answer(1).await.allows(&good);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_have_no_end_are_held_within_bounds() {
    const MIB: usize = 1 << 20;
    let talos = Talos::start().await;
    let good = Good::new(&talos, "flooder").await;
    let before = talos.process.memory();
    let mut wire = Wire::open(talos.authz).await;
    // Messages of 4 MiB, each without its last byte: a connection may hold 16 MiB.
    let message = [&[0, 0, 0x40, 0, 0][..], &vec![0; 4 * MIB - 1]].concat();
    let streams: Vec<u32> = (0..25).map(|call| call * 2 + 1).collect();
    for stream in &streams {
        wire.send(&headers(*stream, &good.head())).await;
        wire.upload(*stream, &message, 16_384, false).await;
    }
    wire.ping().await;
    let growth = talos.process.memory().saturating_sub(before) as usize;
    let refused = streams.iter().filter(|stream| wire.heard.get(stream).is_some_and(|heard| heard.is_over()));
    let codes: Vec<Option<u32>> = refused.map(|stream| wire.heard[stream].grpc_status()).collect();
    println!("{} of {} refused, {} MiB more", codes.len(), streams.len(), growth / MIB);
    assert!(codes.len() >= 21 && codes.iter().all(|code| matches!(code, Some(8 | 4))), "{codes:?}");
    assert!(growth < 40 * MIB, "{growth} bytes");
    wire.call(1_001, &good).await;
    wire.answer(1_001).await.allows(&good);
}
