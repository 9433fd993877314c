//! What is known of a client's connection between two of its frames.

use std::collections::{HashMap, VecDeque};

use super::code::{Code, Fault};
use super::frame::{self, flag, kind, setting};
use super::head::Head;
use super::hpack::Decoder;
use super::sending::Pending;

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

/// What a client may take of us.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most calls at once.
    pub streams: u32,
    /// Largest head of a call, in bytes, as HTTP/2 counts them.
    pub head: u32,
    /// Most frames that make nothing but work, calls given up among them, beside calls that are answered.
    pub unrest: u32,
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
    /// Calls that ended before their client had said all, and whether it was we who ended them.
    pub(super) cut_short: VecDeque<(StreamId, bool)>,
    /// Calls of which the client hasn't said all.
    pub(super) incomplete: usize,
    /// What the client may still send.
    pub(super) receive_window: i64,
    /// What we may.
    pub(super) send_window: i64,
    /// What we may in a new call.
    pub(super) first_window: i64,
    /// Calls that the connection's window holds up.
    pub(super) waiting: VecDeque<StreamId>,
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
    /// Bytes of the body that were announced, and that have come.
    pub(super) announced: Option<u64>,
    pub(super) received: u64,
    pub(super) receive_window: i64,
    pub(super) send_window: i64,
    /// What waits for a window.
    pub(super) pending: Option<Box<Pending>>,
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
            cut_short: VecDeque::new(),
            incomplete: 0,
            receive_window: WINDOW.into(),
            send_window: FIRST_WINDOW,
            first_window: FIRST_WINDOW,
            waiting: VecDeque::new(),
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

    /// What is kept of every call.
    pub fn calls(&mut self) -> impl Iterator<Item = (StreamId, &mut C)> {
        self.streams.iter_mut().map(|(&id, stream)| (id, &mut stream.call))
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

    /// Notes that so much of it is written, and keeps `kept` bytes of memory for what comes next.
    pub fn wrote(&mut self, count: usize, kept: usize) {
        self.written += count;
        if self.written >= self.out.len() {
            self.out.clear();
            self.out.shrink_to(kept);
            self.written = 0;
        }
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
    }

    pub(super) fn write_goaway(&mut self, last: StreamId, code: Code) {
        let payload = [last.to_be_bytes(), (code as u32).to_be_bytes()].concat();
        frame::write(kind::GOAWAY, 0, 0, &payload, &mut self.out);
    }

    /// Ends a call before its time.
    pub fn reset(&mut self, id: StreamId, code: Code) {
        frame::write(kind::RST_STREAM, 0, id, &(code as u32).to_be_bytes(), &mut self.out);
        self.remove(id);
        self.cut_short(id, true);
    }

    /// The client has ended a call.
    pub(super) fn given_up(&mut self, id: StreamId) {
        if self.remove(id).is_some() {
            self.cut_short(id, false);
        }
    }

    /// All of an answer is on its way.
    pub(super) fn answered(&mut self, id: StreamId) {
        self.unrest = self.unrest.saturating_sub(MADE_UP);
        match self.streams.get(&id) {
            // The client needn't say the rest.
            Some(stream) if !stream.ended => self.reset(id, Code::None),
            _ => drop(self.remove(id)),
        }
    }

    fn remove(&mut self, id: StreamId) -> Option<Stream<C>> {
        let stream = self.streams.remove(&id)?;
        self.incomplete -= usize::from(!stream.ended);
        if stream.pending.is_some() {
            self.waiting.retain(|waiting| *waiting != id);
        }
        Some(stream)
    }

    /// Notes that something may still come of a call that has ended.
    fn cut_short(&mut self, id: StreamId, by_us: bool) {
        if let Some(known) = self.cut_short.iter_mut().find(|known| known.0 == id) {
            known.1 |= by_us;
            return;
        }
        if self.cut_short.len() == REMEMBERED {
            self.cut_short.pop_front();
        }
        self.cut_short.push_back((id, by_us));
    }

    /// Notes a frame that makes nothing but work.
    pub(super) fn disturbed(&mut self) -> Result<(), Fault> {
        self.unrest += 1;
        if self.unrest > self.limits.unrest {
            return Err(Fault::Connection(Code::EnhanceYourCalm));
        }
        Ok(())
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
