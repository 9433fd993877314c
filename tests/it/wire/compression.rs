//! Compressed heads (RFC 7541): what has to be understood, and what ends the connection.

use super::call::{CALL, CHECK, Good, HEALTH, NOWHERE, SERVING, fields, framed};
use super::cases::Reaction::{Allowed, Goaway, Reset, Status};
use super::cases::{Case, Reaction, answers, hold, react};
use super::client::Wire;
use super::frames::{
    COMPRESSION_ERROR, CONTINUATION, DEFAULT_FRAME, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM,
    HEADER_TABLE_SIZE, HEADERS, PROTOCOL_ERROR, REFUSED_STREAM, frame, headers, last_data,
};
use super::hpack::{AS_IT_IS, Encoder, Form, INDEXED, Style, TABLE, integer};
use super::huffman;
use crate::rig::talos::Talos;

/// A good call whose head has this at its end.
fn call_and(more: Vec<u8>) -> impl Fn(&Good) -> Vec<u8> {
    move |good| {
        let head = headers(1, &[good.head(), more.clone()].concat());
        [head, last_data(1, &good.message)].concat()
    }
}

/// A good call whose head has this at its beginning.
fn before_a_call(first: Vec<u8>) -> impl Fn(&Good) -> Vec<u8> {
    move |good| {
        let head = headers(1, &[first.clone(), good.head()].concat());
        [head, last_data(1, &good.message)].concat()
    }
}

fn number(first: u8, bits: u32, value: usize) -> Vec<u8> {
    let mut out = vec![];
    integer(first, bits, value, &mut out);
    out
}

fn size_update(size: usize) -> Vec<u8> {
    number(0x20, 5, size)
}

/// A field of the name `x` whose value is these bytes, said to be Huffman's.
fn coded(value: &[u8]) -> Vec<u8> {
    let mut field = vec![0, 1, b'x'];
    integer(0x80, 7, value.len(), &mut field);
    [field, value.to_vec()].concat()
}

/// Values whose codes end at each place of a byte.
fn padded_by_every_number_of_bits() -> Vec<u8> {
    // The code of each letter has five bits.
    (1..=8).flat_map(|letters| coded(&huffman::encode(&vec![b'a'; letters]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn undecodable_header_blocks_end_the_connection() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "packer").await;
    // h2 calls it a PROTOCOL_ERROR.
    let wrong = &[Goaway(COMPRESSION_ERROR), Goaway(PROTOCOL_ERROR)];
    let cases: &[Case] = &[
        ("index 0", &call_and(vec![0x80]), wrong),
        ("an index beyond the table", &call_and(vec![0xbe]), wrong),
        ("an index far beyond", &call_and(number(0x80, 7, 1 << 20)), wrong),
        ("a name beyond the table", &call_and([&number(0x40, 6, 62)[..], &[1, b'a']].concat()), wrong),
        ("a name beyond it, not indexed", &call_and([&number(0, 4, 62)[..], &[1, b'a']].concat()), wrong),
        (
            "a name beyond it, never indexed",
            &call_and([&number(0x10, 4, 99)[..], &[1, b'a']].concat()),
            wrong,
        ),
        ("an index that overflows", &call_and([&[0xff; 12][..], &[0x7f]].concat()), wrong),
        ("an index that wraps to a good one", &call_and(vec![0xff, 0x83, 0xff, 0xff, 0xff, 0x0f]), wrong),
        ("an index without its end", &call_and(vec![0xff, 0x80]), wrong),
        ("a length that overflows", &call_and([&[0, 0x7f][..], &[0xff; 10], &[0x7f]].concat()), wrong),
        ("a name without its end", &call_and(vec![0, 5, b'a', b'b']), wrong),
        ("a name without a value", &call_and(vec![0, 1, b'a']), wrong),
        ("a value without its end", &call_and(vec![0, 1, b'a', 9, b'b']), wrong),
        ("a value without its end, Huffman's", &call_and(vec![0, 1, b'a', 0x89, 0xff]), wrong),
        (
            "a value of 4 GiB",
            &call_and([&[0, 1, b'a'][..], &number(0, 7, u32::MAX as usize)].concat()),
            wrong,
        ),
        ("the end of a string in it", &call_and(coded(&[0xff; 4])), wrong),
        ("the end of a string, and more", &call_and(coded(&[0x1f, 0xff, 0xff, 0xff, 0xe7])), wrong),
        ("padding of more than seven bits", &call_and(coded(&[0x1f, 0xff])), wrong),
        ("padding of zeros", &call_and(coded(&[0x18])), wrong),
        ("nothing but padding", &call_and(coded(&[0xff])), wrong),
        ("a table above the limit", &before_a_call(size_update(TABLE + 1)), wrong),
        ("a table far above it", &before_a_call(size_update(1 << 27)), wrong),
        ("a size that overflows", &before_a_call([&[0x3f][..], &[0xff; 10], &[0x7f]].concat()), wrong),
        ("a size in the middle", &call_and([&[0x90][..], &size_update(100), &[0x90]].concat()), wrong),
        ("a size at the end", &call_and(size_update(100)), wrong),
        ("an entry that a size took away", &call_and_then_shrunk(), wrong),
        ("a table of the limit", &before_a_call(size_update(TABLE)), &[Allowed]),
        ("a table of nothing", &before_a_call(size_update(0)), &[Allowed]),
        ("two sizes", &before_a_call([size_update(0), size_update(TABLE)].concat()), &[Allowed]),
        (
            "a number longer than need be",
            &before_a_call(vec![0x3f, 0x80, 0x00]),
            &[Allowed, wrong[0], wrong[1]],
        ),
        ("no value", &call_and(vec![0, 1, b'x', 0]), &[Allowed]),
        ("no value, Huffman's", &call_and(coded(&[])), &[Allowed]),
        ("padding of no bits to seven", &call_and(padded_by_every_number_of_bits()), &[Allowed]),
    ];
    hold(&talos, &good, cases).await;
}

/// Two calls: one whose field goes into the table, and one that uses it after it was thrown out.
fn call_and_then_shrunk() -> impl Fn(&Good) -> Vec<u8> {
    |good| {
        let kept = [&[0x40, 1, b'x', 1, b'y'][..], &good.head()].concat();
        let gone = [size_update(0), size_update(TABLE), vec![0xbe], good.head()].concat();
        [headers(1, &kept), last_data(1, &good.message), headers(3, &gone), last_data(3, &good.message)]
            .concat()
    }
}

/// The request of a call, and the part of the response that shows it.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Check,
    Health,
    Nowhere,
    Html,
    Get,
}

const ALL: [Asked; 5] = [Asked::Check, Asked::Health, Asked::Nowhere, Asked::Html, Asked::Get];

impl Asked {
    fn head(self) -> Vec<(&'static str, &'static str)> {
        let mut head = CALL.to_vec();
        match self {
            Asked::Check => {}
            Asked::Health => head[2].1 = HEALTH,
            Asked::Nowhere => head[2].1 = NOWHERE,
            Asked::Html => head[4].1 = "text/html",
            Asked::Get => head[0].1 = "GET",
        }
        head
    }

    /// Asks with a head in this style, with more fields between its own, and checks the response.
    async fn ask(
        self,
        wire: &mut Wire,
        good: &Good,
        stream: u32,
        first: Vec<u8>,
        more: &[(&str, &str)],
        style: Style,
    ) {
        let pairs = [self.head(), more.to_vec()].concat();
        let block = [first, wire.encoder.block(&fields(&pairs), style)].concat();
        let message = if matches!(self, Asked::Check) { good.message.clone() } else { framed(&[]) };
        wire.send(&[headers(stream, &block), last_data(stream, &message)].concat()).await;
        let heard = wire.answer(stream).await;
        match self {
            Asked::Check => heard.allows(good),
            Asked::Health => assert_eq!(heard.message(), SERVING),
            Asked::Nowhere => assert_eq!((heard.status(), heard.grpc_status()), (200, Some(12)), "{heard:?}"),
            Asked::Html => assert_eq!(heard.status(), 415, "{heard:?}"),
            Asked::Get => assert_eq!(heard.status(), 405, "{heard:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_are_understood_however_they_are_written() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "packer").await;
    for form in [Form::NotIndexed, Form::NeverIndexed, Form::Kept, Form::Indexed] {
        for bits in 0..8 {
            let style = Style {
                form,
                name_by_index: bits & 1 != 0,
                huffman_name: bits & 2 != 0,
                huffman_value: bits & 4 != 0,
            };
            let mut wire = Wire::open(talos.authz).await;
            // Twice around: what is in the table by then is used.
            for (round, asked) in (0_u32..).zip(ALL.iter().chain(&ALL)) {
                asked
                    .ask(&mut wire, &good, round * 2 + 1, vec![], &[("x-more", "a"), ("x-more", "b")], style)
                    .await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_forgets_what_it_has_no_room_for() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "packer").await;
    let mut wire = Wire::open(talos.authz).await;
    let long = "l".repeat(1_000);
    let longer = "m".repeat(5_000);
    let mut stream = 1;
    // From sizes with room for nothing, for one entry or for a few, up and down and up.
    for size in [TABLE, 0, 33, 60, 100, 200, 400, 1_000, TABLE, 1, 300, TABLE - 1, TABLE] {
        let mut first = vec![];
        wire.encoder.resize(size, &mut first);
        for round in 0..3 {
            for asked in ALL {
                let number = (stream / 7).to_string();
                let value = [long.as_str(), longer.as_str(), "short"][round];
                let more = [("x-number", number.as_str()), ("x-value", value)];
                asked.ask(&mut wire, &good, stream, std::mem::take(&mut first), &more, INDEXED).await;
                stream += 2;
            }
        }
    }
    assert_eq!(wire.encoder.table_size(), TABLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_keep_to_the_table_that_the_client_allows() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "packer").await;
    for first in [0, 64, TABLE as u32, 1 << 20] {
        let mut wire = Wire::open_with(talos.authz, &[(HEADER_TABLE_SIZE, first)]).await;
        let mut stream = 1;
        // The client's decoder fails where the server's table is larger, or an update is missing.
        for sizes in [&[first][..], &[0], &[4_096], &[0, 4_096], &[100, 0, 60], &[u32::MAX], &[0]] {
            for size in sizes {
                wire.announce(&[(HEADER_TABLE_SIZE, *size)]).await;
            }
            for asked in [Asked::Check, Asked::Health, Asked::Check, Asked::Get, Asked::Nowhere, Asked::Check]
            {
                asked.ask(&mut wire, &good, stream, vec![], &[], INDEXED).await;
                stream += 2;
            }
        }
    }
}

/// Reactions to a header list that is too large.
const TOO_LARGE: &[Reaction] = &[
    Status(431),
    Reset(PROTOCOL_ERROR),
    Reset(REFUSED_STREAM),
    Reset(ENHANCE_YOUR_CALM),
    Goaway(PROTOCOL_ERROR),
    Goaway(ENHANCE_YOUR_CALM),
    Goaway(COMPRESSION_ERROR),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_head_beyond_64_kib_is_refused_and_the_table_stays_right() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "packer").await;
    let page = "v".repeat(4_000);
    for (name, size, times, due) in [
        ("almost as much as may be", 15_000, 4, &[Allowed][..]),
        ("too much as it is", 16_000, 5, TOO_LARGE),
        ("one field that is too much", 70_000, 1, TOO_LARGE),
        ("too much by indexes", 0, 20, TOO_LARGE),
        ("very much by indexes", 0, 16_000, TOO_LARGE),
    ] {
        let mut wire = Wire::open(talos.authz).await;
        let mut encoder = Encoder::new();
        let mut block = encoder.block(&fields(&CALL), INDEXED);
        for _ in 0..times {
            match size {
                // The same entry of the table, again and again.
                0 => encoder.field(b"x-page", page.as_bytes(), INDEXED, &mut block),
                _ => encoder.field(b"x-page", "w".repeat(size).as_bytes(), AS_IT_IS, &mut block),
            }
        }
        // This goes into the table when most of it has been refused.
        encoder.field(b"content-type", b"application/grpc", INDEXED, &mut block);
        encoder.field(b"x-page", b"last", INDEXED, &mut block);
        let mut parts = block.chunks(DEFAULT_FRAME).peekable();
        let mut kind = HEADERS;
        while let Some(part) = parts.next() {
            let end = if parts.peek().is_none() { END_HEADERS } else { 0 };
            wire.send(&frame(kind, end, 1, part)).await;
            kind = CONTINUATION;
        }
        wire.send(&last_data(1, &good.message)).await;
        let reaction = react(&mut wire, &good, due).await;
        println!("{name}: {reaction:?}");
        assert!(due.contains(&reaction), "{name}: {reaction:?}, not one of {due:?}");
        if matches!(reaction, Goaway(_)) {
            answers(&talos, &good).await;
            continue;
        }
        // The connection lives, so what the refused head left in the table must be there.
        wire.encoder = encoder;
        for (round, asked) in (0_u32..).zip(ALL) {
            let stream = 2_001 + round * 2;
            asked.ask(&mut wire, &good, stream, vec![], &[("x-page", "last")], INDEXED).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_head_still_counts_for_the_table() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "packer").await;
    // Malformed in one way or another, but understood: only the call is refused.
    for bad in [("connection", "close"), ("te", "gzip"), (":status", "200"), (":path", CHECK)] {
        let mut wire = Wire::open(talos.authz).await;
        let pairs = [&CALL[..], &[bad, ("x-after", "the bad one")]].concat();
        let block = wire.encoder.block(&fields(&pairs), INDEXED);
        wire.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await;
        let heard = wire.answer(1).await;
        assert!(heard.reset.is_some() || heard.status() == 400, "{bad:?}: {heard:?}");
        for (round, asked) in (1_u32..).zip(ALL) {
            asked.ask(&mut wire, &good, round * 2 + 1, vec![], &[("x-after", "the bad one")], INDEXED).await;
        }
    }
}
