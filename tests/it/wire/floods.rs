//! Floods: the connection bears them or ends, memory stays bounded, and others are served.

use super::call::{Good, call_with};
use super::client::Wire;
use super::frames::{
    CANCEL, CONTINUATION, DATA, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, PRIORITY, UNKNOWN, WHOLE, data,
    frame, headers, ping, reset, settings, window_update,
};
use super::hpack::{AS_IT_IS, Encoder};
use crate::rig::talos::Talos;

/// Most that a flood may make the process grow by, in bytes.
const GROWTH: u64 = 64 * 1024 * 1024;
/// Frames of a flood, and how many of them are sent at once.
const FRAMES: u32 = 8_000;
const AT_ONCE: u32 = 500;

/// The frames of a flood, by their number.
type Flood<'a> = &'a dyn Fn(&Good, u32) -> Vec<u8>;

/// A field of 15,000 bytes, in a block of its own.
fn large_field() -> Vec<u8> {
    let mut block = vec![];
    Encoder::new().field(b"x-large", &[b'a'; 15_000], AS_IT_IS, &mut block);
    block
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_end_the_connection_or_cost_nothing() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "flooder").await;
    let large = large_field();
    let begin = |good: &Good, n: u32| if n == 0 { headers(1, &good.head()) } else { vec![] };
    let endless = |good: &Good, n: u32, rest: &[u8]| match n {
        0 => frame(HEADERS, END_STREAM, 1, &good.head()),
        _ => frame(CONTINUATION, 0, 1, rest),
    };
    // True if the connection must end, as the flood has no other bound.
    let floods: &[(&str, bool, Flood)] = &[
        ("CONTINUATION flood (2024)", true, &|good, n| endless(good, n, &[])),
        ("a CONTINUATION flood that grows", true, &|good, n| endless(good, n, &large)),
        ("rapid reset (2023)", false, &|good, n| [good.on(n * 2 + 1), reset(n * 2 + 1, CANCEL)].concat()),
        ("reset flood (2019)", false, &|good, n| {
            [headers(n * 2 + 1, &good.head()), reset(n * 2 + 1, CANCEL)].concat()
        }),
        ("calls that are refused", false, &|_, n| {
            frame(HEADERS, WHOLE | END_STREAM, n * 2 + 1, &call_with("te", "gzip"))
        }),
        ("more calls than may be open", false, &|good, n| headers(n * 2 + 1, &good.head())),
        ("made to reset (2025): windows that overflow", false, &|good, n| {
            [headers(n * 2 + 1, &good.head()), window_update(n * 2 + 1, (1 << 31) - 1)].concat()
        }),
        ("ping flood (2019)", false, &|_, n| ping(u64::from(n).to_be_bytes())),
        ("settings flood (2019)", false, &|_, n| settings(&[(INITIAL_WINDOW_SIZE, n)])),
        ("priority flood, resource loop (2019)", false, &|_, n| {
            frame(PRIORITY, 0, n * 2 + 1, &[0, 0, 0, 0, 1])
        }),
        ("windows that grow", false, &|_, _| window_update(0, 1)),
        ("frames that mean nothing", false, &|_, _| frame(UNKNOWN, 0, 0, &[0; 100])),
        ("empty frames flood (2019)", false, &|good, n| [begin(good, n), frame(DATA, 0, 1, &[])].concat()),
        ("0-length headers (2019)", false, &|_, n| {
            frame(HEADERS, WHOLE, n * 2 + 1, &[call_with("te", "trailers"), [0, 0, 0].repeat(100)].concat())
        }),
        ("data dribble (2019)", false, &|good, n| match n {
            0 => [settings(&[(INITIAL_WINDOW_SIZE, 0)]), good.on(1)].concat(),
            _ => window_update(1, 1),
        }),
        ("internal data buffering (2019)", false, &|good, n| match n {
            0 => [settings(&[(INITIAL_WINDOW_SIZE, 1 << 30)]), window_update(0, 1 << 30)].concat(),
            _ => good.on(n * 2 + 1),
        }),
        ("data of a byte", false, &|good, n| {
            [begin(good, n), data(1, &[if n == 2 { 0x40 } else { 0 }])].concat()
        }),
    ];
    for (name, must_end, next) in floods {
        let before = talos.process.memory();
        let mut wire = Wire::open(talos.authz).await;
        let mut frames = 0;
        let mut taken = true;
        // The client doesn't read the answers.
        while taken && frames < FRAMES {
            let many: Vec<u8> = (frames..frames + AT_ONCE).flat_map(|n| next(&good, n)).collect();
            taken = wire.takes(&many).await;
            frames += AT_ONCE;
        }
        let growth = talos.process.memory().saturating_sub(before);
        println!("{name}: {frames} frames, taken {taken}, {} KiB more", growth / 1024);
        assert!(growth < GROWTH, "{name}: {growth} bytes");
        if *must_end {
            wire.end_of_silence().await;
        }
        super::cases::answers(&talos, &good).await;
    }
}
