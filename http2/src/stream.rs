//! Streams: their state, their order for sending, and those that were reset a moment ago.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};

use crate::pending::PendingData;
use crate::work;

/// Number of a stream within its connection.
pub type StreamId = u32;

/// Most recently reset streams whose late frames are still accepted (RFC 9113, 5.1).
pub(crate) const MAX_RECENTLY_RESET: usize = 1_024;
/// Memory that a recently reset stream takes, in bytes.
pub(crate) const RECENTLY_RESET_COST: usize = 32;

/// Memory that a stream takes beside its pending data, in bytes: its entries in tables.
pub(crate) const STREAM_COST: usize = 256;

/// One open stream; `T` is the driver's own state of it.
#[derive(Debug)]
pub(crate) struct Stream<T> {
    pub state: T,
    /// True once the peer has ended its side: "half-closed (remote)" in RFC 9113, 5.1.
    pub half_closed: bool,
    /// True once the response's header block is written.
    pub headers_sent: bool,
    /// True when the peer's message may take as long as it likes.
    pub streaming: bool,
    /// Length of the body that the peer announced, in bytes.
    pub content_length: Option<u64>,
    /// Bytes of the body that have arrived.
    pub received: u64,
    /// Bytes that the peer may send.
    pub receive_window: i64,
    /// Send window less the initial window size.
    ///
    /// A change of SETTINGS_INITIAL_WINDOW_SIZE therefore touches no stream.
    pub window_offset: i64,
    /// Ticks that the peer's message has taken.
    pub ticks: u32,
    /// Data that waits for a window.
    pub pending: Option<Box<PendingData>>,
}

/// Place of a stream in the order of sending; the highest is the stream that may send the most.
///
/// The parts: is there data, the window offset, and the number, the lowest last.
pub(crate) type SendRank = (bool, i64, Reverse<StreamId>);

impl<T> Stream<T> {
    /// Returns the place in the order of sending.
    ///
    /// None when the stream has neither data nor a larger window than a new one.
    pub(crate) fn rank(&self, id: StreamId) -> Option<SendRank> {
        let has_data = self.pending.as_ref().is_some_and(|pending| pending.has_data());
        (has_data || self.window_offset > 0).then_some((has_data, self.window_offset, Reverse(id)))
    }

    /// Returns the memory of its pending data, in bytes.
    pub(crate) fn pending_cost(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| pending.cost())
    }
}

/// Streams that were reset before their peer had ended its side.
#[derive(Debug, Default)]
pub(crate) struct RecentlyReset {
    /// The streams, each with true when the server reset it.
    by_server: HashMap<StreamId, bool>,
    /// The oldest first.
    order: VecDeque<StreamId>,
}

impl RecentlyReset {
    /// Returns whether the server reset a stream; None when the stream isn't known.
    pub(crate) fn is_by_server(&self, id: StreamId) -> Option<bool> {
        work::streams(1);
        self.by_server.get(&id).copied()
    }

    /// Adds a stream, and forgets the oldest when there are too many.
    pub(crate) fn insert(&mut self, id: StreamId, by_server: bool) {
        work::streams(1);
        if let Some(known) = self.by_server.get_mut(&id) {
            *known |= by_server;
            return;
        }
        if self.order.len() == MAX_RECENTLY_RESET
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_server.remove(&oldest);
        }
        self.order.push_back(id);
        self.by_server.insert(id, by_server);
    }

    /// Returns the memory that they take, in bytes.
    pub(crate) fn memory_usage(&self) -> usize {
        self.order.len() * RECENTLY_RESET_COST
    }
}
