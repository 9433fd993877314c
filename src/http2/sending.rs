//! Answers on their way out, as fast as the client takes them (RFC 9113, 5.2 and 6.9).

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::code::Code;
use super::frame::{self, MAX_PAYLOAD, flag, kind};
use super::session::{Session, StreamId};
use super::work;

/// Memory that an answer takes in a queue beside its parts, in bytes.
const PENDING_COST: usize = 256;
/// Memory that a part takes beside its bytes, in bytes.
const PART_COST: usize = 64;

/// What waits for a window.
#[derive(Debug, Default)]
pub(super) struct Pending {
    parts: VecDeque<Bytes>,
    /// What the parts take in memory, in bytes.
    size: usize,
    /// What comes when all parts are sent.
    end: Option<End>,
    /// Who wants to know when nothing is left.
    waker: Option<Waker>,
    /// How many ticks it has waited.
    ticks: u32,
}

impl Pending {
    pub(super) fn has_data(&self) -> bool {
        !self.parts.is_empty()
    }

    /// What it takes in memory, in bytes.
    pub(super) const fn cost(&self) -> usize {
        PENDING_COST + self.size
    }

    /// Counts a tick; how many there were.
    pub(super) const fn tick(&mut self) -> u32 {
        self.ticks = self.ticks.saturating_add(1);
        self.ticks
    }

    fn push(&mut self, part: Bytes) {
        self.size += PART_COST + part.len();
        self.parts.push_back(part);
    }

    /// Bytes of data that it has.
    fn length(&self) -> usize {
        self.size - PART_COST * self.parts.len()
    }

    /// Moves so many bytes, which it has, to `out`.
    fn write(&mut self, mut count: usize, out: &mut Vec<u8>) {
        while count > 0
            && let Some(part) = self.parts.front_mut()
        {
            let taken = part.split_to(count.min(part.len()));
            work::bytes(taken.len());
            out.extend_from_slice(&taken);
            count -= taken.len();
            self.size -= taken.len();
            if part.is_empty() {
                self.size -= PART_COST;
                self.parts.pop_front();
            }
        }
    }
}

/// How an answer ends.
#[derive(Debug)]
pub enum End {
    /// With these fields.
    Trailers(Bytes),
    /// Just so.
    Bare,
}

impl<C> Session<C> {
    /// Answers a call with a head, one message in two parts, and what follows it. A call whose
    /// answer finds no room where others wait is reset.
    pub fn answer(
        &mut self,
        id: StreamId,
        head: &[u8],
        prefix: &[u8],
        message: Bytes,
        trailers: &'static [u8],
    ) {
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        let length = prefix.len() + message.len();
        let room = self.send_window.min(self.initial_window + stream.credit);
        let fits = length <= MAX_PAYLOAD && length as i64 <= room;
        if !fits || stream.has_begun || self.owes_table_size || self.is_output_full() {
            if self.has_room(id, length) {
                self.begin(id, head);
                // A copy, as what the message lies in may be larger than it is.
                self.send(id, [prefix, &message].concat().into());
                self.end(id, End::Trailers(Bytes::from_static(trailers)));
            }
            return;
        }
        work::bytes(length);
        self.send_window -= length as i64;
        self.out.reserve(3 * frame::HEAD + head.len() + length + trailers.len());
        frame::write(kind::HEADERS, flag::END_HEADERS, id, head, &mut self.out);
        frame::write_head(kind::DATA, 0, id, length, &mut self.out);
        self.out.extend_from_slice(prefix);
        self.out.extend_from_slice(&message);
        frame::write(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, id, trailers, &mut self.out);
        self.answered(id);
    }

    /// Answers a call with a head alone.
    pub fn answer_alone(&mut self, id: StreamId, head: &[u8]) {
        if self.may_begin(id) {
            self.write_headers(id, head, true);
            self.answered(id);
        }
    }

    /// Begins an answer.
    pub fn begin(&mut self, id: StreamId, head: &[u8]) {
        if self.may_begin(id) {
            self.write_headers(id, head, false);
        }
    }

    /// Whether an answer may begin, which it does then. One that has begun before is cut off: it
    /// can't be made good.
    fn may_begin(&mut self, id: StreamId) -> bool {
        let begins = self.change(id, |stream| !std::mem::replace(&mut stream.has_begun, true));
        if begins == Some(false) {
            self.reset(id, Code::Internal);
        }
        begins == Some(true)
    }

    /// Goes on with an answer that has begun. A call whose answer finds no room where others wait
    /// is reset.
    pub fn send(&mut self, id: StreamId, part: Bytes) {
        if part.is_empty() || !self.has_room(id, part.len()) {
            return;
        }
        work::bytes(part.len());
        self.change(id, |stream| stream.pending.get_or_insert_default().push(part));
        self.pump();
    }

    /// Ends an answer that has begun, once all of it is sent.
    pub fn end(&mut self, id: StreamId, end: End) {
        let has_data = self.change(id, |stream| {
            let pending = stream.pending.get_or_insert_default();
            pending.end = Some(end);
            pending.has_data()
        });
        match has_data {
            Some(true) => self.pump(),
            Some(false) => self.finish(id),
            None => {}
        }
    }

    /// Ready when nothing of an answer waits for a window, or nobody waits for the answer.
    pub fn poll_sent(&mut self, id: StreamId, context: &Context<'_>) -> Poll<()> {
        match self.streams.get_mut(&id).and_then(|stream| stream.pending.as_mut()) {
            Some(pending) => {
                pending.waker = Some(context.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }

    /// Whether there is room for a part of so many bytes among what waits. Where there is none the
    /// call is reset.
    fn has_room(&mut self, id: StreamId, length: usize) -> bool {
        let has_room = self.queued + PENDING_COST + PART_COST + length <= self.limits.queued;
        if !has_room && self.streams.contains_key(&id) {
            self.reset(id, Code::EnhanceYourCalm);
        }
        has_room
    }

    /// Sends what the windows and the output have room for, a frame at a time: of the stream whose
    /// window has the most room, which is the one that has got the least if all may send as much.
    pub(super) fn pump(&mut self) {
        while self.send_window > 0
            && !self.is_output_full()
            && let Some(&(true, credit, id)) = self.ranks.last()
        {
            let id = id.0;
            let room = self.send_window.min(self.initial_window + credit).min(MAX_PAYLOAD as i64);
            let Some(room) = usize::try_from(room).ok().filter(|room| *room > 0) else {
                return;
            };
            let mut out = std::mem::take(&mut self.out);
            let sent = self.change(id, |stream| {
                let pending = stream.pending.as_mut()?;
                let length = room.min(pending.length());
                frame::write_head(kind::DATA, 0, id, length, &mut out);
                pending.write(length, &mut out);
                stream.credit -= length as i64;
                Some((length, pending.has_data()))
            });
            self.out = out;
            let Some(Some((length, has_more))) = sent else {
                return;
            };
            self.send_window -= length as i64;
            if !has_more {
                self.finish(id);
            }
        }
    }

    /// All data of an answer that was there is sent.
    fn finish(&mut self, id: StreamId) {
        let Some(Some(pending)) = self.change(id, |stream| stream.pending.take()) else {
            return;
        };
        if let Some(waker) = pending.waker {
            waker.wake();
        }
        match pending.end {
            None => {}
            Some(End::Bare) => {
                frame::write(kind::DATA, flag::END_STREAM, id, &[], &mut self.out);
                self.answered(id);
            }
            Some(End::Trailers(block)) => {
                self.write_headers(id, &block, true);
                self.answered(id);
            }
        }
    }
}
