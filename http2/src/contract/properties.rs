//! The contract over generated sequences of frames.

use bytes::Bytes;
use proptest::prelude::{ProptestConfig, Strategy, TestCaseError, any, prop, prop_oneof, proptest};

use super::frames::*;
use super::peer::{Breach, OPENING, Peer};
use crate::frame::frame_type;
use crate::limits::Limits;

const LIMITS: Limits = Limits {
    max_concurrent_streams: 1_000,
    max_header_list_size: 64 * 1024,
    abuse_budget: u32::MAX - 1,
    max_output: 64 * 1024,
    max_pending: 1 << 20,
    read_ticks: 10,
    write_ticks: 20,
};

/// One or more frames that a peer may send, with numbers that are likely to matter.
pub(super) fn frames() -> impl Strategy<Value = Vec<u8>> {
    let stream = || (0_u32..40).prop_map(client_stream);
    let small = || prop::collection::vec(any::<u8>(), 0..30);
    prop_oneof![
        6 => stream().prop_map(open),
        6 => stream().prop_map(request),
        3 => (stream(), 0_usize..2_000).prop_map(|(id, length)| data(id, 0, &vec![0; length])),
        3 => (stream(), small()).prop_map(|(id, payload)| data(id, END_STREAM, &payload)),
        3 => stream().prop_map(reset),
        3 => (stream(), 1_u32..2_000).prop_map(|(id, increment)| window_update(id, increment)),
        2 => (1_u32..5_000).prop_map(|increment| window_update(0, increment)),
        3 => prop::collection::vec(0_u32..1_200, 1..20).prop_map(initial_windows),
        1 => prop::collection::vec((0_u16..7, 0_u32..70_000), 0..20).prop_map(|settings| {
            let payload = settings.into_iter().flat_map(|(name, value)| {
                [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()
            });
            framed(frame_type::SETTINGS, 0, 0, &payload.collect::<Vec<_>>())
        }),
        1 => stream().prop_map(|id| framed(frame_type::PRIORITY, 0, id, &[0; 5])),
        1 => any::<u8>().prop_map(|byte| framed(frame_type::PING, 0, 0, &[byte; 8])),
        2 => (stream(), prop::collection::vec(any::<u8>(), 0..200))
            .prop_map(|(id, block)| framed(frame_type::HEADERS, END_HEADERS, id, &[POST, &block].concat())),
        2 => (stream(), 128_usize..4_000, 0_usize..3_000).prop_map(|(id, length, times)| {
            let indexed = [&[0x40][..], &long_string(length), &[0]].concat();
            block_in_frames(id, &[&indexed, &[0xbe].repeat(times)])
        }),
        1 => (0_u8..11, any::<u8>(), 0_u32..90, small())
            .prop_map(|(frame_type, flags, stream, payload)| framed(frame_type, flags, stream, &payload)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_frames_keep_the_contract(
        frames in prop::collection::vec((frames(), 0_usize..30_000), 0..200), reads in any::<bool>(),
    ) {
        let mut peer = Peer::open(LIMITS, Bytes::from_static(&[b'a'; 1_000]));
        let mut send = || {
            peer.send(OPENING, reads)?;
            for (frames, read) in &frames {
                if !peer.send(frames, reads)? {
                    break;
                }
                peer.read(*read)?;
            }
            Ok(())
        };
        send().map_err(|breach: Breach| TestCaseError::fail(breach.to_string()))?;
    }

    #[test]
    fn any_bytes_keep_the_contract(data in prop::collection::vec(any::<u8>(), 0..400)) {
        super::fuzz::check(&data);
    }
}
