//! The known attacks on HTTP/2 servers, each a test by its name.

use bytes::Bytes;

use super::frames::*;
use super::peer::{OPENING, Peer, Received};
use crate::error::ErrorCode;
use crate::frame::{self, flag, frame_type};
use crate::limits::Limits;

/// Limits with an abuse budget that is never used up: the other bounds hold without it.
const UNLIMITED: Limits = Limits {
    max_concurrent_streams: 1_000,
    max_header_list_size: 64 * 1024,
    abuse_budget: u32::MAX - 1,
    max_output: 64 * 1024,
    max_pending: 1 << 20,
    read_ticks: 10,
    write_ticks: 20,
};
/// Limits with a small abuse budget.
const BUDGET: Limits = Limits { abuse_budget: 500, ..UNLIMITED };

fn peer(limits: Limits) -> Peer {
    Peer::open(limits, Bytes::from_static(&[b'a'; 1_000]))
}

/// Sends an attack until 4 MiB are received or the connection ends.
///
/// One peer reads, one does not. The contract is checked after every frame, and no abuse budget
/// helps it.
fn costs_what_it_sends(frames: impl Fn(u32) -> Vec<u8>) {
    for reads in [true, false] {
        let mut peer = peer(UNLIMITED);
        let mut send = || {
            peer.send(OPENING, reads)?;
            let mut n = 0;
            while n < 20_000 && peer.received() < 4 << 20 && peer.send(&frames(n), reads)? {
                n += 1;
            }
            peer.read(usize::MAX).map(|()| n)
        };
        match send() {
            Ok(n) => println!("reads {reads}: {n} times, {:?}", peer.check()),
            Err(breach) => panic!("reads {reads}: {breach}"),
        }
    }
}

/// Repeats an attack until the abuse budget ends the connection, and checks that it does.
fn ends_within_the_budget(frames: impl Fn(u32) -> Vec<u8>) {
    let mut peer = peer(BUDGET);
    assert_eq!(peer.send(OPENING, true), Ok(true));
    let ended = (0..2 * BUDGET.abuse_budget).find(|&n| peer.send(&frames(n), true) == Ok(false));
    assert!(ended.is_some_and(|n| n <= BUDGET.abuse_budget), "it ended after {ended:?}");
    assert_eq!(goaway(&mut peer), Some(ErrorCode::EnhanceYourCalm as u32));
}

/// Returns the code of the last GOAWAY in the output.
fn goaway(peer: &mut Peer) -> Option<u32> {
    let (mut rest, mut code) = (peer.session().output(), None);
    while let Some(header) = frame::FrameHeader::parse(rest) {
        let end = frame::FRAME_HEADER_LEN + header.length;
        if header.frame_type == frame_type::GOAWAY {
            code = frame::parse_u32(&rest[frame::FRAME_HEADER_LEN + 4..end]);
        }
        rest = &rest[end..];
    }
    code
}

/// Opens `count` streams whose responses wait, then sends something else.
fn while_responses_wait(count: u32, n: u32, then: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    match n {
        0 => initial_windows([0]),
        _ if n < count => request(client_stream(n)),
        _ => then(n - count),
    }
}

mod floods_2019 {
    use super::*;

    /// CVE-2019-9511.
    #[test]
    fn data_dribble() {
        costs_what_it_sends(|n| {
            while_responses_wait(900, n, |n| window_update(client_stream(n % 899 + 1), 1))
        });
        costs_what_it_sends(|n| while_responses_wait(900, n, |n| initial_windows([1 + n % 1_000])));
        costs_what_it_sends(|n| match n {
            0..1_000 => request(client_stream(n)),
            _ => window_update(0, 1),
        });
    }

    /// CVE-2019-9512.
    #[test]
    fn ping_flood() {
        costs_what_it_sends(|_| ping());
        ends_within_the_budget(|_| ping());
        ends_within_the_budget(|_| framed(frame_type::PING, flag::ACK, 0, &[7; 8]));
    }

    /// CVE-2019-9513: priorities that are changed over and over.
    #[test]
    fn resource_loop() {
        let reprioritise = |n: u32| match n {
            0..500 => open(client_stream(n)),
            _ => {
                let (stream, other) = (client_stream(n % 500), client_stream((n + 7) % 500));
                let depends = [&other.to_be_bytes()[..], &[1]].concat();
                [
                    framed(frame_type::PRIORITY, 0, stream, &depends),
                    framed(frame_type::PRIORITY, 0, stream, &[0x80, 0, 0, 1, 7]),
                ]
                .concat()
            }
        };
        costs_what_it_sends(reprioritise);
    }

    #[test]
    fn priority_flood() {
        let priority = |n| framed(frame_type::PRIORITY, 0, client_stream(n), &[0, 0, 0, 0, 1]);
        costs_what_it_sends(priority);
        ends_within_the_budget(priority);
    }

    /// CVE-2019-9514.
    #[test]
    fn reset_flood() {
        let malformed =
            |n: u32| framed(frame_type::HEADERS, END_HEADERS, client_stream(n), &[POST, &[0, 0, 0]].concat());
        costs_what_it_sends(malformed);
        ends_within_the_budget(malformed);
    }

    /// CVE-2019-9515.
    #[test]
    fn settings_flood() {
        let empty = |_| framed(frame_type::SETTINGS, 0, 0, &[]);
        costs_what_it_sends(empty);
        ends_within_the_budget(empty);
        // Many window sizes in one frame, while responses wait.
        costs_what_it_sends(|n| while_responses_wait(1_000, n, |n| initial_windows((n..).map(|n| n & 1))));
        // All windows at once, and shut again.
        costs_what_it_sends(|n| {
            while_responses_wait(600, n, |_| [initial_windows([1 << 20]), window_update(0, 1 << 20)].concat())
        });
        costs_what_it_sends(|n| match n {
            0..1_000 => request(client_stream(n)),
            _ => [initial_windows([1 << 20]), initial_windows([0])].concat(),
        });
    }

    /// CVE-2019-9516.
    #[test]
    fn zero_length_headers() {
        costs_what_it_sends(|n| block_in_frames(client_stream(n), &[&[0, 0, 0].repeat(5_000)]));
        ends_within_the_budget(|n| block_in_frames(client_stream(n), &[&[0, 0, 0].repeat(5)]));
    }

    /// CVE-2019-9517: open windows, and nothing is read.
    #[test]
    fn internal_data_buffering() {
        costs_what_it_sends(|n| match n {
            0 => initial_windows([1 << 30]),
            1 => window_update(0, 1 << 30),
            _ => request(client_stream(n)),
        });
        // Shut windows: responses that find no room are reset.
        let mut peer = peer(Limits { abuse_budget: 100, max_pending: 50_000, ..UNLIMITED });
        assert_eq!(peer.send(OPENING, true), Ok(true));
        assert_eq!(peer.send(&initial_windows([0]), true), Ok(true));
        let ended = (0..1_000).find(|&n| peer.send(&request(client_stream(n)), true) == Ok(false));
        assert!(ended.is_some_and(|n| (100..200).contains(&n)), "{ended:?}");
        assert!(peer.session().take_overflows() > 90);
    }

    /// CVE-2019-9518.
    #[test]
    fn empty_frames_flood() {
        let empty_data = |n| if n == 0 { open(1) } else { data(1, 0, &[]) };
        costs_what_it_sends(empty_data);
        let padding = |n| if n == 0 { open(1) } else { data(1, flag::PADDED, &[255; 256]) };
        costs_what_it_sends(padding);
        for frames in [empty_data, padding] {
            let mut peer = super::peer(BUDGET);
            assert_eq!(peer.send(OPENING, true), Ok(true));
            assert!((0..1_000).any(|n| peer.send(&frames(n), true) == Ok(false)));
        }
        // One byte a frame is a body, however slow: it is bounded by its bytes.
        costs_what_it_sends(|n| if n == 0 { open(1) } else { data(1, 0, b"d") });
    }
}

/// CVE-2023-44487.
#[test]
fn rapid_reset_2023() {
    let incomplete = |n| [open(client_stream(n)), reset(client_stream(n))].concat();
    costs_what_it_sends(incomplete);
    ends_within_the_budget(incomplete);
    costs_what_it_sends(|n| [request(client_stream(n)), reset(client_stream(n))].concat());
    let waiting = |n| match n {
        0 => initial_windows([0]),
        _ => [request(client_stream(n)), reset(client_stream(n))].concat(),
    };
    costs_what_it_sends(waiting);
    ends_within_the_budget(waiting);
}

/// 128 octets of a field.
const LONG_VALUE: &str = "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1";

/// CVE-2024-27316 and its siblings.
#[test]
fn continuation_flood_2024() {
    // A block that ends, in as many frames as one may have.
    costs_what_it_sends(|n| {
        let begin = framed(frame_type::HEADERS, 0, client_stream(n), POST);
        let more = framed(frame_type::CONTINUATION, 0, client_stream(n), &[0x82]).repeat(60);
        let end = framed(frame_type::CONTINUATION, END_HEADERS, client_stream(n), &[]);
        [begin, more, end].concat()
    });
    // Blocks that never end: by frames, and by bytes.
    for payload in [&[][..], &[0x82], &[0; 16_000]] {
        let mut peer = peer(UNLIMITED);
        assert_eq!(peer.send(OPENING, true), Ok(true));
        assert_eq!(peer.send(&framed(frame_type::HEADERS, 0, 1, POST), true), Ok(true));
        let more = framed(frame_type::CONTINUATION, 0, 1, payload);
        let ended = (1..100).find(|_| peer.send(&more, true) == Ok(false));
        assert!(ended.is_some_and(|frames| frames <= 64), "{ended:?}");
        assert_eq!(goaway(&mut peer), Some(ErrorCode::EnhanceYourCalm as u32));
    }
}

/// An attack's name, and its frames by their number.
type Attack = (&'static str, fn(u32) -> Vec<u8>);

/// CVE-2025-8671: every way to make the server reset a stream, or answer one for nothing.
const MADE_TO_RESET: &[Attack] = &[
    ("a window update of 0", |n| [open(client_stream(n)), window_update(client_stream(n), 0)].concat()),
    ("a window that overflows", |n| {
        [open(client_stream(n)), window_update(client_stream(n), 0x7fff_ffff)].concat()
    }),
    ("PRIORITY of a wrong size", |n| {
        [open(client_stream(n)), framed(frame_type::PRIORITY, 0, client_stream(n), &[])].concat()
    }),
    ("DATA on a stream that was reset", |n| {
        [open(client_stream(n)), reset(client_stream(n)), data(client_stream(n), 0, b"d")].concat()
    }),
    ("HEADERS on a stream that was reset", |n| {
        [open(client_stream(n)), reset(client_stream(n)), open(client_stream(n))].concat()
    }),
    ("DATA on a half-closed stream", |n| match n {
        0 => initial_windows([0]),
        _ => [request(client_stream(n)), data(client_stream(n), 0, b"d")].concat(),
    }),
    ("HEADERS on a half-closed stream", |n| match n {
        0 => initial_windows([0]),
        _ => [request(client_stream(n)), open(client_stream(n))].concat(),
    }),
    ("HEADERS that neither open nor end a stream", |n| {
        [open(client_stream(n)), open(client_stream(n))].concat()
    }),
    ("more DATA than content-length", |n| {
        let head = [POST, &[0x0f, 0x0d, 1, b'1']].concat();
        let headers = framed(frame_type::HEADERS, END_HEADERS, client_stream(n), &head);
        [headers, data(client_stream(n), 0, b"dd")].concat()
    }),
    ("less DATA than content-length", |n| {
        let head = [POST, &[0x0f, 0x0d, 1, b'2']].concat();
        let headers = framed(frame_type::HEADERS, END_HEADERS, client_stream(n), &head);
        [headers, data(client_stream(n), END_STREAM, b"d")].concat()
    }),
    ("no DATA, and a content-length", |n| {
        let head = [POST, &[0x0f, 0x0d, 1, b'1']].concat();
        framed(frame_type::HEADERS, END_HEADERS | END_STREAM, client_stream(n), &head)
    }),
    ("a malformed request", |n| {
        framed(frame_type::HEADERS, END_HEADERS, client_stream(n), &[POST, &[0, 0, 0]].concat())
    }),
    ("malformed trailers", |n| {
        let trailers = framed(frame_type::HEADERS, END_HEADERS | END_STREAM, client_stream(n), POST);
        [open(client_stream(n)), trailers].concat()
    }),
    ("a header list that is too large", |n| {
        block_in_frames(client_stream(n), &[&[0x40, 1, b'x', 1, b'y'], &[0xbe].repeat(2_000)])
    }),
    ("frames on a stream that the server reset", |n| {
        let late = data(client_stream(n), 0, b"d");
        [open(client_stream(n)), window_update(client_stream(n), 0), late.repeat(3)].concat()
    }),
];

#[test]
fn made_you_reset_2025() {
    for (name, frames) in MADE_TO_RESET {
        println!("{name}");
        costs_what_it_sends(frames);
        ends_within_the_budget(frames);
    }
}

#[test]
fn made_you_reset_2025_by_refused_streams() {
    let mut peer = peer(Limits { max_concurrent_streams: 1, ..BUDGET });
    assert_eq!(peer.send(OPENING, true), Ok(true));
    let ended = (0..1_000).find(|&n| peer.send(&open(client_stream(n)), true) == Ok(false));
    assert!(ended.is_some_and(|n| n <= BUDGET.abuse_budget + 1), "{ended:?}");
}

#[test]
fn made_you_reset_2025_by_early_responses() {
    let mut peer = peer(BUDGET);
    assert_eq!(peer.send(OPENING, true), Ok(true));
    let head = crate::HeaderBlock::response(http::StatusCode::OK, &http::HeaderMap::new());
    let ended = (0..1_000).find(|&n| {
        let received = peer.send(&open(client_stream(n)), true) == Ok(true);
        peer.session().respond_without_body(client_stream(n), &head);
        !received
    });
    assert!(ended.is_some_and(|n| n <= BUDGET.abuse_budget + 1), "{ended:?}");
}

#[test]
fn heads_of_late_responses_stay_within_the_bound_of_the_output() {
    let limits = Limits { max_concurrent_streams: 1_000, ..UNLIMITED };
    let mut peer = peer(limits);
    assert_eq!(peer.send(OPENING, true), Ok(true));
    for n in 0..limits.max_concurrent_streams {
        assert_eq!(peer.send(&open(client_stream(n)), true), Ok(true));
    }
    while let Received::Frame(_) = peer.receive(&ping()).unwrap() {}
    let fields = [(http::HeaderName::from_static("a"), http::HeaderValue::from_static(LONG_VALUE))];
    let head = crate::HeaderBlock::response(http::StatusCode::OK, &http::HeaderMap::from_iter(fields));
    for n in 0..limits.max_concurrent_streams {
        peer.session().respond_without_body(client_stream(n), &head);
    }
    let unwritten = peer.session().output().len();
    let of_one_response = Limits { max_concurrent_streams: 0, ..limits }.max_unwritten();
    assert!((of_one_response..=limits.max_unwritten()).contains(&unwritten), "{unwritten}");
}

#[test]
fn completed_streams_return_some_of_the_abuse_budget() {
    let mut peer = peer(BUDGET);
    assert_eq!(peer.send(OPENING, true), Ok(true));
    for n in 0..4 * BUDGET.abuse_budget {
        let streams = [request(n * 8 + 1), open(n * 8 + 3), reset(n * 8 + 3)].concat();
        let others = [window_update(0, 2_000), ping()].concat();
        assert_eq!(peer.send(&[streams, others].concat(), true), Ok(true));
    }
}

#[test]
fn hpack_bomb_by_value() {
    costs_what_it_sends(|n| {
        let indexed = [&[0x40, 1, b'x'][..], &long_string(4_000)].concat();
        block_in_frames(client_stream(n), &[&indexed, &[0xbe].repeat(60_000)])
    });
}

#[test]
fn hpack_bomb_by_name() {
    let long_name = |length| [&[0x40][..], &long_string(length), &[0]].concat();
    // Index 62 is one more than what four bits hold.
    costs_what_it_sends(|n| {
        block_in_frames(client_stream(n), &[&long_name(4_000), &[0x0f, 0x2f, 0x00].repeat(19_000)])
    });
    costs_what_it_sends(|n| {
        block_in_frames(client_stream(n), &[&long_name(3_900), &[0x7e, 0x00].repeat(29_000)])
    });
}

#[test]
fn hpack_table_that_is_emptied_and_filled() {
    costs_what_it_sends(|n| {
        let fill = [0x40, 1, b'x', 1, b'y'].repeat(100);
        let resized = [&[0x20, 0x3f, 0xe1, 0x1f].repeat(500)[..], POST].concat();
        let filled = block_in_frames(client_stream(2 * n), &[&fill]);
        [filled, framed(frame_type::HEADERS, END_HEADERS, client_stream(2 * n + 1), &resized)].concat()
    });
}

#[test]
fn hpack_literals_that_replace_each_other_in_the_cache() {
    costs_what_it_sends(|n| {
        let paths = [[0x04, 2, b'/', b'a'], [0x04, 2, b'/', b'b']].concat().repeat(2_000);
        block_in_frames(client_stream(n), &[&paths])
    });
}

#[test]
fn frames_that_mean_nothing() {
    costs_what_it_sends(|_| framed(0xbe, 0, 0, &[0; 20]));
    ends_within_the_budget(|_| framed(0xbe, 0, 0, &[]));
    costs_what_it_sends(|_| framed(frame_type::GOAWAY, 0, 0, &[0; 8]));
    ends_within_the_budget(|_| framed(frame_type::GOAWAY, 0, 0, &[0; 8]));
    costs_what_it_sends(|_| window_update(0, 1));
}

#[test]
fn late_frames_of_streams_that_were_reset() {
    costs_what_it_sends(|n| match n {
        0..2_000 => [open(client_stream(n)), window_update(client_stream(n), 0)].concat(),
        _ => data(client_stream(1_000 + n % 1_000), 0, b""),
    });
}

#[test]
fn several_initial_windows_let_through_what_the_last_does() {
    let mut peer = peer(UNLIMITED);
    assert_eq!(peer.send(OPENING, true), Ok(true));
    assert_eq!(peer.send(&initial_windows([0]), true), Ok(true));
    for n in 0..60 {
        assert_eq!(peer.send(&request(client_stream(n)), true), Ok(true));
    }
    assert_eq!(peer.read(usize::MAX), Ok(()));
    let before = peer.sent();
    assert_eq!(peer.send(&initial_windows(1..=50), true), Ok(true));
    assert_eq!(peer.read(usize::MAX), Ok(()));
    // One frame a stream, and the acknowledgement.
    assert_eq!(peer.sent() - before, 60 * (9 + 50) + 9);
    // A window beyond all that are valid is an error, though it isn't the last.
    assert_eq!(peer.send(&initial_windows([1 << 31, 1]), true), Ok(false));
    assert_eq!(goaway(&mut peer), Some(ErrorCode::FlowControlError as u32));
}
