//! What a client says, frame by frame (RFC 9113, 5 and 6): which frames may come, and those that make a call.

use super::code::{Code, Fault};
use super::frame::{self, FrameHead, MAX_PAYLOAD, PREFACE, flag, kind, unpadded};
use super::head::Head;
use super::session::{Leaving, Progress, Session, Stream, StreamId, Unfinished, WINDOW};
use super::work;

/// Most frames that a head may be cut into.
const MAX_CUTS: u32 = 64;
/// Too many or too large fields in the head of a request (RFC 6585, 5).
const HEAD_TOO_LARGE: http::StatusCode = http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;

/// What a client has said that its server must know of.
#[derive(Debug)]
pub enum Event<'i> {
    /// A call begins; [`Session::head`] says which.
    Opened(Opened),
    /// Some of its body.
    Data {
        /// Of the call.
        id: StreamId,
        /// As it lies in the input.
        data: &'i [u8],
        /// Whether that was all.
        ended: bool,
    },
}

/// A call that is still to be accepted, or turned down.
#[derive(Debug)]
#[must_use]
pub struct Opened {
    id: StreamId,
    ended: bool,
    announced: Option<u64>,
}

impl Opened {
    /// Whether it has no body.
    pub const fn ended(&self) -> bool {
        self.ended
    }

    /// Its number.
    pub const fn id(&self) -> StreamId {
        self.id
    }
}

/// The connection ends with what is to be written: the client has broken it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

impl<C> Session<C> {
    /// Takes the next frame of `input`: how many bytes of it that was, and what is to be done about it. None when it
    /// isn't all there, or when output is to be written first ([`Session::is_output_full`]).
    ///
    /// # Errors
    /// When it was the last one that is taken.
    pub fn receive<'i>(&mut self, input: &'i [u8]) -> Result<Option<(usize, Option<Event<'i>>)>, Closed> {
        if self.is_output_full() {
            return Ok(None);
        }
        let taken = match self.progress {
            Progress::Preface => self.on_preface(input).map(|taken| taken.map(|taken| (taken, None))),
            Progress::Settings | Progress::Open => self.on_input(input),
        };
        taken.map_err(|code| {
            self.write_goaway(self.last, code);
            Closed
        })
    }

    /// Takes a call on.
    pub fn accept(&mut self, opened: Opened, call: C) -> StreamId {
        let Opened { id, ended, announced } = opened;
        self.incomplete += usize::from(!ended);
        let stream = Stream {
            call,
            ended,
            has_begun: false,
            announced,
            received: 0,
            receive_window: WINDOW.into(),
            credit: 0,
            pending: None,
        };
        self.streams.insert(id, stream);
        id
    }

    /// Answers a call with a head alone, without having taken it on: work for nothing.
    pub fn turn_down(&mut self, opened: &Opened, head: &[u8]) {
        self.write_headers(opened.id, head, true);
        match opened.ended {
            true => self.charge(),
            false => self.reset(opened.id, Code::None),
        }
    }

    fn on_preface(&mut self, input: &[u8]) -> Result<Option<usize>, Code> {
        let expected = &PREFACE[..PREFACE.len().min(input.len())];
        if !input.starts_with(expected) {
            return Err(Code::Protocol);
        }
        if expected.len() < PREFACE.len() {
            return Ok(None);
        }
        self.progress = Progress::Settings;
        Ok(Some(PREFACE.len()))
    }

    fn on_input<'i>(&mut self, input: &'i [u8]) -> Result<Option<(usize, Option<Event<'i>>)>, Code> {
        let Some(head) = FrameHead::read(input) else {
            return Ok(None);
        };
        if head.length > MAX_PAYLOAD {
            return Err(Code::FrameSize);
        }
        let end = frame::HEAD + head.length;
        let Some(payload) = input.get(frame::HEAD..end) else {
            return Ok(None);
        };
        let event = match self.on_frame(&head, payload) {
            Ok(event) => event,
            Err(Fault::Connection(code)) => return Err(code),
            Err(Fault::Stream(id, code)) => {
                self.reset(id, code);
                None
            }
        };
        if self.unrest > self.limits.unrest {
            return Err(Code::EnhanceYourCalm);
        }
        Ok(Some((end, event)))
    }

    fn on_frame<'i>(&mut self, head: &FrameHead, payload: &'i [u8]) -> Result<Option<Event<'i>>, Fault> {
        let protocol = Fault::Connection(Code::Protocol);
        if self.progress == Progress::Settings {
            if head.kind != kind::SETTINGS || head.has(flag::ACK) {
                return Err(protocol);
            }
            self.progress = Progress::Open;
        }
        let of_head = self.unfinished.as_ref().map(|unfinished| unfinished.stream);
        if of_head.is_some_and(|stream| head.kind != kind::CONTINUATION || head.stream != stream) {
            return Err(protocol);
        }
        let is_of_connection = head.stream == 0;
        match head.kind {
            kind::DATA if !is_of_connection => return self.on_data(head, payload),
            kind::HEADERS if !is_of_connection => return self.on_headers(head, payload),
            kind::CONTINUATION if of_head.is_some() => return self.on_continuation(head, payload),
            kind::PRIORITY if !is_of_connection => self.on_priority(head)?,
            kind::RST_STREAM if !is_of_connection => self.on_reset(head, payload)?,
            kind::SETTINGS if is_of_connection => self.on_settings(head, payload)?,
            kind::PING if is_of_connection => self.on_ping(head, payload)?,
            kind::GOAWAY if is_of_connection => self.on_goaway(payload)?,
            kind::WINDOW_UPDATE => {
                self.on_window_update(head, payload)?;
                // It lets us go on, however little.
                return Ok(None);
            }
            kind::DATA
            | kind::HEADERS
            | kind::CONTINUATION
            | kind::PRIORITY
            | kind::RST_STREAM
            | kind::SETTINGS
            | kind::PING
            | kind::GOAWAY
            | kind::PUSH_PROMISE => return Err(protocol),
            // What we don't know is nothing to us (RFC 9113, 5.5).
            _ => {}
        }
        self.charge();
        Ok(None)
    }

    fn on_data<'i>(&mut self, head: &FrameHead, payload: &'i [u8]) -> Result<Option<Event<'i>>, Fault> {
        let (id, ended) = (head.stream, head.has(flag::END_STREAM));
        let length = payload.len() as i64;
        self.receive_window -= length;
        if self.receive_window < 0 {
            return Err(Fault::Connection(Code::FlowControl));
        }
        let data = unpadded(head, payload)?;
        self.receive_window += refill(0, self.receive_window, &mut self.out);
        work::streams(1);
        let Some(stream) = self.streams.get_mut(&id) else {
            return self.on_no_call(id);
        };
        if stream.ended {
            return Err(Fault::Stream(id, Code::StreamClosed));
        }
        stream.receive_window -= length;
        if stream.receive_window < 0 {
            return Err(Fault::Stream(id, Code::FlowControl));
        }
        stream.received += data.len() as u64;
        let is_as_announced = stream.announced.is_none_or(|announced| match ended {
            true => stream.received == announced,
            false => stream.received <= announced,
        });
        if !is_as_announced {
            return Err(Fault::Stream(id, Code::Protocol));
        }
        if ended {
            stream.ended = true;
            self.incomplete -= 1;
        } else {
            stream.receive_window += refill(id, stream.receive_window, &mut self.out);
            if data.is_empty() {
                self.charge();
            }
        }
        Ok(Some(Event::Data { id, data, ended }))
    }

    fn on_headers<'i>(&mut self, head: &FrameHead, payload: &[u8]) -> Result<Option<Event<'i>>, Fault> {
        let mut block = unpadded(head, payload)?;
        if head.has(flag::PRIORITY) {
            // Nobody is preferred (RFC 9113, 5.3.2).
            block = block.get(5..).ok_or(Fault::Connection(Code::FrameSize))?;
        }
        let ended = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.on_block(head.stream, ended, block);
        }
        work::bytes(block.len());
        self.unfinished = Some(Unfinished { stream: head.stream, ended, block: block.to_vec(), frames: 1 });
        Ok(None)
    }

    fn on_continuation<'i>(&mut self, head: &FrameHead, payload: &[u8]) -> Result<Option<Event<'i>>, Fault> {
        let Some(mut unfinished) = self.unfinished.take() else {
            return Err(Fault::Connection(Code::Protocol));
        };
        work::bytes(payload.len());
        unfinished.block.extend_from_slice(payload);
        unfinished.frames += 1;
        if unfinished.block.len() > self.limits.head as usize || unfinished.frames > MAX_CUTS {
            return Err(Fault::Connection(Code::EnhanceYourCalm));
        }
        if head.has(flag::END_HEADERS) {
            return self.on_block(unfinished.stream, unfinished.ended, &unfinished.block);
        }
        self.unfinished = Some(unfinished);
        Ok(None)
    }

    /// All fields of a request, or of what follows one, are there.
    fn on_block<'i>(&mut self, id: StreamId, ended: bool, block: &[u8]) -> Result<Option<Event<'i>>, Fault> {
        let limit = self.limits.head as usize;
        if id <= self.last {
            let mut trailers = Head::default();
            self.read_block(block, &mut trailers, limit)?;
            return self.on_trailers(id, ended, &trailers);
        }
        // It is read whatever becomes of the call: the client's table goes on.
        let mut head = std::mem::take(&mut self.head);
        head.clear();
        let read = self.read_block(block, &mut head, limit);
        self.head = head;
        read?;
        if id.is_multiple_of(2) {
            return Err(Fault::Connection(Code::Protocol));
        }
        self.last = id;
        let opened = Opened { id, ended, announced: self.head.content_length() };
        if self.head.exceeds(limit) {
            self.turn_down(&opened, &super::block(Some(HEAD_TOO_LARGE), &http::HeaderMap::new()));
            return Ok(None);
        }
        let is_short = ended && opened.announced.is_some_and(|announced| announced > 0);
        if !self.head.is_request() || is_short {
            return Err(Fault::Stream(id, Code::Protocol));
        }
        let is_full = self.streams.len() >= self.limits.streams as usize;
        if is_full || self.leaving == Leaving::Final {
            return Err(Fault::Stream(id, Code::RefusedStream));
        }
        Ok(Some(Event::Opened(opened)))
    }

    fn read_block(&mut self, block: &[u8], head: &mut Head, limit: usize) -> Result<(), Fault> {
        let read = self.decoder.decode(block, |entry| head.add(entry, limit));
        read.map_err(|_| Fault::Connection(Code::Compression))
    }

    fn on_trailers<'i>(
        &mut self,
        id: StreamId,
        ended: bool,
        trailers: &Head,
    ) -> Result<Option<Event<'i>>, Fault> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return self.on_no_call(id);
        };
        if stream.ended {
            return Err(Fault::Stream(id, Code::StreamClosed));
        }
        let is_as_announced = stream.announced.is_none_or(|announced| stream.received == announced);
        if !ended || !trailers.is_trailers() || !is_as_announced {
            return Err(Fault::Stream(id, Code::Protocol));
        }
        stream.ended = true;
        self.incomplete -= 1;
        // What they say is nothing to a call of ours.
        Ok(Some(Event::Data { id, data: &[], ended: true }))
    }

    /// What a frame is met with that belongs to a call which is no longer there, or never was.
    fn on_no_call<'i>(&mut self, id: StreamId) -> Result<Option<Event<'i>>, Fault> {
        if id > self.last || id.is_multiple_of(2) {
            return Err(Fault::Connection(Code::Protocol));
        }
        match self.recently_reset.is_by_us(id) {
            // It hadn't heard yet.
            Some(true) => {
                self.charge();
                Ok(None)
            }
            Some(false) => Err(Fault::Stream(id, Code::StreamClosed)),
            None => Err(Fault::Connection(Code::StreamClosed)),
        }
    }
}

/// Tells the client that it may send more once it has used half of a window; how much more that is.
fn refill(id: StreamId, window: i64, out: &mut Vec<u8>) -> i64 {
    let used = i64::from(WINDOW) - window;
    if used < i64::from(WINDOW) / 2 {
        return 0;
    }
    frame::write(kind::WINDOW_UPDATE, 0, id, &(used as u32).to_be_bytes(), out);
    used
}
