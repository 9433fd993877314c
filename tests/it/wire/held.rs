//! Bounds on memory and CPU time by the bytes that a client sends, for one connection and for all.

use std::time::{Duration, Instant};

use super::call::{Good, HEALTH, NOWHERE, REFLECTION, WATCH, call_of, framed, reflect};
use super::cases::answers;
use super::client::Wire;
use super::frames::{
    CONTINUATION, DEFAULT_FRAME, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, INITIAL_WINDOW_SIZE,
    PRIORITY, WHOLE, data, frame, headers, last_data, reset, settings, window_update,
};
use super::heard::Heard;
use super::hpack::{Encoder, Form, Style};
use crate::rig::talos::Talos;

const MIB: u64 = 1 << 20;
/// Most memory of all connections, with a margin for a debug build and the allocator.
const PROCESS: u64 = 64 * MIB * 3 / 2 + 16 * MIB;

fn growth(talos: &Talos, before: u64) -> u64 {
    let growth = talos.process.memory().saturating_sub(before);
    println!("{} KiB more", growth / 1024);
    growth
}

fn odd(calls: u32) -> impl Iterator<Item = u32> {
    (0..calls).map(|call| call * 2 + 1)
}

/// Returns whether a call was refused, by a gRPC status or by a reset.
fn is_refused(heard: &Heard) -> bool {
    match heard.reset {
        Some(_) if !heard.ended => true,
        _ => heard.grpc_status().is_some_and(|status| status != 0),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_announce_much_and_send_little_hold_little() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "announcer").await;
    let before = talos.process.memory();
    // The prefix of a message of 4 MiB, and its first byte.
    let begin = [0, 0, 0x40, 0, 0, 0];
    let mut wires = vec![];
    for path in [HEALTH, WATCH, REFLECTION, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"]
    {
        for _ in 0..3 {
            let mut wire = Wire::open(talos.authz).await;
            let calls: Vec<u8> = odd(400)
                .flat_map(|call| [headers(call, &call_of(path)), data(call, &begin)].concat())
                .collect();
            wire.send(&calls).await;
            wire.ping().await;
            wires.push(wire);
        }
    }
    assert!(growth(&talos, before) < 64 * MIB);
    for wire in &mut wires {
        // No call stays open for the rest of its message.
        wire.until("all are refused", |wire| {
            odd(400).all(|call| wire.heard.get(&call).is_some_and(Heard::is_over))
        })
        .await;
        assert!(wire.heard.values().all(|heard| heard.messages().is_empty()));
        wire.call(1_001, &good).await;
        wire.answer(1_001).await.allows(&good);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_nobody_reads_are_refused() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "sender").await;
    let before = talos.process.memory();
    // The server reads no further question until the answer to the first is taken.
    let question = reflect(7, "*");
    let body = question.repeat(200_000 / question.len());
    let mut wires = vec![];
    for _ in 0..5 {
        let mut wire = Wire::open_with(talos.authz, &[(INITIAL_WINDOW_SIZE, 0)]).await;
        for call in odd(100) {
            wire.send(&headers(call, &call_of(REFLECTION))).await;
            for part in body.chunks(DEFAULT_FRAME) {
                if wire.heard.get(&call).is_some_and(Heard::is_over) {
                    break;
                }
                wire.upload(call, part, DEFAULT_FRAME, false).await;
            }
        }
        wire.ping().await;
        wires.push(wire);
    }
    assert!(growth(&talos, before) < 48 * MIB);
    for wire in &wires {
        assert!(odd(100).all(|call| wire.heard.get(&call).is_some_and(is_refused)));
    }
    answers(&talos, &good).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_calls_are_open_that_are_not_checks_than_have_room() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "watcher").await;
    let mut wire = Wire::open(talos.authz).await;
    let watch = |call| [headers(call, &call_of(WATCH)), last_data(call, &reflect(1, ""))].concat();
    wire.send(&odd(300).flat_map(watch).collect::<Vec<_>>()).await;
    wire.until("all have heard something", |wire| {
        odd(300).all(|call| wire.heard.get(&call).is_some_and(|heard| !heard.heads.is_empty()))
    })
    .await;
    let open = odd(300).filter(|call| !wire.heard[call].is_over()).count();
    let refused = odd(300).filter(|call| wire.heard[call].grpc_status() == Some(8)).count();
    assert_eq!((open, refused), (128, 172));
    assert!(talos.metric("talos_streams_refused_total").await >= 172.0, "refusals are counted");
    wire.call(1_001, &good).await;
    wire.answer(1_001).await.allows(&good);
    // Once some are given up there is room again.
    wire.send(&odd(10).flat_map(|call| reset(call, 8)).collect::<Vec<_>>()).await;
    wire.send(&watch(1_003)).await;
    wire.until("a message", |wire| wire.heard.get(&1_003).is_some_and(|heard| !heard.messages().is_empty()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_takes_are_held_within_the_bound_of_the_process() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "hoarder").await.answered_by(9_000);
    let before = talos.process.memory();
    let mut wires = vec![];
    // Some 160 MB of answers.
    for _ in 0..60 {
        let mut wire = Wire::open_with(talos.authz, &[(INITIAL_WINDOW_SIZE, 0)]).await;
        let mut call = 1;
        while call < 2 * 300 && wire.takes_within(Duration::from_secs(5), &good.on(call)).await {
            call += 2;
        }
        wires.push(wire);
    }
    assert!(growth(&talos, before) < PROCESS);
    answers(&talos, &good).await;
    drop(wires);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_many_connections_are_held_within_the_bound_of_the_process() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "hoarder").await;
    let before = talos.process.memory();
    let message = [&[0, 0, 0x40, 0, 0][..], &vec![0; 4 << 20]].concat();
    let mut wires = vec![];
    for _ in 0..12 {
        let mut wire = Wire::open(talos.authz).await;
        for call in odd(3) {
            wire.send(&headers(call, &good.head())).await;
            wire.upload(call, &message[..message.len() - 1], DEFAULT_FRAME, false).await;
        }
        wire.ping().await;
        wires.push(wire);
    }
    assert!(growth(&talos, before) < PROCESS);
    // Whoever comes now gets what it needs, for Checks in several frames and for health.
    let mut wire = Wire::open(talos.authz).await;
    let (first, rest) = good.halves();
    wire.send(&[headers(1, &good.head()), data(1, first)].concat()).await;
    wire.ping().await;
    wire.send(&last_data(1, rest)).await;
    wire.answer(1).await.allows(&good);
    wire.send(&[headers(3, &call_of(HEALTH)), last_data(3, &framed(&[]))].concat()).await;
    assert_eq!(wire.answer(3).await.message(), super::call::SERVING);
    drop(wires);
}

/// A bit less and more than clients have to take their answers.
const UNTAKEN: std::ops::Range<Duration> = Duration::from_secs(19)..Duration::from_secs(20 + 8);

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_take_no_responses_are_disconnected() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "hoarder").await;
    tokio::join!(
        no_window(&talos, &good, false),
        no_window(&talos, &good, true),
        no_room(&talos, &good, false),
        no_room(&talos, &good, true)
    );
    let sent_away = talos.metric("talos_connections_refused_total").await;
    assert!(sent_away >= 4.0, "{sent_away} are counted");
    answers(&talos, &good).await;
}

/// A client that answers pings and sends some, and gives the response no window, or one byte each
/// second.
async fn no_window(talos: &Talos, good: &Good, dribbles: bool) {
    let mut wire = Wire::open_with(talos.authz, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    wire.replenishes = false;
    let began = Instant::now();
    wire.send(&good.on(1)).await;
    while began.elapsed() < UNTAKEN.start - Duration::from_secs(4) {
        wire.ping().await;
        if dribbles {
            wire.grant(1, 1).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let code = wire.end().await.map(|goaway| goaway.code);
    assert_eq!(code, Some(ENHANCE_YOUR_CALM), "dribbles {dribbles}");
    assert!(UNTAKEN.contains(&began.elapsed()), "{:?}", began.elapsed());
}

/// Leaves the windows open, and reads nothing, or a byte each second.
async fn no_room(talos: &Talos, good: &Good, dribbles: bool) {
    let mut wire = Wire::narrow(talos.authz).await;
    wire.grant(0, 1 << 30).await;
    let long = good.answered_by(12_000);
    let mut call = 1;
    // The server stops to read once its answers have no room.
    while wire.takes_within(Duration::from_secs(5), &long.on(call)).await {
        call += 2;
    }
    for _ in 0..UNTAKEN.end.as_secs() {
        if dribbles {
            wire.read_some(1).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    wire.end_of_silence().await;
}

/// CPU time that the process takes for each byte of what is sent, in nanoseconds.
async fn time_a_byte(talos: &Talos, wire: &mut Wire, name: &str, sent: &[Vec<u8>]) -> f64 {
    let before = talos.process.cpu();
    for part in sent {
        wire.send(part).await;
    }
    wire.ping().await;
    let bytes: usize = sent.iter().map(Vec::len).sum();
    let took = (talos.process.cpu() - before).as_nanos() as f64 / bytes as f64;
    println!("{name}: {took:.0} ns a byte of {bytes}");
    took
}

/// Maximum CPU time of any client's byte, in times of a byte of an honest Check.
const RATIO: f64 = 10.0;

/// Returns the time that a byte of honest Checks takes.
async fn honest(talos: &Talos, good: &Good) -> f64 {
    let mut wire = Wire::open(talos.authz).await;
    let checks: Vec<Vec<u8>> = odd(2_000).map(|call| good.on(call)).collect();
    time_a_byte(talos, &mut wire, "Checks", &checks).await
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_refer_to_long_fields_take_no_more_time_than_their_bytes() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "packer").await;
    let honest = honest(&talos, &good).await;
    let name = vec![b'n'; 4_000];
    let style = |form| Style { form, name_by_index: true, huffman_name: false, huffman_value: false };
    for (case, form, times) in [
        ("by value", Form::Indexed, 60_000),
        ("by name", Form::NotIndexed, 20_000),
        ("by name, kept", Form::Kept, 30_000),
    ] {
        let mut encoder = Encoder::new();
        let mut first = encoder.block(&super::call::fields(&super::call::CALL), super::hpack::AS_IT_IS);
        encoder.field(&name, b"", style(Form::Kept), &mut first);
        let mut field = vec![];
        encoder.field(&name, b"", style(form), &mut field);
        let block = [first, field.repeat(times)].concat();
        assert!(block.len() < 65_000, "{}", block.len());
        let heads: Vec<Vec<u8>> = odd(20).map(|call| in_frames(call, &block)).collect();
        let mut wire = Wire::open(talos.authz).await;
        let took = time_a_byte(&talos, &mut wire, case, &heads).await;
        assert!(took < RATIO * honest, "{case}: {took} ns, an honest byte {honest}");
    }
    answers(&talos, &good).await;
}

/// Returns a header block in as many frames as it needs.
fn in_frames(stream: u32, block: &[u8]) -> Vec<u8> {
    let mut parts = block.chunks(DEFAULT_FRAME).peekable();
    let mut out = vec![];
    let mut kind = HEADERS;
    while let Some(part) = parts.next() {
        let end = if parts.peek().is_none() { END_HEADERS } else { 0 };
        out.extend(frame(kind, end, stream, part));
        kind = CONTINUATION;
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_take_no_more_time_than_their_bytes_however_many_calls_wait() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "waiter").await;
    let honest = honest(&talos, &good).await;
    let mut wire = Wire::open_with(talos.authz, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    wire.replenishes = false;
    for call in odd(1_000) {
        wire.send(&good.on(call)).await;
    }
    wire.ping().await;
    let many = |value: &dyn Fn(u32) -> u32| {
        settings(&(0..2_700).map(|n| (INITIAL_WINDOW_SIZE, value(n))).collect::<Vec<_>>())
    };
    let frames = vec![many(&|_| 0); 10];
    let took = time_a_byte(&talos, &mut wire, "settings", &frames).await;
    assert!(took < RATIO * honest, "{took} ns, an honest byte {honest}");
    // Rising windows let data through only once: one frame of each call.
    let bytes = wire.bytes_read;
    wire.announce(&(1..=50).map(|n| (INITIAL_WINDOW_SIZE, n)).collect::<Vec<_>>()).await;
    wire.ping().await;
    let read = wire.bytes_read - bytes;
    println!("{read} bytes for one frame");
    assert!(read < 1_000 * (50 + 9) + 1_000, "{read} bytes");
}

/// A way to make the server reset a call, or to make it work for nothing.
type Nothing<'a> = (&'a str, &'a dyn Fn(u32) -> Vec<u8>);

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_cause_many_resets_are_disconnected() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "resetter").await;
    let head = good.head();
    let begun = |call| headers(call, &head);
    let wrong = super::call::call_with("content-type", "text/html");
    let nowhere = call_of(NOWHERE);
    let ways: &[Nothing] = &[
        ("a window that grows by nothing", &|call| [begun(call), window_update(call, 0)].concat()),
        ("a window that overflows", &|call| [begun(call), window_update(call, (1 << 31) - 1)].concat()),
        ("a priority of a wrong size", &|call| [begun(call), frame(PRIORITY, 0, call, &[])].concat()),
        ("data after the client gave up", &|call| [begun(call), reset(call, 8), data(call, b"x")].concat()),
        ("a head within a call", &|call| [begun(call), begun(call)].concat()),
        ("a message that is none", &|call| [begun(call), data(call, b"\x09")].concat()),
        ("a call that is none", &|call| headers(call, &wrong)),
        ("a method that isn't there", &|call| headers(call, &nowhere)),
        ("a call given up", &|call| [begun(call), reset(call, 8)].concat()),
        ("a malformed head", &|call| {
            frame(HEADERS, WHOLE | END_STREAM, call, &super::call::call_with("te", "gzip"))
        }),
    ];
    for (name, way) in ways {
        let mut wire = Wire::open(talos.authz).await;
        let (mut call, mut taken) = (1, true);
        // Some more than are borne.
        while taken && call < 2 * 13_000 {
            let many: Vec<u8> = odd(500).flat_map(|more| way(call + more - 1)).collect();
            taken = wire.takes(&many).await && wire.reads_on().await;
            call += 1_000;
        }
        let code = wire.end().await.map(|goaway| goaway.code);
        println!("{name}: {code:?} after {} calls", call / 2);
        assert_eq!(code, Some(ENHANCE_YOUR_CALM), "{name}");
        answers(&talos, &good).await;
    }
    let counted = talos.metric("talos_connections_refused_total").await;
    // The last one may be counted a moment later.
    assert!(counted >= (ways.len() - 1) as f64, "{counted} connections are counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_each_is_waited_for_and_no_call_stays_open() {
    let talos = Talos::start().await;
    let mut wire = Wire::open(talos.authz).await;
    // A message that doesn't come ends after 10 s what has one; a call of many after a minute,
    // which is too long here.
    for (call, path) in [(1, HEALTH), (3, WATCH)] {
        wire.send(&[headers(call, &call_of(path)), data(call, &[0, 0])].concat()).await;
    }
    for call in [1, 3] {
        let heard = wire.answer(call).await;
        assert_eq!(heard.grpc_status(), Some(4), "{heard:?}");
    }
    wire.ping().await;
}
