//! Splitting and padding of header blocks and data (RFC 9113, 4.3, 6.1, 6.2 and 6.10).

use super::call::{CALL, Good, block, fields};
use super::cases::Reaction::{Allowed, Goaway};
use super::cases::{Case, hold};
use super::client::Wire;
use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, FRAME_SIZE_ERROR, HEADERS, PADDED, PROTOCOL_ERROR, UNKNOWN,
    WHOLE, WITH_PRIORITY, data, frame, goaway, headers, last_data, padded, ping, reset, settings,
    window_update, with_priority,
};
use super::hpack::INDEXED;
use crate::rig::talos::Talos;

#[tokio::test(flavor = "multi_thread")]
async fn padding_is_removed_and_never_longer_than_its_frame() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "padder").await;
    let head = |flags: u8, payload: fn(&[u8]) -> Vec<u8>| {
        move |good: &Good| {
            let head = frame(HEADERS, WHOLE | flags, 1, &payload(&good.head()));
            [head, last_data(1, &good.message)].concat()
        }
    };
    let body = |payload: fn(&[u8]) -> Vec<u8>| {
        move |good: &Good| {
            let body = frame(DATA, PADDED | END_STREAM, 1, &payload(&good.message));
            [headers(1, &good.head()), body].concat()
        }
    };
    let wrong = &[Goaway(PROTOCOL_ERROR)];
    // A frame without room for its fixed fields has the wrong size too (RFC 9113, 4.2).
    let short = &[Goaway(PROTOCOL_ERROR), Goaway(FRAME_SIZE_ERROR)];
    let cases: &[Case] = &[
        ("HEADERS with no byte of padding", &head(PADDED, |head| padded(head, 0)), &[Allowed]),
        ("HEADERS with one byte of padding", &head(PADDED, |head| padded(head, 1)), &[Allowed]),
        ("HEADERS with the most padding", &head(PADDED, |head| padded(head, 255)), &[Allowed]),
        (
            "HEADERS with padding and a priority",
            &head(PADDED | WITH_PRIORITY, |head| padded(&with_priority(0, head), 9)),
            &[Allowed],
        ),
        (
            "HEADERS with padding that isn't zero",
            &head(PADDED, |head| [&[3][..], head, &[1, 2, 3]].concat()),
            &[Allowed, Goaway(PROTOCOL_ERROR)],
        ),
        ("HEADERS shorter than its padding", &head(PADDED, |head| [&[255][..], head].concat()), wrong),
        ("HEADERS of a padding length alone", &head(PADDED, |_| vec![1]), wrong),
        ("HEADERS without room for the padding length", &head(PADDED, |_| vec![]), short),
        ("HEADERS without room for its priority", &head(WITH_PRIORITY, |_| vec![0; 4]), short),
        (
            "HEADERS with padding in the place of its priority",
            &head(PADDED | WITH_PRIORITY, |_| padded(&[0; 4], 9)),
            short,
        ),
        ("DATA with no byte of padding", &body(|message| padded(message, 0)), &[Allowed]),
        ("DATA with the most padding", &body(|message| padded(message, 255)), &[Allowed]),
        (
            "DATA of padding alone",
            &|good| {
                let nothing = frame(DATA, PADDED, 1, &padded(&[], 255)).repeat(20);
                [headers(1, &good.head()), nothing, last_data(1, &good.message)].concat()
            },
            &[Allowed],
        ),
        (
            "padding in an empty last frame",
            &|good| {
                let end = frame(DATA, PADDED | END_STREAM, 1, &padded(&[], 7));
                [headers(1, &good.head()), data(1, &good.message), end].concat()
            },
            &[Allowed],
        ),
        ("DATA with padding as long as the frame", &body(|_| vec![5, 0, 0, 0, 0]), wrong),
        ("DATA shorter than its padding", &body(|_| vec![200, 0, 0, 0, 0]), wrong),
        ("DATA without room for the padding length", &body(|_| vec![]), short),
    ];
    hold(&talos, &good, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_may_be_cut_at_every_byte() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "cutter").await;
    let mut wire = Wire::open(talos.authz).await;
    let mut stream = 1;
    // Literal, and indexed as real clients write it: first with an empty dynamic table, then with
    // all fields in it.
    let literal = wire.encoder.block(&fields(&CALL), super::hpack::AS_IT_IS);
    for _ in 0..2 {
        let indexed = wire.encoder.block(&fields(&CALL), INDEXED);
        for block in [&indexed, &literal] {
            // A block that adds to the dynamic table can be sent only once.
            let cuts = if block.len() > 20 && block == &indexed { 1 } else { block.len() + 1 };
            for cut in (0..cuts).map(|cut| if cuts == 1 { block.len() / 2 } else { cut }) {
                let (first, rest) = block.split_at(cut);
                let head = [frame(HEADERS, 0, stream, first), frame(CONTINUATION, END_HEADERS, stream, rest)];
                wire.send(&[head.concat(), last_data(stream, &good.message)].concat()).await;
                wire.answer(stream).await.allows(&good);
                stream += 2;
            }
        }
    }
    // In three frames, one of them empty.
    for (first, second) in [(0, 0), (7, 7), (literal.len(), literal.len()), (1, literal.len() - 1)] {
        let (part, rest) = literal.split_at(second);
        let (begin, middle) = part.split_at(first);
        let parts = [
            frame(HEADERS, 0, stream, begin),
            frame(CONTINUATION, 0, stream, middle),
            frame(CONTINUATION, END_HEADERS, stream, rest),
            last_data(stream, &good.message),
        ];
        for part in parts {
            wire.send(&part).await;
            tokio::task::yield_now().await;
        }
        wire.answer(stream).await.allows(&good);
        stream += 2;
    }
    // END_STREAM, padding and priority are in the first frame.
    let first = padded(&with_priority(0, &literal[..9]), 3);
    let trailer = block(&[("x-checksum", "1")]);
    let call = [
        frame(HEADERS, PADDED | WITH_PRIORITY, stream, &first),
        frame(CONTINUATION, END_HEADERS, stream, &literal[9..]),
        data(stream, &good.message),
        frame(HEADERS, END_STREAM, stream, &trailer[..5]),
        frame(CONTINUATION, END_HEADERS, stream, &trailer[5..]),
    ];
    wire.send(&call.concat()).await;
    wire.answer(stream).await.allows(&good);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_frame_comes_between_the_frames_of_a_header_block() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "cutter").await;
    let wrong = &[Goaway(PROTOCOL_ERROR)];
    let between = |foreign: fn(&Good) -> Vec<u8>| {
        move |good: &Good| {
            let head = good.head();
            let rest = frame(CONTINUATION, END_HEADERS, 1, &head[5..]);
            [frame(HEADERS, 0, 1, &head[..5]), foreign(good), rest, last_data(1, &good.message)].concat()
        }
    };
    let cases: &[Case] = &[
        ("nothing", &between(|_| vec![]), &[Allowed]),
        ("DATA", &between(|_| data(1, b"a")), wrong),
        ("DATA of nothing", &between(|_| last_data(1, b"")), wrong),
        ("HEADERS", &between(|good| headers(1, &good.head())), wrong),
        ("another call", &between(|good| good.on(3)), wrong),
        ("PRIORITY", &between(|_| frame(super::frames::PRIORITY, 0, 1, &[0, 0, 0, 3, 1])), wrong),
        ("RST_STREAM", &between(|_| reset(1, 8)), wrong),
        ("SETTINGS", &between(|_| settings(&[])), wrong),
        ("PING", &between(|_| ping([0; 8])), wrong),
        ("GOAWAY", &between(|_| goaway(0, 0)), wrong),
        ("WINDOW_UPDATE", &between(|_| window_update(0, 1)), wrong),
        ("an unknown frame", &between(|_| frame(UNKNOWN, 0, 0, &[])), wrong),
        ("another stream's rest", &between(|_| frame(CONTINUATION, 0, 3, &[])), wrong),
        ("a rest that nothing came before", &|_| frame(CONTINUATION, END_HEADERS, 1, &[]), wrong),
        (
            "a rest after a whole head",
            &|good| [headers(1, &good.head()), frame(CONTINUATION, END_HEADERS, 1, &[])].concat(),
            wrong,
        ),
        (
            "a rest after data",
            &|good| {
                let begun = [headers(1, &good.head()), data(1, good.halves().0)].concat();
                [begun, frame(CONTINUATION, END_HEADERS, 1, &[])].concat()
            },
            wrong,
        ),
    ];
    hold(&talos, &good, cases).await;
}
