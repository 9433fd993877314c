//! Limits on what a peer may take of its server.

use crate::field::FieldRef;
use crate::frame::MAX_FRAME_SIZE;
use crate::hpack::{FIELD_MEMORY_FACTOR, MAX_LITERAL_CACHE_SIZE, MAX_TABLE_SIZE};
use crate::stream::{MAX_RECENTLY_RESET, RECENTLY_RESET_COST, STREAM_COST, Stream, StreamId};

/// Limits of one connection.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most streams open at once.
    pub max_concurrent_streams: u32,
    /// Largest header list of a request, in bytes, as SETTINGS_MAX_HEADER_LIST_SIZE counts them.
    pub max_header_list_size: u32,
    /// Most frames that cause work and bring no request forward, until the budget is reset.
    ///
    /// Resets by either side are among them. Completed streams return some of it.
    pub abuse_budget: u32,
    /// Bytes of output from which on no frame is received and no data written.
    ///
    /// One response may go beyond it.
    pub max_output: usize,
    /// Most bytes of responses that wait for the peer's windows, overhead counted.
    pub max_pending: usize,
    /// Ticks that a frame, a header block or a message may take to arrive.
    pub read_ticks: u32,
    /// Ticks that a response, or output, may wait for the peer to take it.
    pub write_ticks: u32,
}

/// Octets of a frame header and of a response's header blocks, at most.
const MAX_HEADERS_OF_RESPONSE: usize = 4 * 1024;
/// Octets of the head of a response, with its frame header, that is written while the output is
/// full: data waits, heads don't. Drivers send heads of a few short fields.
const MAX_LATE_HEAD: usize = 256;

impl Limits {
    /// Returns the most octets that may wait to be written.
    ///
    /// A response that fits into one frame is written whole, so one may exceed `max_output`. So may
    /// the heads of all open streams, which are written when their responses come.
    pub const fn max_unwritten(&self) -> usize {
        let late_heads = self.max_concurrent_streams as usize * MAX_LATE_HEAD;
        self.max_output + MAX_FRAME_SIZE + MAX_HEADERS_OF_RESPONSE + late_heads
    }

    /// Returns the most memory that a session takes, in bytes, with `T` as its state of a stream.
    ///
    /// Buffers grow by doubling, so each counts twice.
    pub const fn max_memory<T>(&self) -> usize {
        let head = self.max_header_list_size as usize;
        let streams = self.max_concurrent_streams as usize;
        let output = 2 * self.max_unwritten();
        let tables = FIELD_MEMORY_FACTOR * (MAX_TABLE_SIZE + MAX_LITERAL_CACHE_SIZE);
        let request_head = FIELD_MEMORY_FACTOR * head + 2 * (head / 32 + 4) * size_of::<FieldRef>();
        let partial_block = 2 * (head + MAX_FRAME_SIZE);
        let states = 3 * (streams + 4) * (size_of::<Stream<T>>() + size_of::<StreamId>());
        let entries = streams * STREAM_COST + MAX_RECENTLY_RESET * RECENTLY_RESET_COST;
        output + tables + request_head + partial_block + states + entries + self.max_pending
    }
}
