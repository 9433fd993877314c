//! Frames that carry requests: HEADERS, CONTINUATION and DATA, and the order of all frames.
//!
//! See RFC 9113, 5 and 6.

use crate::error::{ConnectionClosed, ErrorCode, FrameError};
use crate::frame::{
    self, FRAME_HEADER_LEN, FrameHeader, MAX_FRAME_SIZE, PREFACE, flag, frame_type, strip_padding,
};
use crate::header_block::HeaderBlock;
use crate::request_head::RequestHead;
use crate::session::{Handshake, PartialHeaderBlock, RECEIVE_WINDOW, Session, Shutdown};
use crate::stream::{Stream, StreamId};
use crate::work;

/// Most frames of one header block.
const MAX_HEADER_FRAMES: u32 = 64;
/// Status of a request whose header list is too large (RFC 6585, 5).
const HEADERS_TOO_LARGE: http::StatusCode = http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;

/// Something that the peer sent and the driver acts on.
#[derive(Debug)]
pub enum Event<'i> {
    /// A stream was opened; [`Session::request_head`] has its request.
    Request(IncomingStream),
    /// A part of a request's body.
    Data {
        /// The stream.
        id: StreamId,
        /// The octets, where they lie in the input.
        data: &'i [u8],
        /// True when the body ends with them.
        end_stream: bool,
    },
}

/// A stream that the driver hasn't accepted or rejected yet.
#[derive(Debug)]
#[must_use]
pub struct IncomingStream {
    id: StreamId,
    end_stream: bool,
    content_length: Option<u64>,
}

impl IncomingStream {
    /// Returns whether the request has no body.
    #[inline]
    pub const fn end_stream(&self) -> bool {
        self.end_stream
    }

    /// Returns the stream's number.
    #[inline]
    pub const fn id(&self) -> StreamId {
        self.id
    }
}

impl<T> Session<T> {
    /// Receives the next frame of `input`, and returns its length and what it brings.
    ///
    /// None when the frame is incomplete, or when output must be written first
    /// ([`Session::is_output_full`]).
    ///
    /// # Errors
    /// The connection ends: the output has the last GOAWAY.
    pub fn receive<'i>(
        &mut self,
        input: &'i [u8],
    ) -> Result<Option<(usize, Option<Event<'i>>)>, ConnectionClosed> {
        if self.is_output_full() {
            return Ok(None);
        }
        let received = match self.handshake {
            Handshake::Preface => self.on_preface(input).map(|taken| taken.map(|taken| (taken, None))),
            Handshake::Settings | Handshake::Complete => self.on_input(input),
        };
        received.map_err(|code| {
            self.write_goaway(self.last_stream_id, code);
            ConnectionClosed(code)
        })
    }

    /// Accepts a stream whose message is expected within [`Limits::read_ticks`](crate::Limits).
    pub fn accept(&mut self, incoming: IncomingStream, state: T) -> StreamId {
        self.insert(incoming, state, false)
    }

    /// Accepts a stream whose peer may send for as long as the driver lets it.
    pub fn accept_streaming(&mut self, incoming: IncomingStream, state: T) -> StreamId {
        self.insert(incoming, state, true)
    }

    /// Adds the stream of a request.
    fn insert(&mut self, incoming: IncomingStream, state: T, streaming: bool) -> StreamId {
        let IncomingStream { id, end_stream, content_length } = incoming;
        self.incomplete += usize::from(!end_stream);
        let stream = Stream {
            state,
            half_closed: end_stream,
            headers_sent: false,
            streaming,
            content_length,
            received: 0,
            receive_window: RECEIVE_WINDOW.into(),
            window_offset: 0,
            ticks: 0,
            pending: None,
        };
        self.streams.insert(id, stream);
        id
    }

    /// Rejects a stream with a response without a body, which is charged to the abuse budget.
    pub fn reject(&mut self, incoming: &IncomingStream, head: &HeaderBlock) {
        self.write_headers(incoming.id, head, true);
        match incoming.end_stream {
            true => self.charge(),
            false => self.reset(incoming.id, ErrorCode::NoError),
        }
    }

    fn on_preface(&mut self, input: &[u8]) -> Result<Option<usize>, ErrorCode> {
        let expected = &PREFACE[..PREFACE.len().min(input.len())];
        if !input.starts_with(expected) {
            return Err(ErrorCode::ProtocolError);
        }
        if expected.len() < PREFACE.len() {
            return Ok(None);
        }
        self.handshake = Handshake::Settings;
        self.stall.received();
        Ok(Some(PREFACE.len()))
    }

    /// Handles one frame. Returns the octets that were read and the event; None if the frame is
    /// incomplete.
    fn on_input<'i>(&mut self, input: &'i [u8]) -> Result<Option<(usize, Option<Event<'i>>)>, ErrorCode> {
        let Some(header) = FrameHeader::parse(input) else {
            return Ok(None);
        };
        if header.length > MAX_FRAME_SIZE {
            return Err(ErrorCode::FrameSizeError);
        }
        let end = FRAME_HEADER_LEN + header.length;
        let Some(payload) = input.get(FRAME_HEADER_LEN..end) else {
            return Ok(None);
        };
        let event = match self.on_frame(&header, payload) {
            Ok(event) => event,
            Err(FrameError::Connection(code)) => return Err(code),
            Err(FrameError::Stream(id, code)) => {
                self.reset(id, code);
                None
            }
        };
        if self.charged > self.limits.abuse_budget {
            return Err(ErrorCode::EnhanceYourCalm);
        }
        if self.partial_header_block.is_none() {
            self.stall.received();
        }
        Ok(Some((end, event)))
    }

    /// Checks a frame's place in the connection, and handles it by its type.
    fn on_frame<'i>(
        &mut self,
        header: &FrameHeader,
        payload: &'i [u8],
    ) -> Result<Option<Event<'i>>, FrameError> {
        let protocol_error = FrameError::Connection(ErrorCode::ProtocolError);
        if self.handshake == Handshake::Settings {
            if header.frame_type != frame_type::SETTINGS || header.has(flag::ACK) {
                return Err(protocol_error);
            }
            self.handshake = Handshake::Complete;
        }
        let partial = self.partial_header_block.as_ref().map(|partial| partial.stream);
        let continues = |stream| header.frame_type == frame_type::CONTINUATION && header.stream == stream;
        if partial.is_some_and(|stream| !continues(stream)) {
            return Err(protocol_error);
        }
        let is_connection = header.stream == 0;
        match header.frame_type {
            frame_type::DATA if !is_connection => return self.on_data(header, payload),
            frame_type::HEADERS if !is_connection => return self.on_headers(header, payload),
            frame_type::CONTINUATION if partial.is_some() => return self.on_continuation(header, payload),
            frame_type::PRIORITY if !is_connection => self.on_priority(header)?,
            frame_type::RST_STREAM if !is_connection => self.on_rst_stream(header, payload)?,
            frame_type::SETTINGS if is_connection => self.on_settings(header, payload)?,
            frame_type::PING if is_connection => self.on_ping(header, payload)?,
            frame_type::GOAWAY if is_connection => self.on_goaway(payload)?,
            frame_type::WINDOW_UPDATE => {
                self.on_window_update(header, payload)?;
                // However small, it lets responses go on, so it isn't charged.
                return Ok(None);
            }
            frame_type::DATA
            | frame_type::HEADERS
            | frame_type::CONTINUATION
            | frame_type::PRIORITY
            | frame_type::RST_STREAM
            | frame_type::SETTINGS
            | frame_type::PING
            | frame_type::GOAWAY
            | frame_type::PUSH_PROMISE => return Err(protocol_error),
            // Unknown types are ignored (RFC 9113, 5.5).
            _ => {}
        }
        self.charge();
        Ok(None)
    }

    /// Handles DATA (RFC 9113, 6.1): flow control, padding, content-length.
    fn on_data<'i>(
        &mut self,
        header: &FrameHeader,
        payload: &'i [u8],
    ) -> Result<Option<Event<'i>>, FrameError> {
        let (id, end_stream) = (header.stream, header.has(flag::END_STREAM));
        let length = payload.len() as i64;
        self.receive_window -= length;
        if self.receive_window < 0 {
            return Err(FrameError::Connection(ErrorCode::FlowControlError));
        }
        let data = strip_padding(header, payload)?;
        self.receive_window += replenish(0, self.receive_window, &mut self.out);
        work::streams(1);
        let Some(stream) = self.streams.get_mut(&id) else {
            return self.on_closed_stream(id);
        };
        if stream.half_closed {
            return Err(FrameError::Stream(id, ErrorCode::StreamClosed));
        }
        stream.receive_window -= length;
        if stream.receive_window < 0 {
            return Err(FrameError::Stream(id, ErrorCode::FlowControlError));
        }
        stream.received += data.len() as u64;
        let fits_content_length = stream.content_length.is_none_or(|length| match end_stream {
            true => stream.received == length,
            false => stream.received <= length,
        });
        if !fits_content_length {
            return Err(FrameError::Stream(id, ErrorCode::ProtocolError));
        }
        if end_stream {
            stream.half_closed = true;
            self.incomplete -= 1;
        } else {
            stream.receive_window += replenish(id, stream.receive_window, &mut self.out);
            if data.is_empty() {
                self.charge();
            }
        }
        Ok(Some(Event::Data { id, data, end_stream }))
    }

    /// Handles HEADERS (RFC 9113, 6.2). A header block without its end waits for CONTINUATION.
    fn on_headers<'i>(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
    ) -> Result<Option<Event<'i>>, FrameError> {
        let mut block = strip_padding(header, payload)?;
        if header.has(flag::PRIORITY) {
            // The priority is ignored (RFC 9113, 5.3.2).
            block = block.get(5..).ok_or(FrameError::Connection(ErrorCode::FrameSizeError))?;
        }
        let (stream, end_stream) = (header.stream, header.has(flag::END_STREAM));
        if header.has(flag::END_HEADERS) {
            return self.on_header_block(stream, end_stream, block);
        }
        work::bytes(block.len());
        let block = block.to_vec();
        self.partial_header_block = Some(PartialHeaderBlock { stream, end_stream, block, frames: 1 });
        Ok(None)
    }

    fn on_continuation<'i>(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
    ) -> Result<Option<Event<'i>>, FrameError> {
        let Some(mut partial) = self.partial_header_block.take() else {
            return Err(FrameError::Connection(ErrorCode::ProtocolError));
        };
        work::bytes(payload.len());
        partial.block.extend_from_slice(payload);
        partial.frames += 1;
        let max_block = self.limits.max_header_list_size as usize;
        if partial.block.len() > max_block || partial.frames > MAX_HEADER_FRAMES {
            return Err(FrameError::Connection(ErrorCode::EnhanceYourCalm));
        }
        if header.has(flag::END_HEADERS) {
            return self.on_header_block(partial.stream, partial.end_stream, &partial.block);
        }
        self.partial_header_block = Some(partial);
        Ok(None)
    }

    /// Decodes a complete header block: a request's, or the trailers of one.
    fn on_header_block<'i>(
        &mut self,
        id: StreamId,
        end_stream: bool,
        block: &[u8],
    ) -> Result<Option<Event<'i>>, FrameError> {
        let max_size = self.limits.max_header_list_size as usize;
        if id <= self.last_stream_id {
            let mut trailers = RequestHead::default();
            self.decode(block, &mut trailers, max_size)?;
            return self.on_trailers(id, end_stream, &trailers);
        }
        // Whatever becomes of the request, the peer's dynamic table has changed.
        let mut head = std::mem::take(&mut self.request_head);
        head.clear();
        let decoded = self.decode(block, &mut head, max_size);
        self.request_head = head;
        decoded?;
        if id.is_multiple_of(2) {
            return Err(FrameError::Connection(ErrorCode::ProtocolError));
        }
        self.last_stream_id = id;
        let content_length = self.request_head.content_length();
        let incoming = IncomingStream { id, end_stream, content_length };
        if self.request_head.exceeds(max_size) {
            let head = HeaderBlock::response(HEADERS_TOO_LARGE, &http::HeaderMap::new());
            self.reject(&incoming, &head);
            return Ok(None);
        }
        let is_short = end_stream && content_length.is_some_and(|length| length > 0);
        if !self.request_head.is_request() || is_short {
            return Err(FrameError::Stream(id, ErrorCode::ProtocolError));
        }
        let is_full = self.streams.len() >= self.limits.max_concurrent_streams as usize;
        if is_full || self.shutdown == Shutdown::Final {
            return Err(FrameError::Stream(id, ErrorCode::RefusedStream));
        }
        Ok(Some(Event::Request(incoming)))
    }

    fn decode(&mut self, block: &[u8], head: &mut RequestHead, max_size: usize) -> Result<(), FrameError> {
        let decoded = self.decoder.decode(block, |field| head.add(field, max_size));
        decoded.map_err(|_| FrameError::Connection(ErrorCode::CompressionError))
    }

    /// Handles the trailers of a request, which end it.
    fn on_trailers<'i>(
        &mut self,
        id: StreamId,
        end_stream: bool,
        trailers: &RequestHead,
    ) -> Result<Option<Event<'i>>, FrameError> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return self.on_closed_stream(id);
        };
        if stream.half_closed {
            return Err(FrameError::Stream(id, ErrorCode::StreamClosed));
        }
        let fits_content_length = stream.content_length.is_none_or(|length| stream.received == length);
        if !end_stream || !trailers.is_trailers() || !fits_content_length {
            return Err(FrameError::Stream(id, ErrorCode::ProtocolError));
        }
        stream.half_closed = true;
        self.incomplete -= 1;
        // Their fields aren't reported: no driver needs them.
        Ok(Some(Event::Data { id, data: &[], end_stream: true }))
    }

    /// Judges a frame on a stream that is closed or was never opened.
    fn on_closed_stream<'i>(&mut self, id: StreamId) -> Result<Option<Event<'i>>, FrameError> {
        if id > self.last_stream_id || id.is_multiple_of(2) {
            return Err(FrameError::Connection(ErrorCode::ProtocolError));
        }
        match self.recently_reset.is_by_server(id) {
            // The peer hadn't received the reset when it sent this.
            Some(true) => {
                self.charge();
                Ok(None)
            }
            Some(false) => Err(FrameError::Stream(id, ErrorCode::StreamClosed)),
            None => Err(FrameError::Connection(ErrorCode::StreamClosed)),
        }
    }
}

/// Writes a WINDOW_UPDATE once half of a window is used, and returns its increment.
#[inline]
fn replenish(id: StreamId, window: i64, out: &mut Vec<u8>) -> i64 {
    let used = i64::from(RECEIVE_WINDOW) - window;
    if used < i64::from(RECEIVE_WINDOW) / 2 {
        return 0;
    }
    frame::write(frame_type::WINDOW_UPDATE, 0, id, &(used as u32).to_be_bytes(), out);
    used
}
