//! What is known of a client's connection between two of its frames.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, VecDeque};

use super::code::Code;
use super::frame::{self, flag, kind, setting};
use super::head::Head;
use super::hpack::Decoder;
use super::sending::Pending;
use super::work;

/// Number of a call within its connection.
pub type StreamId = u32;

/// Bytes that a client may have on their way to us before it hears that they have come: of all its calls, and of each.
pub(super) const WINDOW: u32 = 1 << 20;
/// Both windows before anybody has said something else (RFC 9113, 6.9.2).
const FIRST_WINDOW: i64 = 65_535;
/// So many calls that ended before their client had said all are remembered, for what is still on its way.
const REMEMBERED: usize = 1_024;
/// What the client is to answer once it has heard that it should go.
pub(super) const FAREWELL: [u8; 8] = *b"farewell";
/// What it is to answer when it has been silent.
pub(super) const INQUIRY: [u8; 8] = *b"anybody?";
/// A table size update, to 0 (RFC 7541, 6.3).
const TABLE_OF_NOTHING: [u8; 1] = [0x20];
/// Largest number of a stream.
const LAST: StreamId = 0x7fff_ffff;
/// What a call that is answered makes up for.
const MADE_UP: u32 = 4;

/// Memory that a stream takes beside what is queued for it, in bytes: its entries in tables.
const STREAM_COST: usize = 256;

/// Memory that a stream which ended early takes, in bytes: its entries in tables.
const RESET_COST: usize = 32;

/// What a client may take of us.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most calls at once.
    pub streams: u32,
    /// Largest head of a call, in bytes, as HTTP/2 counts them.
    pub head: u32,
    /// Most frames that make nothing but work, calls given up among them, beside calls that are answered.
    pub unrest: u32,
    /// Bytes of output from which on no further frame is taken and no more data written, until some
    /// of it is taken away. One answer may go beyond it.
    pub output: usize,
    /// Most bytes of answers that wait for the client's windows, overhead counted.
    pub queued: usize,
}

/// One connection's state, `C` being what its server keeps of each call. A call that ends, whoever ends it, is dropped.
#[derive(Debug)]
pub struct Session<C> {
    pub(super) limits: Limits,
    pub(super) decoder: Decoder,
    /// Of the call that was opened last.
    pub(super) head: Head,
    /// A head of which the rest is to come.
    pub(super) unfinished: Option<Unfinished>,
    pub(super) progress: Progress,
    pub(super) streams: HashMap<StreamId, Stream<C>>,
    /// Highest number that the client has used.
    pub(super) last: StreamId,
    /// Calls that ended before their client had said all.
    pub(super) recently_reset: RecentlyReset,
    /// Calls of which the client hasn't said all.
    pub(super) incomplete: usize,
    /// What the client may still send.
    pub(super) receive_window: i64,
    /// What we may.
    pub(super) send_window: i64,
    /// What we may in a new call.
    pub(super) initial_window: i64,
    /// Calls that have data queued, or more window than a new one: see [`Stream::rank`].
    pub(super) ranks: BTreeSet<Rank>,
    /// Bytes of answers that wait for windows, overhead counted.
    pub(super) queued: usize,
    /// Whether the client is to be told that our table is as small as it wants (RFC 7541, 4.2). It is empty.
    pub(super) owes_table_size: bool,
    pub(super) unrest: u32,
    pub(super) leaving: Leaving,
    pub(super) peer_leaves: bool,
    pub(super) out: Vec<u8>,
    written: usize,
}

/// What must come before anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Preface,
    Settings,
    Open,
}

/// Whether we are about to end the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    No,
    /// The client was told; calls that are on their way still come.
    Announced,
    /// What comes now is refused.
    Final,
}

/// A head whose frames haven't all come.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub(super) stream: StreamId,
    pub(super) ended: bool,
    pub(super) block: Vec<u8>,
    pub(super) frames: u32,
}

/// A call.
#[derive(Debug)]
pub(super) struct Stream<C> {
    pub(super) call: C,
    /// Whether the client has said all.
    pub(super) ended: bool,
    /// Whether the head of the answer is written.
    pub(super) has_begun: bool,
    /// Bytes of the body that were announced, and that have come.
    pub(super) announced: Option<u64>,
    pub(super) received: u64,
    pub(super) receive_window: i64,
    /// What the client lets us send beyond its initial window, without what was sent: a changed
    /// initial window then changes nothing here.
    pub(super) credit: i64,
    /// What waits for a window.
    pub(super) pending: Option<Box<Pending>>,
}

/// Where a stream stands among those that have data to send: whether it has any, its credit, and
/// its number, the lowest last.
pub(super) type Rank = (bool, i64, Reverse<StreamId>);

impl<C> Stream<C> {
    /// Where it stands among those that have data to send; None when neither that nor the largest
    /// window is a matter of it. The highest rank of all is the stream that may send the most.
    pub(super) fn rank(&self, id: StreamId) -> Option<Rank> {
        let has_data = self.pending.as_ref().is_some_and(|pending| pending.has_data());
        (has_data || self.credit > 0).then_some((has_data, self.credit, Reverse(id)))
    }
}

/// Streams that ended before their client had said all, for what is still on its way
/// (RFC 9113, 5.1), and whether it was we who ended them.
#[derive(Debug, Default)]
pub(super) struct RecentlyReset {
    by_us: HashMap<StreamId, bool>,
    /// The oldest first.
    order: VecDeque<StreamId>,
}

impl RecentlyReset {
    /// Whether it was we who reset a stream; None when it isn't known.
    pub(super) fn is_by_us(&self, id: StreamId) -> Option<bool> {
        work::streams(1);
        self.by_us.get(&id).copied()
    }

    fn note(&mut self, id: StreamId, by_us: bool) {
        work::streams(1);
        if let Some(known) = self.by_us.get_mut(&id) {
            *known |= by_us;
            return;
        }
        if self.order.len() == REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_us.remove(&oldest);
        }
        self.order.push_back(id);
        self.by_us.insert(id, by_us);
    }
}

impl<C> Session<C> {
    /// Before the first byte.
    pub fn new(limits: Limits) -> Self {
        let mut out = vec![];
        let settings = [
            (setting::MAX_CONCURRENT_STREAMS, limits.streams),
            (setting::INITIAL_WINDOW_SIZE, WINDOW),
            (setting::MAX_HEADER_LIST_SIZE, limits.head),
        ];
        let mut payload = vec![];
        for (name, value) in settings {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        frame::write(kind::SETTINGS, 0, 0, &payload, &mut out);
        // The connection's own can't be set there.
        let more = (i64::from(WINDOW) - FIRST_WINDOW) as u32;
        frame::write(kind::WINDOW_UPDATE, 0, 0, &more.to_be_bytes(), &mut out);
        Self {
            limits,
            decoder: Decoder::default(),
            head: Head::default(),
            unfinished: None,
            progress: Progress::Preface,
            streams: HashMap::new(),
            last: 0,
            recently_reset: RecentlyReset::default(),
            incomplete: 0,
            receive_window: WINDOW.into(),
            send_window: FIRST_WINDOW,
            initial_window: FIRST_WINDOW,
            ranks: BTreeSet::new(),
            queued: 0,
            owes_table_size: false,
            unrest: 0,
            leaving: Leaving::No,
            peer_leaves: false,
            out,
            written: 0,
        }
    }

    /// The head of the call that was opened last.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What is kept of a call; None when it has ended.
    pub fn call(&mut self, id: StreamId) -> Option<&mut C> {
        self.streams.get_mut(&id).map(|stream| &mut stream.call)
    }

    /// What is kept of every call of which the client hasn't said all, and that isn't being
    /// answered.
    pub fn incomplete_calls(&mut self) -> impl Iterator<Item = (StreamId, &mut C)> {
        let incomplete = self.streams.iter_mut().filter(|(_, stream)| !stream.ended && !stream.has_begun);
        incomplete.map(|(&id, stream)| (id, &mut stream.call))
    }

    /// Whether there are calls of which the client hasn't said all.
    pub const fn has_incomplete(&self) -> bool {
        self.incomplete > 0
    }

    /// Whether there is a head of which not all has come.
    pub const fn has_unfinished_head(&self) -> bool {
        self.unfinished.is_some()
    }

    /// Whether the client has said what it is.
    pub fn is_greeted(&self) -> bool {
        self.progress == Progress::Open
    }

    /// Whether there will be nothing more to answer.
    pub fn is_over(&self) -> bool {
        (self.peer_leaves || self.leaving == Leaving::Final) && self.streams.is_empty()
    }

    /// What is to be written.
    pub fn output(&self) -> &[u8] {
        &self.out[self.written..]
    }

    /// Whether so much is to be written that no frame is taken before some of it is.
    pub const fn is_output_full(&self) -> bool {
        self.out.len() - self.written >= self.limits.output
    }

    /// Notes that so much of it is written, and keeps `kept` bytes of memory for what comes next.
    /// What waited for room follows.
    pub fn wrote(&mut self, count: usize, kept: usize) {
        self.written += count;
        if self.written >= self.out.len() {
            self.out.clear();
            self.out.shrink_to(kept);
            self.written = 0;
        }
        self.pump();
    }

    /// Whether answers wait for the client's windows.
    pub const fn has_queued(&self) -> bool {
        self.queued > 0
    }

    /// Counts a tick for every answer that waits for the client's windows; how many the oldest has
    /// waited.
    pub fn tick_queued(&mut self) -> u32 {
        if self.queued == 0 {
            return 0;
        }
        let pending = self.streams.values_mut().filter_map(|stream| stream.pending.as_mut());
        pending.map(|pending| pending.tick()).max().unwrap_or(0)
    }

    /// Bytes of memory that the connection takes here, in tables, buffers and queues.
    pub fn memory(&self) -> usize {
        let limit = self.limits.head as usize;
        let unfinished = self.unfinished.as_ref().map_or(0, |unfinished| unfinished.block.capacity());
        self.out.capacity()
            + self.decoder.memory()
            + self.head.memory(limit)
            + unfinished
            + self.streams.capacity() * (size_of::<Stream<C>>() + size_of::<StreamId>())
            + self.streams.len() * STREAM_COST
            + self.recently_reset.order.len() * RESET_COST
            + self.queued
    }

    /// Gives back the memory that nothing is in: a quiet connection needs little. The head of the
    /// call that was opened last is gone then.
    pub fn shrink(&mut self) {
        self.head.forget();
        self.streams.shrink_to_fit();
        if self.written > 0 {
            self.out.drain(..self.written);
            self.written = 0;
        }
        self.out.shrink_to_fit();
    }

    /// Asks the client whether it is still there.
    pub fn inquire(&mut self) {
        frame::write(kind::PING, 0, 0, &INQUIRY, &mut self.out);
    }

    /// Forgets what frames made nothing but work: it was a while ago.
    pub const fn forgive(&mut self) {
        self.unrest = 0;
    }

    /// Asks the client to open another connection. Calls that are on their way still come.
    pub fn leave(&mut self) {
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Announced;
            self.write_goaway(LAST, Code::None);
            frame::write(kind::PING, 0, 0, &FAREWELL, &mut self.out);
        }
    }

    /// Tells the client that it asks too much of us; the connection is to be closed then.
    pub fn dismiss(&mut self) {
        self.write_goaway(self.last, Code::EnhanceYourCalm);
    }

    /// Ends all calls.
    pub fn abandon(&mut self) {
        self.streams.clear();
        self.ranks.clear();
        self.queued = 0;
    }

    pub(super) fn write_goaway(&mut self, last: StreamId, code: Code) {
        let payload = [last.to_be_bytes(), (code as u32).to_be_bytes()].concat();
        frame::write(kind::GOAWAY, 0, 0, &payload, &mut self.out);
    }

    /// Ends a call before its time, which counts as work for nothing: whatever makes us do so may
    /// be done over and over.
    pub fn reset(&mut self, id: StreamId, code: Code) {
        self.charge();
        frame::write(kind::RST_STREAM, 0, id, &(code as u32).to_be_bytes(), &mut self.out);
        self.remove(id);
        self.recently_reset.note(id, true);
    }

    /// The client has ended a call.
    pub(super) fn given_up(&mut self, id: StreamId) {
        if self.remove(id).is_some() {
            self.recently_reset.note(id, false);
        }
    }

    /// All of an answer is on its way. One that the client has heard before it had said all is no
    /// use to it, and makes up for nothing.
    pub(super) fn answered(&mut self, id: StreamId) {
        match self.streams.get(&id) {
            // The client needn't say the rest.
            Some(stream) if !stream.ended => self.reset(id, Code::None),
            _ => {
                self.unrest = self.unrest.saturating_sub(MADE_UP);
                drop(self.remove(id));
            }
        }
    }

    fn remove(&mut self, id: StreamId) -> Option<Stream<C>> {
        work::streams(1);
        let stream = self.streams.remove(&id)?;
        self.incomplete -= usize::from(!stream.ended);
        if let Some(rank) = stream.rank(id) {
            self.ranks.remove(&rank);
        }
        if let Some(pending) = &stream.pending {
            self.queued -= pending.cost();
        }
        Some(stream)
    }

    /// Changes a stream and keeps its rank; None when there is no such stream.
    pub(super) fn change<R>(&mut self, id: StreamId, change: impl FnOnce(&mut Stream<C>) -> R) -> Option<R> {
        work::streams(1);
        let stream = self.streams.get_mut(&id)?;
        let (rank, cost) = (stream.rank(id), stream.pending.as_ref().map_or(0, |pending| pending.cost()));
        let changed = change(stream);
        let now = stream.rank(id);
        self.queued = self.queued - cost + stream.pending.as_ref().map_or(0, |pending| pending.cost());
        if rank != now {
            if let Some(rank) = rank {
                self.ranks.remove(&rank);
            }
            self.ranks.extend(now);
        }
        Some(changed)
    }

    /// Notes something that makes nothing but work. Too much of it ends the connection with the
    /// frame that is taken next.
    pub(super) const fn charge(&mut self) {
        self.unrest = self.unrest.saturating_add(1);
    }

    /// Writes the head of an answer, or what follows one.
    pub(super) fn write_headers(&mut self, id: StreamId, block: &[u8], ends: bool) {
        if std::mem::take(&mut self.owes_table_size) {
            return self.write_headers(id, &[&TABLE_OF_NOTHING, block].concat(), ends);
        }
        let ending = if ends { flag::END_STREAM } else { 0 };
        let (first, mut rest) = block.split_at(block.len().min(frame::MAX_PAYLOAD));
        let complete = |rest: &[u8]| if rest.is_empty() { flag::END_HEADERS } else { 0 };
        frame::write(kind::HEADERS, ending | complete(rest), id, first, &mut self.out);
        while !rest.is_empty() {
            let (next, after) = rest.split_at(rest.len().min(frame::MAX_PAYLOAD));
            frame::write(kind::CONTINUATION, complete(after), id, next, &mut self.out);
            rest = after;
        }
    }
}
