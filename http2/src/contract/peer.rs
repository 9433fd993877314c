//! A peer that checks the contract after every frame.

use std::fmt;

use bytes::Bytes;

use crate::frame::{FRAME_HEADER_LEN, FrameHeader};
use crate::hpack::Decoder;
use crate::{ConnectionClosed, Event, HeaderBlock, Limits, Session, StreamId, work};

/// Most work for each byte received: bytes copied, fields and streams looked at.
pub const MAX_WORK_PER_BYTE: usize = 8;
/// Most work for each byte of a response, however small the windows through which it goes.
pub const MAX_WORK_PER_RESPONSE_BYTE: usize = 8;
/// Most output for each byte received, responses not counted.
pub const MAX_OUTPUT_PER_BYTE: usize = 8;
/// Most output for each byte of a response: a DATA frame may hold a single one.
pub const MAX_OUTPUT_PER_RESPONSE_BYTE: usize = 10;
/// Work and output that a new connection takes before anything is received.
const BEGINNING: usize = 100;
/// The preface and an empty SETTINGS frame.
pub const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A breach of the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// The bound that was exceeded.
    pub bound: &'static str,
    /// The value that was reached.
    pub value: usize,
    /// Largest value that the contract allows.
    pub limit: usize,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}, and the contract allows {}", self.bound, self.value, self.limit)
    }
}

/// Parts of the contract's bounds that a connection has used, each at most 1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Part of the work that the bytes so far allow.
    pub work: f64,
    /// Part of the output that the bytes so far allow.
    pub output: f64,
    /// Part of the octets that may wait to be written.
    pub unwritten: f64,
    /// Part of the memory that the limits allow.
    pub memory: f64,
}

/// The outcome of one step of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// A frame of so many bytes was received.
    Frame(usize),
    /// The frame is incomplete.
    Incomplete,
    /// Output must be written first.
    Blocked,
    /// The connection has ended.
    Closed,
}

/// A peer and the session that serves it; every complete request is answered at once.
#[derive(Debug)]
pub struct Peer {
    session: Session<usize>,
    limits: Limits,
    head: HeaderBlock,
    trailers: HeaderBlock,
    response: Bytes,
    /// Bytes that the session has received.
    received: usize,
    /// Bytes of the responses, and how many there were.
    responses: usize,
    /// Bytes that the peer has read.
    read: usize,
    /// Octets that the peer has read, if they are kept.
    octets: Option<Vec<u8>>,
    worked: usize,
}

impl Peer {
    /// Opens a connection on which each request is answered with `response`.
    pub fn open(limits: Limits, response: Bytes) -> Self {
        // The first user of the static table makes it.
        let _ = Decoder::default().decode(&[0x82], drop);
        work::take();
        let trailer = (http::HeaderName::from_static("a"), http::HeaderValue::from_static("b"));
        Self {
            session: Session::new(limits),
            limits,
            head: HeaderBlock::response(http::StatusCode::OK, &http::HeaderMap::new()),
            trailers: HeaderBlock::trailers(&http::HeaderMap::from_iter([trailer])),
            response,
            received: 0,
            responses: 0,
            read: 0,
            octets: None,
            worked: 0,
        }
    }

    /// Keeps the octets that the peer reads.
    #[must_use]
    pub fn recording(self) -> Self {
        Self { octets: Some(vec![]), ..self }
    }

    /// Returns the octets that the peer has read, if they are kept.
    pub fn octets(&self) -> &[u8] {
        self.octets.as_deref().unwrap_or_default()
    }

    /// Returns the session.
    pub const fn session(&mut self) -> &mut Session<usize> {
        &mut self.session
    }

    /// Returns the bytes that the session has received.
    pub const fn received(&self) -> usize {
        self.received
    }

    /// Returns the bytes that the session has sent, read or not.
    pub fn sent(&self) -> usize {
        self.read + self.session.output().len()
    }

    /// Lets the session receive the next frame of `input`, and answers what it completes.
    ///
    /// # Errors
    /// The contract is broken.
    pub fn receive(&mut self, input: &[u8]) -> Result<Received, Breach> {
        let received = match self.session.receive(input) {
            Err(ConnectionClosed(_)) => {
                // The frame that ends a connection was received, too.
                let length = FrameHeader::parse(input).map_or(0, |header| header.length);
                self.received += input.len().min(FRAME_HEADER_LEN + length);
                Received::Closed
            }
            Ok(None) if self.session.is_output_full() => Received::Blocked,
            Ok(None) => Received::Incomplete,
            Ok(Some((count, event))) => {
                self.received += count;
                let complete = match event {
                    None => None,
                    Some(Event::Request(incoming)) => {
                        let complete = incoming.end_stream();
                        let id = self.session.accept(incoming, 0);
                        complete.then_some(id)
                    }
                    Some(Event::Data { id, data, end_stream }) => {
                        if let Some(length) = self.session.stream_mut(id) {
                            *length += data.len();
                        }
                        end_stream.then_some(id)
                    }
                };
                if let Some(id) = complete {
                    self.respond(id);
                }
                Received::Frame(count)
            }
        };
        self.check().map(|_| received)
    }

    fn respond(&mut self, id: StreamId) {
        let length = self.session.stream_mut(id).map_or(0, |length| *length);
        let prefix = length.to_be_bytes();
        self.responses += prefix.len() + self.response.len();
        let body = (&prefix[..], self.response.len());
        let write = |out: &mut Vec<u8>| out.extend_from_slice(&self.response);
        self.session.respond(id, &self.head, body, write, &self.trailers);
    }

    /// Sends whole frames, and reads when that is needed and `reads` allows it.
    ///
    /// Returns whether all of them were received.
    ///
    /// # Errors
    /// The contract is broken.
    pub fn send(&mut self, mut frames: &[u8], reads: bool) -> Result<bool, Breach> {
        while !frames.is_empty() {
            match self.receive(frames)? {
                Received::Frame(count) => frames = &frames[count..],
                Received::Blocked if reads => self.read(usize::MAX)?,
                Received::Blocked | Received::Incomplete | Received::Closed => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Reads up to `max` bytes of the output and of what follows it.
    ///
    /// # Errors
    /// The contract is broken.
    pub fn read(&mut self, max: usize) -> Result<(), Breach> {
        let mut left = max;
        while left > 0 && !self.session.output().is_empty() {
            let count = self.session.output().len().min(left);
            if let Some(octets) = &mut self.octets {
                octets.extend_from_slice(&self.session.output()[..count]);
            }
            self.read += count;
            left -= count;
            self.session.consume_output(count, 0);
            self.check()?;
        }
        Ok(())
    }

    /// Checks every bound, and returns how much of each is used.
    ///
    /// # Errors
    /// The bound that is exceeded.
    pub fn check(&mut self) -> Result<Usage, Breach> {
        self.worked += work::take().total();
        let unwritten = self.session.output().len();
        let max_work = MAX_WORK_PER_BYTE * self.received + MAX_WORK_PER_RESPONSE_BYTE * self.responses;
        let max_output = MAX_OUTPUT_PER_BYTE * self.received + MAX_OUTPUT_PER_RESPONSE_BYTE * self.responses;
        let part = |bound: &'static str, value: usize, limit: usize| {
            let breach = Breach { bound, value, limit };
            if value <= limit { Ok(value as f64 / limit as f64) } else { Err(breach) }
        };
        Ok(Usage {
            work: part("work", self.worked, BEGINNING + max_work)?,
            output: part("output", self.read + unwritten, BEGINNING + max_output)?,
            unwritten: part("unwritten output", unwritten, self.limits.max_unwritten())?,
            memory: part("memory", self.session.memory_usage(), self.limits.max_memory::<usize>())?,
        })
    }
}
