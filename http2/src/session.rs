//! The state of one connection between two frames.

use std::collections::{BTreeSet, HashMap};

use crate::error::ErrorCode;
use crate::frame::{self, flag, frame_type, setting};
use crate::header_block::HeaderBlock;
use crate::hpack::Decoder;
use crate::limits::Limits;
use crate::request_head::RequestHead;
use crate::stall::Stall;
use crate::stream::{RecentlyReset, STREAM_COST, SendRank, Stream, StreamId};
use crate::work;

/// Initial receive window of the connection and of each stream, in bytes.
pub(crate) const RECEIVE_WINDOW: u32 = 1 << 20;
/// Both windows of the peer before it says otherwise, in bytes (RFC 9113, 6.9.2).
const DEFAULT_INITIAL_WINDOW_SIZE: i64 = 65_535;
/// Payload of the PING behind the first GOAWAY of a graceful shutdown.
pub(crate) const DRAIN_PING: [u8; 8] = *b"draining";
/// Payload of the PING that asks a silent peer for a sign of life.
const KEEPALIVE_PING: [u8; 8] = *b"keepaliv";
/// A dynamic table size update to 0 (RFC 7541, 6.3).
const EMPTY_TABLE_UPDATE: [u8; 1] = [0x20];
/// Largest stream number.
const MAX_STREAM_ID: StreamId = 0x7fff_ffff;
/// Abuse budget returned by each completed stream.
const ABUSE_CREDIT_PER_STREAM: u32 = 4;

/// The server side of one connection; `T` is the driver's own state of a stream.
///
/// The state is dropped when its stream ends, whoever ends it.
#[derive(Debug)]
pub struct Session<T> {
    pub(crate) limits: Limits,
    pub(crate) decoder: Decoder,
    /// Head of the stream that was opened last.
    pub(crate) request_head: RequestHead,
    /// A header block whose last frame is still to come.
    pub(crate) partial_header_block: Option<PartialHeaderBlock>,
    pub(crate) handshake: Handshake,
    pub(crate) streams: HashMap<StreamId, Stream<T>>,
    /// Highest stream that the peer has opened.
    pub(crate) last_stream_id: StreamId,
    pub(crate) recently_reset: RecentlyReset,
    /// Number of streams whose peer hasn't ended its side.
    pub(crate) incomplete: usize,
    /// Bytes that the peer may send on the connection.
    pub(crate) receive_window: i64,
    /// Bytes that may be sent to the peer on the connection.
    pub(crate) send_window: i64,
    /// Bytes that may be sent on a new stream.
    pub(crate) initial_window_size: i64,
    /// Streams that have data, or more window than a new one: see [`Stream::rank`].
    pub(crate) send_order: BTreeSet<SendRank>,
    /// Memory of the responses that wait for windows, in bytes.
    pub(crate) pending: usize,
    /// True when the next header block must begin with a table size update (RFC 7541, 4.2).
    pub(crate) owes_table_size_update: bool,
    /// Frames charged to the abuse budget.
    pub(crate) charged: u32,
    pub(crate) shutdown: Shutdown,
    pub(crate) goaway_received: bool,
    pub(crate) out: Vec<u8>,
    /// Bytes of `out` that are written.
    written: usize,
    pub(crate) stall: Stall,
    /// Streams reset because their responses found no room, since the driver last asked.
    pub(crate) overflows: u32,
}

/// Progress of the connection preface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handshake {
    /// The preface's octets are expected.
    Preface,
    /// The first SETTINGS frame is expected.
    Settings,
    /// The handshake is complete.
    Complete,
}

/// Progress of a graceful shutdown (RFC 9113, 6.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shutdown {
    /// No shutdown has begun.
    None,
    /// The first GOAWAY is sent; streams on their way are accepted.
    Draining,
    /// The final GOAWAY is sent; new streams are refused.
    Final,
}

/// A header block whose frames haven't all arrived.
#[derive(Debug)]
pub(crate) struct PartialHeaderBlock {
    pub stream: StreamId,
    pub end_stream: bool,
    pub block: Vec<u8>,
    pub frames: u32,
}

impl<T> Session<T> {
    /// Makes the session of a connection on which nothing was sent yet.
    pub fn new(limits: Limits) -> Self {
        let mut out = vec![];
        let settings = [
            (setting::MAX_CONCURRENT_STREAMS, limits.max_concurrent_streams),
            (setting::INITIAL_WINDOW_SIZE, RECEIVE_WINDOW),
            (setting::MAX_HEADER_LIST_SIZE, limits.max_header_list_size),
        ];
        let mut payload = vec![];
        for (name, value) in settings {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        frame::write(frame_type::SETTINGS, 0, 0, &payload, &mut out);
        // No setting says how large the connection's own window is.
        let increment = (i64::from(RECEIVE_WINDOW) - DEFAULT_INITIAL_WINDOW_SIZE) as u32;
        frame::write(frame_type::WINDOW_UPDATE, 0, 0, &increment.to_be_bytes(), &mut out);
        Self {
            limits,
            decoder: Decoder::default(),
            request_head: RequestHead::default(),
            partial_header_block: None,
            handshake: Handshake::Preface,
            streams: HashMap::new(),
            last_stream_id: 0,
            recently_reset: RecentlyReset::default(),
            incomplete: 0,
            receive_window: RECEIVE_WINDOW.into(),
            send_window: DEFAULT_INITIAL_WINDOW_SIZE,
            initial_window_size: DEFAULT_INITIAL_WINDOW_SIZE,
            send_order: BTreeSet::new(),
            pending: 0,
            owes_table_size_update: false,
            charged: 0,
            shutdown: Shutdown::None,
            goaway_received: false,
            out,
            written: 0,
            stall: Stall::default(),
            overflows: 0,
        }
    }

    /// Returns the head of the stream that was opened last.
    pub const fn request_head(&self) -> &RequestHead {
        &self.request_head
    }

    /// Returns the driver's state of a stream; None when the stream has ended.
    pub fn stream_mut(&mut self, id: StreamId) -> Option<&mut T> {
        self.streams.get_mut(&id).map(|stream| &mut stream.state)
    }

    /// Returns whether a header block has begun and not ended.
    pub const fn has_partial_header_block(&self) -> bool {
        self.partial_header_block.is_some()
    }

    /// Returns whether the peer has sent its preface and SETTINGS.
    pub fn is_handshake_complete(&self) -> bool {
        self.handshake == Handshake::Complete
    }

    /// Returns whether no stream is open and none will be.
    pub fn is_finished(&self) -> bool {
        (self.goaway_received || self.shutdown == Shutdown::Final) && self.streams.is_empty()
    }

    /// Returns the octets that are to be written.
    pub fn output(&self) -> &[u8] {
        &self.out[self.written..]
    }

    /// Returns whether some output must be written before another frame is received.
    pub const fn is_output_full(&self) -> bool {
        self.out.len() - self.written >= self.limits.max_output
    }

    /// Removes `count` written bytes from the output, and lets waiting data follow.
    ///
    /// An empty buffer keeps room for `keep` bytes.
    pub fn consume_output(&mut self, count: usize, keep: usize) {
        self.written += count;
        self.stall.wrote(count);
        if self.written >= self.out.len() {
            self.out.clear();
            self.out.shrink_to(keep);
            self.written = 0;
        }
        self.send_pending();
    }

    /// Returns whether responses wait for the peer's windows.
    pub const fn has_pending(&self) -> bool {
        self.pending > 0
    }

    /// Returns the number of streams reset for lack of room since the last call.
    ///
    /// Their responses had to wait for a window, and too many others did.
    pub const fn take_overflows(&mut self) -> u32 {
        std::mem::replace(&mut self.overflows, 0)
    }

    /// Returns the memory that the session takes in tables, buffers and queues, in bytes.
    pub fn memory_usage(&self) -> usize {
        let max_head = self.limits.max_header_list_size as usize;
        let partial = self.partial_header_block.as_ref().map_or(0, |partial| partial.block.capacity());
        self.out.capacity()
            + self.decoder.memory_usage()
            + self.request_head.memory_usage(max_head)
            + partial
            + self.streams.capacity() * (size_of::<Stream<T>>() + size_of::<StreamId>())
            + self.streams.len() * STREAM_COST
            + self.recently_reset.memory_usage()
            + self.pending
    }

    /// Releases memory that holds nothing, and the head of the stream that was opened last.
    pub fn shrink_to_fit(&mut self) {
        self.request_head.release();
        self.streams.shrink_to_fit();
        if self.written > 0 {
            self.out.drain(..self.written);
            self.written = 0;
        }
        self.out.shrink_to_fit();
    }

    /// Sends a PING, which a peer that is still there answers.
    pub fn send_ping(&mut self) {
        frame::write(frame_type::PING, 0, 0, &KEEPALIVE_PING, &mut self.out);
    }

    /// Restores the whole abuse budget, as a driver does at a steady pace.
    pub const fn reset_abuse_budget(&mut self) {
        self.charged = 0;
    }

    /// Begins a graceful shutdown: streams on their way are still accepted, then none.
    pub fn graceful_shutdown(&mut self) {
        if self.shutdown == Shutdown::None {
            self.shutdown = Shutdown::Draining;
            self.write_goaway(MAX_STREAM_ID, ErrorCode::NoError);
            frame::write(frame_type::PING, 0, 0, &DRAIN_PING, &mut self.out);
        }
    }

    /// Tells the peer that the connection ends at once; the driver closes it then.
    pub fn goaway(&mut self, code: ErrorCode) {
        self.write_goaway(self.last_stream_id, code);
    }

    /// Drops all streams with their states.
    pub fn drop_streams(&mut self) {
        self.streams.clear();
        self.send_order.clear();
        self.pending = 0;
    }

    pub(crate) fn write_goaway(&mut self, last_stream_id: StreamId, code: ErrorCode) {
        let payload = [last_stream_id.to_be_bytes(), (code as u32).to_be_bytes()].concat();
        frame::write(frame_type::GOAWAY, 0, 0, &payload, &mut self.out);
    }

    /// Resets a stream, which is charged to the abuse budget.
    ///
    /// Whatever makes the server reset a stream can be repeated by its peer.
    pub fn reset(&mut self, id: StreamId, code: ErrorCode) {
        self.charge();
        frame::write(frame_type::RST_STREAM, 0, id, &(code as u32).to_be_bytes(), &mut self.out);
        self.remove(id);
        self.recently_reset.insert(id, true);
    }

    /// Ends a stream that its peer has reset.
    pub(crate) fn reset_by_peer(&mut self, id: StreamId) {
        if self.remove(id).is_some() {
            self.recently_reset.insert(id, false);
        }
    }

    /// Ends a stream whose response is written, and returns some of the abuse budget.
    ///
    /// A response to a half-sent request is followed by a reset, and returns nothing.
    pub(crate) fn complete(&mut self, id: StreamId) {
        match self.streams.get(&id) {
            // The peer needn't send the rest (RFC 9113, 8.1).
            Some(stream) if !stream.half_closed => self.reset(id, ErrorCode::NoError),
            _ => {
                self.charged = self.charged.saturating_sub(ABUSE_CREDIT_PER_STREAM);
                drop(self.remove(id));
            }
        }
    }

    fn remove(&mut self, id: StreamId) -> Option<Stream<T>> {
        work::streams(1);
        let stream = self.streams.remove(&id)?;
        self.incomplete -= usize::from(!stream.half_closed);
        if let Some(rank) = stream.rank(id) {
            work::streams(1);
            self.send_order.remove(&rank);
        }
        self.pending -= stream.pending_cost();
        Some(stream)
    }

    /// Changes a stream and keeps its rank; None when there is no such stream.
    pub(crate) fn update<R>(&mut self, id: StreamId, change: impl FnOnce(&mut Stream<T>) -> R) -> Option<R> {
        work::streams(1);
        let stream = self.streams.get_mut(&id)?;
        let (rank, cost) = (stream.rank(id), stream.pending_cost());
        let changed = change(stream);
        let new_rank = stream.rank(id);
        self.pending = self.pending - cost + stream.pending_cost();
        if rank != new_rank {
            work::streams(2);
            if let Some(rank) = rank {
                self.send_order.remove(&rank);
            }
            self.send_order.extend(new_rank);
        }
        Some(changed)
    }

    /// Charges the abuse budget; an overdrawn one ends the connection with the next frame.
    pub(crate) const fn charge(&mut self) {
        self.charged = self.charged.saturating_add(1);
    }

    /// Writes a header block in as many frames as it needs.
    pub(crate) fn write_headers(&mut self, id: StreamId, block: &HeaderBlock, end_stream: bool) {
        if std::mem::take(&mut self.owes_table_size_update) {
            let updated = [&EMPTY_TABLE_UPDATE, block.octets()].concat();
            self.write_header_frames(id, &updated, end_stream);
        } else {
            self.write_header_frames(id, block.octets(), end_stream);
        }
    }

    fn write_header_frames(&mut self, id: StreamId, block: &[u8], end_stream: bool) {
        work::bytes(block.len());
        let end_stream = if end_stream { flag::END_STREAM } else { 0 };
        let (first, mut rest) = block.split_at(block.len().min(frame::MAX_FRAME_SIZE));
        let end_headers = |rest: &[u8]| if rest.is_empty() { flag::END_HEADERS } else { 0 };
        frame::write(frame_type::HEADERS, end_stream | end_headers(rest), id, first, &mut self.out);
        while !rest.is_empty() {
            let (next, after) = rest.split_at(rest.len().min(frame::MAX_FRAME_SIZE));
            frame::write(frame_type::CONTINUATION, end_headers(after), id, next, &mut self.out);
            rest = after;
        }
    }
}
