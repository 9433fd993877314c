//! Flow control of requests: data within the windows is read, data beyond them is refused.

use super::call::{Good, NOWHERE, REFLECTION, call_of, call_with, reflect};
use super::client::Wire;
use super::frames::{
    CANCEL, DATA, DEFAULT_FRAME, ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR, INITIAL_WINDOW_SIZE, NO_ERROR,
    PADDED, data, frame, headers, last_data, padded, reset,
};
use super::heard::Heard;
use crate::rig::support::Must;
use crate::rig::talos::Talos;

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn long_messages_come_through_as_their_windows_are_renewed() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "sender").await;
    let mut wire = Wire::open(talos.authz).await;
    let long = good.grown_by(3 * MIB);
    wire.call(1, &long).await;
    wire.answer(1).await.allows(&good);
    // Several at once, in turns, in frames of all sizes.
    let long = good.grown_by(MIB / 2);
    let streams: Vec<u32> = (1..9).map(|call| call * 2 + 1).collect();
    for stream in &streams {
        wire.send(&headers(*stream, &good.head())).await;
    }
    let parts: Vec<&[u8]> = long.message.chunks(10_007).collect();
    for (round, part) in parts.iter().enumerate() {
        let most = [16_384, 1_000, 9_999, 3_000][round % 4];
        for stream in &streams {
            wire.upload(*stream, part, most, round + 1 == parts.len()).await;
        }
    }
    for stream in streams {
        wire.answer(stream).await.allows(&good);
    }
}

/// The way in which a call wastes its data.
#[derive(Clone, Copy, Debug)]
enum Waste {
    /// The request is refused by its head.
    Refused,
    NoMethod,
    /// The message is refused by its first byte.
    Compressed,
    TooLong,
    GivenUp,
}

const WASTES: [Waste; 5] =
    [Waste::Refused, Waste::NoMethod, Waste::Compressed, Waste::TooLong, Waste::GivenUp];
/// Bytes that each call wastes: almost all that a stream's window has room for.
const EACH: usize = 60_000;

impl Waste {
    /// Sends all of it in one go, or the most of it once the server has seen what is wrong with it.
    async fn send(self, wire: &mut Wire, stream: u32, good: &Good, at_once: bool) {
        let head = match self {
            Waste::Refused => call_with("content-type", "text/html"),
            Waste::NoMethod => call_of(NOWHERE),
            _ => good.head(),
        };
        let prefix = match self {
            Waste::Compressed => [1, 0, 0, 0xea, 0x5b],
            Waste::TooLong => [0, 0, 0x50, 0, 0],
            _ => [0, 0, 1, 0, 0],
        };
        let begin = [headers(stream, &head), data(stream, &prefix)].concat();
        let junk = vec![0; EACH - prefix.len()];
        let rest: Vec<u8> = junk.chunks(DEFAULT_FRAME).flat_map(|part| data(stream, part)).collect();
        let end = if matches!(self, Waste::GivenUp) { reset(stream, CANCEL) } else { last_data(stream, &[]) };
        // Whatever has become of the stream: what is on its way when it is reset comes as well.
        wire.until("there is room", |wire| wire.upward.left(stream) >= EACH as i64).await;
        wire.upward.spend(stream, EACH);
        if at_once {
            return wire.send(&[begin, rest, end].concat()).await;
        }
        wire.send(&begin).await;
        if !matches!(self, Waste::GivenUp) {
            wire.until("it is refused", |wire| wire.heard.contains_key(&stream)).await;
        }
        wire.ping().await;
        wire.send(&rest).await;
        wire.ping().await;
        wire.send(&end).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn discarded_data_leave_the_connection_its_window() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "sender").await;
    for (waste, at_once) in WASTES.into_iter().flat_map(|waste| [(waste, true), (waste, false)]) {
        println!("{waste:?}, at once {at_once}");
        let mut wire = Wire::open(talos.authz).await;
        // In all some times the window that there is.
        for call in 0..60 {
            waste.send(&mut wire, call * 2 + 1, &good, at_once).await;
            let answered = wire.heard.remove(&(call * 2 + 1));
            assert!(answered.is_none_or(|heard| heard.grpc_status() != Some(0)));
        }
        wire.call(1_001, &good).await;
        wire.answer(1_001).await.allows(&good);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn padding_gives_its_room_back() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "sender").await;
    let mut wire = Wire::open(talos.authz).await;
    // Frames that bring a little each: h2 ends connections with many that bring nothing.
    let long = good.grown_by(150_000);
    for stream in (1..31).step_by(2) {
        wire.send(&headers(stream, &good.head())).await;
        for part in long.message.chunks(300) {
            let payload = padded(part, 255);
            wire.until("there is room", |wire| wire.upward.left(stream) > 1_000).await;
            wire.upward.spend(stream, payload.len());
            wire.send(&frame(DATA, PADDED, stream, &payload)).await;
        }
        wire.send(&last_data(stream, &[])).await;
        wire.answer(stream).await.allows(&good);
    }
}

/// Reads until nothing more comes for what was sent; whether the server said that it was too much.
async fn was_refused(wire: &mut Wire, streams: &[u32]) -> bool {
    // Twice, one after the other: a pong may go out before what else is to be said.
    let mut asked = 0;
    while wire.pongs.len() < 2 {
        if wire.pongs.len() == asked {
            asked += 1;
            wire.send(&super::frames::ping(*b"too much")).await;
        }
        if !wire.step().await {
            let code = wire.goaways.last().must("a GOAWAY").code;
            assert_eq!(code, FLOW_CONTROL_ERROR);
            return true;
        }
    }
    streams.iter().any(|stream| {
        let reset = wire.heard.get(stream).and_then(|heard| heard.reset);
        assert!(
            matches!(reset, None | Some(FLOW_CONTROL_ERROR | NO_ERROR | CANCEL | ENHANCE_YOUR_CALM)),
            "{reset:?}"
        );
        reset == Some(FLOW_CONTROL_ERROR)
    })
}

/// Checks that data beyond a window was refused.
///
/// The server may replenish a window meanwhile: then all data was granted, or the stream is over.
async fn holds_us_to_its_windows(wire: &mut Wire, streams: &[u32], name: &str) {
    let refused = was_refused(wire, streams).await;
    let over = |wire: &Wire, stream| wire.heard.get(&stream).is_some_and(Heard::is_over);
    let overrun =
        streams.iter().filter(|stream| wire.upward.left(**stream) < 0 && !over(wire, **stream)).count();
    println!("{name}: refused {refused}, {overrun} of {} streams overrun", streams.len());
    assert!(refused || overrun == 0, "{name}: {overrun} streams overran a window, and nothing was said");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_beyond_the_window_are_refused() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "sender").await;

    // A byte beyond the window of a stream, in one go; and much more.
    for (name, frames, rest) in [("a byte", 4, 0), ("a frame", 5, 0), ("a MiB", 64, 1)] {
        let mut wire = Wire::open(talos.authz).await;
        let begin = [&[0, 0, 0x20, 0, 0][..], &vec![0; DEFAULT_FRAME - 5]].concat();
        let more = data(1, &[0; DEFAULT_FRAME]).repeat(frames - 1);
        wire.upward.spend(1, DEFAULT_FRAME * frames + rest);
        wire.send(&[headers(1, &good.head()), data(1, &begin), more, data(1, &vec![0; rest])].concat()).await;
        holds_us_to_its_windows(&mut wire, &[1], name).await;
    }

    // Calls that read nothing more, as their responses aren't read: one, then more than the
    // connection's window has room for.
    let question = reflect(7, "*").repeat(3_000);
    for (name, calls, bytes) in [("a call that waits", 1, 200_000), ("calls that wait", 60, 60_000)] {
        let mut wire = Wire::open_with(talos.authz, &[(INITIAL_WINDOW_SIZE, 0)]).await;
        let streams: Vec<u32> = (0..calls).map(|call| call * 2 + 1).collect();
        for stream in &streams {
            wire.send(&headers(*stream, &call_of(REFLECTION))).await;
            for part in question.repeat(10)[..bytes].chunks(DEFAULT_FRAME) {
                wire.upward.spend(*stream, part.len());
                wire.send(&data(*stream, part)).await;
            }
        }
        holds_us_to_its_windows(&mut wire, &streams, name).await;
        super::cases::answers(&talos, &good).await;
    }
}
