//! Answers on their way out, as fast as the client takes them (RFC 9113, 5.2 and 6.9).

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::frame::{self, MAX_PAYLOAD, flag, kind};
use super::session::{Session, StreamId};

/// What waits for a window.
#[derive(Debug, Default)]
pub(super) struct Pending {
    parts: VecDeque<Bytes>,
    /// What comes when all parts are sent.
    end: Option<End>,
    /// Whether it is in [`Session::waiting`].
    is_in_line: bool,
    /// Who wants to know when nothing is left.
    waker: Option<Waker>,
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
    /// Answers a call with a head, one message in two parts, and what follows it.
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
        let room = self.send_window.min(stream.send_window);
        let fits = length <= MAX_PAYLOAD && length as i64 <= room;
        if !fits || stream.pending.is_some() || self.owes_table_size {
            self.write_headers(id, head, false);
            for part in [Bytes::copy_from_slice(prefix), message] {
                self.enqueue(id, part);
            }
            return self.end(id, End::Trailers(Bytes::from_static(trailers)));
        }
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
        if self.streams.contains_key(&id) {
            self.write_headers(id, head, true);
            self.answered(id);
        }
    }

    /// Begins an answer.
    pub fn begin(&mut self, id: StreamId, head: &[u8]) {
        if self.streams.contains_key(&id) {
            self.write_headers(id, head, false);
        }
    }

    /// Goes on with an answer that has begun.
    pub fn send(&mut self, id: StreamId, part: Bytes) {
        self.enqueue(id, part);
        self.pump(id);
    }

    /// Ends an answer that has begun, once all of it is sent.
    pub fn end(&mut self, id: StreamId, end: End) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.pending.get_or_insert_default().end = Some(end);
            self.pump(id);
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

    fn enqueue(&mut self, id: StreamId, part: Bytes) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !part.is_empty()
        {
            stream.pending.get_or_insert_default().parts.push_back(part);
        }
    }

    /// Sends what the windows have room for.
    pub(super) fn pump(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let Some(pending) = &mut stream.pending else {
            return;
        };
        while let Some(part) = pending.parts.front_mut() {
            let room = self.send_window.min(stream.send_window).min(MAX_PAYLOAD as i64);
            let room = usize::try_from(room).unwrap_or(0).min(part.len());
            if room == 0 {
                // Its own window tells by itself when there is room again.
                if stream.send_window > 0 && !pending.is_in_line {
                    pending.is_in_line = true;
                    self.waiting.push_back(id);
                }
                return;
            }
            stream.send_window -= room as i64;
            self.send_window -= room as i64;
            frame::write(kind::DATA, 0, id, &part.split_to(room), &mut self.out);
            if part.is_empty() {
                pending.parts.pop_front();
            }
        }
        let Some(pending) = stream.pending.take() else {
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

    /// The connection's window has room: whoever waited longest is first.
    pub(super) fn pump_waiting(&mut self) {
        while self.send_window > 0
            && let Some(id) = self.waiting.pop_front()
        {
            if let Some(pending) = self.streams.get_mut(&id).and_then(|stream| stream.pending.as_mut()) {
                pending.is_in_line = false;
            }
            self.pump(id);
        }
    }

    /// The windows of all calls have changed.
    pub(super) fn pump_all(&mut self) {
        let pending = self.streams.iter().filter(|(_, stream)| stream.pending.is_some());
        let mut pending = pending.map(|(&id, _)| id).collect::<Vec<_>>();
        // The connection's window may not be enough for all of them: the oldest is first.
        pending.sort_unstable();
        for id in pending {
            self.pump(id);
        }
    }
}
