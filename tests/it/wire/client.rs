//! A client that sends any frames, and checks that the server obeys every rule.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::call::Good;
use super::frames::{
    ACK, CONTINUATION, DATA, DEFAULT_FRAME, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADER_TABLE_SIZE,
    HEADERS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, PADDED, PING, PREFACE, PUSH_PROMISE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, WITH_PRIORITY, data, frame, headers, last_data, ping, settings, window_update,
};
use super::heard::Heard;
use super::hpack::{Decoder, Encoder, TABLE};
use super::windows::Windows;
use crate::rig::http::Base;
use crate::rig::support::{Must, within};

/// A GOAWAY of the server's.
#[derive(Clone, Debug)]
pub struct Goaway {
    pub last: u32,
    pub code: u32,
}

/// Longest time for a server that reads to do so.
const MOMENT: Duration = Duration::from_millis(500);

pub struct Wire {
    stream: TcpStream,
    /// Read, but not yet a whole frame.
    held: Vec<u8>,
    pub encoder: Encoder,
    decoder: Decoder,
    /// A header block that is incomplete: its stream, its first flags, and its octets so far.
    unfinished: Option<(u32, u8, Vec<u8>)>,
    /// The frames received on each stream.
    pub heard: HashMap<u32, Heard>,
    pub goaways: Vec<Goaway>,
    pub pongs: VecDeque<[u8; 8]>,
    /// The server's settings, once they came.
    pub theirs: Option<HashMap<u16, u32>>,
    acknowledged: HashMap<u16, u32>,
    /// Settings that the server hasn't acknowledged.
    unacknowledged: VecDeque<Vec<(u16, u32)>>,
    /// For what the server sends.
    pub downward: Windows,
    /// For what we send.
    pub upward: Windows,
    /// True when the client replenishes its windows.
    pub replenishes: bool,
    /// True when the client answers pings.
    pub answers_pings: bool,
    /// Pings of the server's that weren't answered.
    pub owed: Vec<[u8; 8]>,
    pings: u64,
    /// Bytes that the server sent.
    pub bytes_read: usize,
}

impl Wire {
    /// Connects and says nothing.
    pub async fn connect(base: Base) -> Wire {
        Self::over(TcpStream::connect(base.0).await.must("connecting"))
    }

    /// Connects, leaving the server little room for what isn't read.
    pub async fn narrow(base: Base) -> Wire {
        let socket = TcpSocket::new_v4().must("a socket");
        socket.set_recv_buffer_size(4_096).must("a small buffer");
        let mut wire = Self::over(socket.connect(base.0).await.must("connecting"));
        wire.send(PREFACE).await;
        wire.settings(&[]).await;
        wire
    }

    fn over(stream: TcpStream) -> Wire {
        stream.set_nodelay(true).must("sending at once");
        Wire {
            stream,
            held: vec![],
            encoder: Encoder::new(),
            decoder: Decoder::new(),
            unfinished: None,
            heard: HashMap::new(),
            goaways: vec![],
            pongs: VecDeque::new(),
            theirs: None,
            acknowledged: HashMap::new(),
            unacknowledged: VecDeque::new(),
            downward: Windows::new(),
            upward: Windows::new(),
            replenishes: true,
            answers_pings: true,
            owed: vec![],
            pings: 0,
            bytes_read: 0,
        }
    }

    /// Connects and says hello.
    pub async fn open(base: Base) -> Wire {
        Self::open_with(base, &[]).await
    }

    /// Opens a connection with these settings.
    pub async fn open_with(base: Base, values: &[(u16, u32)]) -> Wire {
        let mut wire = Self::connect(base).await;
        wire.send(PREFACE).await;
        wire.settings(values).await;
        wire
    }

    /// Sends bytes. That the connection has ended shows when something is read.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = within("sending", self.stream.write_all(bytes)).await;
    }

    /// Sends settings and waits until they are acknowledged.
    pub async fn settings(&mut self, values: &[(u16, u32)]) {
        self.announce(values).await;
        self.until("settings are acknowledged", |wire| {
            wire.unacknowledged.is_empty() && wire.theirs.is_some()
        })
        .await;
    }

    /// Sends settings.
    pub async fn announce(&mut self, values: &[(u16, u32)]) {
        self.unacknowledged.push_back(values.to_vec());
        self.apply();
        self.send(&settings(values)).await;
    }

    /// The most that the server may go by: of what it acknowledged and of what is on its way.
    fn setting(&self, name: u16, default: u32) -> u32 {
        let on_their_way = self.unacknowledged.iter().flatten().filter(|(known, _)| *known == name);
        let acknowledged = self.acknowledged.get(&name).copied().unwrap_or(default);
        on_their_way.map(|(_, value)| *value).fold(acknowledged, u32::max)
    }

    fn apply(&mut self) {
        self.downward.initial = self.setting(INITIAL_WINDOW_SIZE, 65_535).into();
        self.decoder.allow(self.setting(HEADER_TABLE_SIZE, TABLE as u32) as usize);
    }

    /// Lets the server send more on a stream, or (0) on all of them.
    pub async fn grant(&mut self, stream: u32, more: u32) {
        self.downward.grant(stream, more.into());
        self.send(&window_update(stream, more)).await;
    }

    /// Waits until the server has read all that was sent so far.
    pub async fn ping(&mut self) {
        self.pings += 1;
        let payload = self.pings.to_be_bytes();
        self.send(&ping(payload)).await;
        self.until("a ping is answered", |wire| wire.pongs.contains(&payload)).await;
        self.pongs.retain(|pong| *pong != payload);
    }

    /// Sends a good Check as the server's windows let it.
    pub async fn call(&mut self, stream: u32, good: &Good) {
        self.send(&headers(stream, &good.head())).await;
        self.upload(stream, &good.message, DEFAULT_FRAME, true).await;
    }

    /// Returns whether the server still reads, and answers a ping.
    pub async fn reads_on(&mut self) -> bool {
        self.pings += 1;
        let payload = self.pings.to_be_bytes();
        self.send(&ping(payload)).await;
        while !self.pongs.contains(&payload) {
            if !self.step().await {
                return false;
            }
        }
        self.pongs.clear();
        true
    }

    /// Reads up to `most` bytes of any frames.
    pub async fn read_some(&mut self, most: usize) {
        let mut bytes = vec![0; most];
        let _ = tokio::time::timeout(MOMENT, self.stream.read(&mut bytes)).await;
    }

    /// Answers the server's pings.
    pub async fn pong(&mut self) {
        for payload in std::mem::take(&mut self.owed) {
            self.send(&frame(PING, ACK, 0, &payload)).await;
        }
    }

    /// Waits until the server closes the connection, saying nothing more.
    pub async fn end_of_silence(&mut self) {
        let mut said = vec![];
        let _ = within("the connection is closed", self.stream.read_to_end(&mut said)).await;
    }

    /// Sends data on a stream as the server's windows let it, in frames of at most `most` bytes.
    pub async fn upload(&mut self, stream: u32, mut bytes: &[u8], most: usize, end: bool) {
        loop {
            let room = usize::try_from(self.upward.left(stream)).unwrap_or(0);
            let (part, rest) = bytes.split_at(bytes.len().min(room).min(most));
            if part.is_empty() && !rest.is_empty() {
                let over = |wire: &Wire| wire.heard.get(&stream).is_some_and(Heard::is_over);
                if over(self) {
                    return;
                }
                self.until("there is room", |wire| wire.upward.left(stream) > 0 || over(wire)).await;
                continue;
            }
            self.upward.spend(stream, part.len());
            bytes = rest;
            let is_last = end && rest.is_empty();
            self.send(&if is_last { last_data(stream, part) } else { data(stream, part) }).await;
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Reads until something is so; fails when the connection ends before.
    pub async fn until(&mut self, what: &str, is: impl Fn(&Wire) -> bool) {
        while !is(self) {
            assert!(self.step().await, "the connection has ended before {what}: {:?}", self.goaways);
        }
    }

    /// Waits for all of an answer.
    pub async fn answer(&mut self, stream: u32) -> Heard {
        self.until(&format!("stream {stream} is answered"), |wire| {
            wire.heard.get(&stream).is_some_and(Heard::is_over)
        })
        .await;
        self.heard.remove(&stream).must("what was said")
    }

    /// Returns the bytes of data received on a stream.
    pub fn received(&self, stream: u32) -> usize {
        self.heard.get(&stream).map_or(0, |heard| heard.data.len())
    }

    /// Waits until the server closes the connection.
    pub async fn end(&mut self) -> Option<Goaway> {
        while self.step().await {}
        self.goaways.last().cloned()
    }

    /// Reads a frame; false when the connection has ended.
    pub async fn step(&mut self) -> bool {
        let Some(frame) = self.read().await else {
            return false;
        };
        let is_first = self.theirs.is_none();
        assert!(!is_first || frame.kind == SETTINGS && !frame.has(ACK), "the first frame is {frame:?}");
        let most = self.setting(MAX_FRAME_SIZE, DEFAULT_FRAME as u32) as usize;
        assert!(frame.payload.len() <= most, "a frame of {} bytes", frame.payload.len());
        if let Some((stream, ..)) = self.unfinished {
            assert!((frame.kind, frame.stream) == (CONTINUATION, stream), "within a head: {frame:?}");
        }
        match frame.kind {
            DATA => self.take_data(&frame).await,
            HEADERS => {
                let mut block = unpadded(&frame);
                if frame.has(WITH_PRIORITY) {
                    block = &block[5..];
                }
                self.unfinished = Some((frame.stream, frame.flags, block.to_vec()));
                self.take_head(&frame);
            }
            CONTINUATION => {
                let (.., block) = self.unfinished.as_mut().must("a head that lacks its end");
                block.extend_from_slice(&frame.payload);
                self.take_head(&frame);
            }
            RST_STREAM => self.hear(frame.stream).reset(frame.number(0)),
            SETTINGS => self.take_settings(&frame).await,
            PING => {
                let payload: [u8; 8] = frame.payload[..].try_into().must("eight bytes");
                if frame.has(ACK) {
                    self.pongs.push_back(payload);
                } else {
                    self.owed.push(payload);
                    if self.answers_pings {
                        self.pong().await;
                    }
                }
            }
            GOAWAY => {
                assert_eq!(frame.stream, 0);
                let goaway = Goaway { last: frame.number(0) & 0x7fff_ffff, code: frame.number(4) };
                let before = self.goaways.last().map_or(u32::MAX, |goaway| goaway.last);
                assert!(goaway.last <= before, "{goaway:?} after {:?}", self.goaways);
                self.goaways.push(goaway);
            }
            WINDOW_UPDATE => {
                let more = frame.number(0) & 0x7fff_ffff;
                assert!(more > 0, "a window of {} is updated by nothing", frame.stream);
                self.upward.grant(frame.stream, more.into());
            }
            PUSH_PROMISE => panic!("a push: {frame:?}"),
            // Other frames have no effect on the client.
            _ => {}
        }
        true
    }

    async fn take_data(&mut self, frame: &Frame) {
        let length = frame.payload.len();
        self.downward.spend(frame.stream, length);
        let left = self.downward.left(frame.stream);
        assert!(length == 0 || left >= 0, "{length} bytes on {}, {} too many", frame.stream, -left);
        let heard = self.hear(frame.stream);
        heard.data(unpadded(frame));
        let ended = frame.has(END_STREAM);
        if ended {
            heard.end();
        }
        if self.replenishes && length > 0 {
            let more = u32::try_from(length).must("a frame's length");
            self.grant(0, more).await;
            if !ended {
                self.grant(frame.stream, more).await;
            }
        }
    }

    /// Takes a head if this frame ends it.
    fn take_head(&mut self, frame: &Frame) {
        if !frame.has(END_HEADERS) {
            return;
        }
        let (stream, flags, block) = self.unfinished.take().must("a head");
        let fields = self.decoder.decode(&block).must("a head that can be read");
        let heard = self.hear(stream);
        heard.head(fields);
        if flags & END_STREAM != 0 {
            heard.end();
        }
    }

    async fn take_settings(&mut self, frame: &Frame) {
        assert_eq!(frame.stream, 0);
        if frame.has(ACK) {
            assert!(frame.payload.is_empty(), "{frame:?}");
            // SETTINGS that a case sends as raw bytes aren't in the queue of unacknowledged ones.
            self.acknowledged.extend(self.unacknowledged.pop_front().unwrap_or_default());
            return self.apply();
        }
        assert_eq!(frame.payload.len() % 6, 0);
        let values = frame.payload.chunks(6).map(|chunk| {
            let name = u16::from_be_bytes([chunk[0], chunk[1]]);
            (name, u32::from_be_bytes([chunk[2], chunk[3], chunk[4], chunk[5]]))
        });
        let theirs = self.theirs.get_or_insert_default();
        theirs.extend(values);
        if let Some(initial) = theirs.get(&INITIAL_WINDOW_SIZE) {
            self.upward.initial = (*initial).into();
        }
        self.send(&self::frame(SETTINGS, ACK, 0, &[])).await;
    }

    fn hear(&mut self, stream: u32) -> &mut Heard {
        assert!(stream % 2 == 1, "something is said on stream {stream}");
        self.heard.entry(stream).or_default()
    }

    /// Returns whether the server reads all of these bytes within a moment, while nothing is read.
    pub async fn takes(&mut self, bytes: &[u8]) -> bool {
        self.takes_within(MOMENT, bytes).await
    }

    /// Sends bytes; false if the server hasn't taken them within `time`.
    pub async fn takes_within(&mut self, time: Duration, bytes: &[u8]) -> bool {
        matches!(tokio::time::timeout(time, self.stream.write_all(bytes)).await, Ok(Ok(())))
    }

    /// Reads a frame; None when the connection has ended.
    async fn read(&mut self) -> Option<Frame> {
        loop {
            if let [a, b, c, kind, flags, s1, s2, s3, s4, rest @ ..] = &self.held[..] {
                let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
                if rest.len() >= length {
                    let stream = u32::from_be_bytes([s1 & 0x7f, *s2, *s3, *s4]);
                    let payload = rest[..length].to_vec();
                    let frame = Frame { kind: *kind, flags: *flags, stream, payload };
                    self.held.drain(..9 + length);
                    return Some(frame);
                }
            }
            let read = within("the next frame", self.stream.read_buf(&mut self.held)).await;
            let Ok(count @ 1..) = read else {
                return None;
            };
            self.bytes_read += count;
        }
    }
}

/// The payload of a frame without its padding.
fn unpadded(frame: &Frame) -> &[u8] {
    match frame.payload.split_first() {
        Some((padding, rest)) if frame.has(PADDED) => &rest[..rest.len() - usize::from(*padding)],
        _ => &frame.payload,
    }
}
