//! Time limits: each unfinished state ends within its ticks, whatever the peer does meanwhile.

use super::frames::*;
use super::peer::{OPENING, Peer, Received};
use crate::frame::frame_type;
use crate::limits::Limits;
use crate::tick::Timeout;

const LIMITS: Limits = Limits {
    max_concurrent_streams: 100,
    max_header_list_size: 64 * 1024,
    abuse_budget: 10_000,
    max_output: 64 * 1024,
    max_pending: 1 << 20,
    read_ticks: 10,
    write_ticks: 20,
};

fn peer(response: usize) -> Peer {
    let mut peer = Peer::open(LIMITS, vec![b'a'; response].into());
    assert_eq!(peer.send(OPENING, true), Ok(true));
    assert_eq!(peer.read(usize::MAX), Ok(()));
    peer
}

/// Counts ticks until the connection must end, at most 100.
fn ticks_until_timeout(
    peer: &mut Peer,
    has_partial_frame: bool,
    mut each: impl FnMut(&mut Peer),
) -> Option<(u32, Timeout)> {
    (1..100).find_map(|tick| {
        let timeout = peer.session().tick(has_partial_frame).err();
        each(peer);
        timeout.map(|timeout| (tick, timeout))
    })
}

#[test]
fn a_session_without_pending_work_needs_no_ticks() {
    let mut peer = peer(10);
    assert!(!peer.session().needs_ticks(false));
    assert_eq!(ticks_until_timeout(&mut peer, false, |_| {}), None);
}

#[test]
fn an_incomplete_frame_ends_the_connection() {
    let mut peer = peer(10);
    assert_eq!(peer.receive(&open(1)[..7]), Ok(Received::Incomplete));
    assert!(peer.session().needs_ticks(true));
    let expected = Some((LIMITS.read_ticks + 1, Timeout::Read));
    assert_eq!(ticks_until_timeout(&mut peer, true, |_| {}), expected);
}

#[test]
fn an_incomplete_header_block_ends_the_connection_however_its_parts_dribble() {
    let mut peer = peer(10);
    assert_eq!(peer.send(&framed(frame_type::HEADERS, 0, 1, POST), true), Ok(true));
    let dribble = |peer: &mut Peer| {
        assert_eq!(peer.send(&framed(frame_type::CONTINUATION, 0, 1, &[0x82]), true), Ok(true));
    };
    let expected = Some((LIMITS.read_ticks + 1, Timeout::Read));
    assert_eq!(ticks_until_timeout(&mut peer, false, dribble), expected);
}

#[test]
fn a_late_message_is_reported_however_its_parts_dribble() {
    let mut peer = peer(10);
    assert_eq!(peer.send(&open(1), true), Ok(true));
    for tick in 1..=LIMITS.read_ticks + 1 {
        let late = peer.session().tick(false).unwrap();
        assert_eq!(late, if tick > LIMITS.read_ticks { vec![1] } else { vec![] }, "tick {tick}");
        assert_eq!(peer.send(&data(1, 0, b"d"), true), Ok(true));
    }
}

#[test]
fn a_response_without_a_window_ends_the_connection_however_pings_are_answered() {
    for dribbles in [false, true] {
        let mut peer = peer(1_000);
        assert_eq!(peer.send(&[initial_windows([0]), request(1)].concat(), true), Ok(true));
        let alive = |peer: &mut Peer| {
            let window = if dribbles { window_update(1, 1) } else { vec![] };
            assert_eq!(peer.send(&[ping(), window].concat(), true), Ok(true));
            assert_eq!(peer.read(usize::MAX), Ok(()));
        };
        let expected = Some((LIMITS.write_ticks + 1, Timeout::Write));
        assert_eq!(ticks_until_timeout(&mut peer, false, alive), expected);
    }
}

#[test]
fn output_that_is_not_read_ends_the_connection_however_little_is() {
    for dribble in [0, 1] {
        let mut peer = peer(1_000);
        for n in 0..20 {
            assert_eq!(peer.send(&request(client_stream(n)), true), Ok(true));
        }
        let read = |peer: &mut Peer| assert_eq!(peer.read(dribble), Ok(()));
        // The first tick notes what must be read.
        let expected = Some((LIMITS.write_ticks + 2, Timeout::Write));
        assert_eq!(ticks_until_timeout(&mut peer, false, read), expected);
    }
}

#[test]
fn a_tick_looks_at_each_stream_at_most_twice() {
    let mut peer = peer(1_000);
    assert_eq!(peer.send(&initial_windows([0]), true), Ok(true));
    for n in 0..100 {
        let stream = client_stream(n);
        let frames = if n % 2 == 0 { open(stream) } else { request(stream) };
        assert_eq!(peer.send(&frames, true), Ok(true));
    }
    crate::work::take();
    assert_eq!(peer.session().tick(false), Ok(vec![]));
    assert!(crate::work::take().total() <= 200);
}

#[test]
fn a_graceful_shutdown_ends_once_its_ping_is_answered_and_its_streams_are() {
    let mut peer = peer(10);
    assert_eq!(peer.send(&open(1), true), Ok(true));
    peer.session().graceful_shutdown();
    assert_eq!(peer.send(&open(3), true), Ok(true), "streams on their way are accepted");
    let acknowledged = framed(frame_type::PING, crate::frame::flag::ACK, 0, &crate::session::DRAIN_PING);
    assert_eq!(peer.send(&acknowledged, true), Ok(true));
    assert!(!peer.session().is_finished());
    assert_eq!(peer.send(&[open(5), data(1, END_STREAM, b"")].concat(), true), Ok(true));
    assert_eq!(peer.send(&data(3, END_STREAM, b""), true), Ok(true));
    assert!(peer.session().is_finished(), "a stream opened later was refused");
}
