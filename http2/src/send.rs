//! Responses, within the peer's flow-control windows (RFC 9113, 5.2 and 6.9).

use std::task::{Context, Poll};

use bytes::Bytes;

use crate::error::ErrorCode;
use crate::frame::{self, FRAME_HEADER_LEN, MAX_FRAME_SIZE, flag, frame_type};
use crate::header_block::HeaderBlock;
use crate::pending::{CHUNK_COST, EndStream, PENDING_COST};
use crate::session::Session;
use crate::stream::StreamId;
use crate::work;

impl<T> Session<T> {
    /// Sends a whole response: a head, one message, and trailers. The message is a prefix, and as
    /// many bytes as stand beside it, which `write` appends.
    ///
    /// The stream is reset when the response must wait and finds no room where others wait.
    pub fn respond(
        &mut self,
        id: StreamId,
        head: &HeaderBlock,
        (prefix, message_len): (&[u8], usize),
        write: impl FnOnce(&mut Vec<u8>),
        trailers: &HeaderBlock,
    ) {
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        let length = prefix.len() + message_len;
        let window = self.send_window.min(self.initial_window_size + stream.window_offset);
        let fits = length <= MAX_FRAME_SIZE && length as i64 <= window;
        if !fits || stream.headers_sent || self.owes_table_size_update || self.is_output_full() {
            if self.has_room(id, length) {
                self.send_headers(id, head);
                let mut data = Vec::with_capacity(length);
                write_message(prefix, length, write, &mut data);
                self.send_data(id, data.into());
                self.end_stream(id, EndStream::Trailers(trailers.clone()));
            }
            return;
        }
        let (head, trailers) = (head.octets(), trailers.octets());
        work::bytes(head.len() + length + trailers.len());
        self.send_window -= length as i64;
        self.out.reserve(3 * FRAME_HEADER_LEN + head.len() + length + trailers.len());
        frame::write(frame_type::HEADERS, flag::END_HEADERS, id, head, &mut self.out);
        frame::write_header(frame_type::DATA, 0, id, length, &mut self.out);
        write_message(prefix, length, write, &mut self.out);
        let ends = flag::END_HEADERS | flag::END_STREAM;
        frame::write(frame_type::HEADERS, ends, id, trailers, &mut self.out);
        self.complete(id);
    }

    /// Sends a whole response that has a head alone.
    pub fn respond_without_body(&mut self, id: StreamId, head: &HeaderBlock) {
        if self.begin_response(id) {
            self.write_headers(id, head, true);
            self.complete(id);
        }
    }

    /// Sends the head of a response.
    pub fn send_headers(&mut self, id: StreamId, head: &HeaderBlock) {
        if self.begin_response(id) {
            self.write_headers(id, head, false);
        }
    }

    /// Marks a response as begun, and returns whether it may be sent.
    ///
    /// A stream whose response had begun before is reset: a second head would be malformed.
    fn begin_response(&mut self, id: StreamId) -> bool {
        let begins = self.update(id, |stream| !std::mem::replace(&mut stream.headers_sent, true));
        if begins == Some(false) {
            self.reset(id, ErrorCode::InternalError);
        }
        begins == Some(true)
    }

    /// Sends data of a response whose head is sent.
    ///
    /// The stream is reset when the data finds no room where other responses wait.
    pub fn send_data(&mut self, id: StreamId, chunk: Bytes) {
        if chunk.is_empty() || !self.has_room(id, chunk.len()) {
            return;
        }
        work::bytes(chunk.len());
        self.update(id, |stream| stream.pending.get_or_insert_default().push(chunk));
        self.send_pending();
    }

    /// Ends a response once all its data is sent.
    pub fn end_stream(&mut self, id: StreamId, end: EndStream) {
        let has_data = self.update(id, |stream| {
            let pending = stream.pending.get_or_insert_default();
            pending.end = Some(end);
            pending.has_data()
        });
        match has_data {
            Some(true) => self.send_pending(),
            Some(false) => self.finish_pending(id),
            None => {}
        }
    }

    /// Returns whether all data of a response is sent, or the stream has ended.
    pub fn poll_sent(&mut self, id: StreamId, context: &Context<'_>) -> Poll<()> {
        match self.streams.get_mut(&id).and_then(|stream| stream.pending.as_mut()) {
            Some(pending) => {
                pending.waker = Some(context.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }

    /// Returns whether so many bytes may wait for a window; otherwise resets the stream.
    fn has_room(&mut self, id: StreamId, length: usize) -> bool {
        let has_room = self.pending + PENDING_COST + CHUNK_COST + length <= self.limits.max_pending;
        if !has_room && self.streams.contains_key(&id) {
            self.overflows = self.overflows.saturating_add(1);
            self.reset(id, ErrorCode::EnhanceYourCalm);
        }
        has_room
    }

    /// Sends waiting data for which the windows and the output have room, frame by frame.
    ///
    /// The stream with the largest window comes first, which is the one that was sent the least.
    pub(crate) fn send_pending(&mut self) {
        while self.send_window > 0
            && !self.is_output_full()
            && let Some(&(true, offset, id)) = self.send_order.last()
        {
            let id = id.0;
            let window = self.send_window.min(self.initial_window_size + offset);
            let window = usize::try_from(window).unwrap_or(0).min(MAX_FRAME_SIZE);
            if window == 0 {
                return;
            }
            let mut out = std::mem::take(&mut self.out);
            let sent = self.update(id, |stream| {
                let pending = stream.pending.as_mut()?;
                let length = window.min(pending.len());
                frame::write_header(frame_type::DATA, 0, id, length, &mut out);
                pending.write(length, &mut out);
                stream.window_offset -= length as i64;
                Some((length, pending.has_data()))
            });
            self.out = out;
            let Some(Some((length, has_more))) = sent else {
                return;
            };
            self.send_window -= length as i64;
            if !has_more {
                self.finish_pending(id);
            }
        }
    }

    /// Wakes whoever waits for a stream's data to be sent, and ends the response if it may.
    fn finish_pending(&mut self, id: StreamId) {
        let Some(Some(pending)) = self.update(id, |stream| stream.pending.take()) else {
            return;
        };
        if let Some(waker) = pending.waker {
            waker.wake();
        }
        match pending.end {
            None => {}
            Some(EndStream::Data) => {
                frame::write(frame_type::DATA, flag::END_STREAM, id, &[], &mut self.out);
                self.complete(id);
            }
            Some(EndStream::Trailers(block)) => {
                self.write_headers(id, &block, true);
                self.complete(id);
            }
        }
    }
}

/// Appends a message of `length` bytes, whatever `write` does: frames stay in step.
fn write_message(prefix: &[u8], length: usize, write: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
    let end = out.len() + length;
    out.extend_from_slice(prefix);
    write(out);
    debug_assert_eq!(out.len(), end, "the message has another length");
    out.resize(end, 0);
}
