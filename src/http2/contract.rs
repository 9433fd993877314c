//! The contract: whatever a client sends, work, memory and output are bounded. Nothing is timed:
//! what is done is counted.

use bytes::Bytes;
use proptest::prelude::{ProptestConfig, Strategy, any, prop, prop_oneof, proptest};

use super::frame::{self, flag, kind, setting};
use super::{Closed, Code, Event, Limits, Session, StreamId, work};

/// With a budget of work for nothing that is never used up: what is bounded is so without it.
const LIMITS: Limits =
    Limits { streams: 1_000, head: 64 * 1024, unrest: u32::MAX - 1, output: 64 * 1024, queued: 1 << 20 };
/// Most work for each byte that is received: bytes copied, fields and streams looked at.
const WORK_PER_BYTE: usize = 8;
/// Most work for each byte of an answer, however small the windows are through which it goes.
const WORK_PER_ANSWERED_BYTE: usize = 4;
/// Most output for each byte that is received, answers not counted.
const OUTPUT_PER_BYTE: usize = 8;
/// Most output for each byte of an answer: a frame may hold as little as one.
const OUTPUT_PER_ANSWERED_BYTE: usize = 10;
/// Most that goes beyond the bound on output: an answer, and the heads of some.
const OVERSHOOT: usize = 20 * 1024;
/// Most memory of a connection that these limits allow for, in bytes.
const MAX_MEMORY: usize = 1 << 21;
/// An answer.
const ANSWER: Bytes = Bytes::from_static(&[b'a'; 1_000]);
const TRAILERS: &[u8] = b"\x00\x01a\x01b";

/// A client, and what it has made its server do.
struct Client {
    session: Session<()>,
    /// Whether it takes what is written.
    reads: bool,
    received: usize,
    answered: usize,
    written: usize,
    worked: usize,
}

impl Client {
    fn new(limits: Limits, reads: bool) -> Self {
        // The static table is made once, by whoever looks into it first.
        super::Head::read(&[0x82]);
        let session = Session::new(limits);
        let mut client = Self { session, reads, received: 0, answered: 0, written: 0, worked: 0 };
        work::take();
        assert!(client.send(&[frame::PREFACE, &framed(kind::SETTINGS, 0, 0, &[])].concat()));
        client
    }

    /// Sends frames; false when they aren't taken any more.
    fn send(&mut self, mut frames: &[u8]) -> bool {
        while !frames.is_empty() {
            match self.session.receive(frames) {
                Err(Closed) => return false,
                Ok(None) if self.session.is_output_full() && self.reads => self.read(usize::MAX),
                Ok(None) => return false,
                Ok(Some((count, event))) => {
                    frames = &frames[count..];
                    self.received += count;
                    self.answer(event.as_ref().and_then(|event| match event {
                        Event::Opened(_) => None,
                        Event::Data { id, ended, .. } => ended.then_some(*id),
                    }));
                    if let Some(Event::Opened(opened)) = event {
                        let ended = opened.ended();
                        let id = self.session.accept(opened, ());
                        self.answer(ended.then_some(id));
                    }
                }
            }
            self.keeps_the_contract();
        }
        true
    }

    fn answer(&mut self, id: Option<StreamId>) {
        if let Some(id) = id {
            self.answered += ANSWER.len() + 5;
            self.session.answer(id, b"\x88", &[0; 5], ANSWER, TRAILERS);
        }
    }

    /// Takes up to so many bytes of what is written, and of what follows it.
    fn read(&mut self, most: usize) {
        let mut left = most;
        while left > 0 && !self.session.output().is_empty() {
            let count = self.session.output().len().min(left);
            self.written += count;
            left -= count;
            self.session.wrote(count, 0);
            self.keeps_the_contract();
        }
    }

    fn keeps_the_contract(&mut self) {
        let output = self.session.output().len();
        assert!(output <= LIMITS.output + OVERSHOOT, "{output} bytes of output");
        let memory = self.session.memory();
        assert!(memory <= MAX_MEMORY, "{memory} bytes of memory");
        let written = self.written + output;
        let may_write = OUTPUT_PER_BYTE * self.received + OUTPUT_PER_ANSWERED_BYTE * self.answered;
        assert!(
            written <= 100 + may_write,
            "{written} bytes written for {} and {}",
            self.received,
            self.answered
        );
        let done = work::take();
        self.worked += done.total();
        let may_work = WORK_PER_BYTE * self.received + WORK_PER_ANSWERED_BYTE * self.answered;
        assert!(
            self.worked <= 100 + may_work,
            "work of {} for {} bytes received and {} of answers, at last {done:?}",
            self.worked,
            self.received,
            self.answered,
        );
    }

    /// The code of the GOAWAY that was written last.
    fn goaway(&self) -> Option<u32> {
        let (mut rest, mut code) = (self.session.output(), None);
        while let Some(head) = frame::FrameHead::read(rest) {
            let end = frame::HEAD + head.length;
            if head.kind == kind::GOAWAY {
                code = frame::number(&rest[frame::HEAD + 4..end]);
            }
            rest = &rest[end..];
        }
        code
    }
}

fn framed(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    frame::write(kind, flags, stream, payload, &mut out);
    out
}

const WHOLE: u8 = flag::END_HEADERS;
const ENDS: u8 = flag::END_STREAM;
/// POST / by http, in as few bytes as can be.
const POST: &[u8] = &[0x83, 0x86, 0x84];

/// A call that waits for its message.
fn open(stream: u32) -> Vec<u8> {
    framed(kind::HEADERS, WHOLE, stream, POST)
}

/// A call that is complete.
fn call(stream: u32) -> Vec<u8> {
    framed(kind::HEADERS, WHOLE | ENDS, stream, POST)
}

fn reset(stream: u32) -> Vec<u8> {
    framed(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

fn window(stream: u32, more: u32) -> Vec<u8> {
    framed(kind::WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

fn windows(values: impl Iterator<Item = u32>) -> Vec<u8> {
    let payload = values
        .take(2_730)
        .flat_map(|value| [&setting::INITIAL_WINDOW_SIZE.to_be_bytes()[..], &value.to_be_bytes()].concat());
    framed(kind::SETTINGS, 0, 0, &payload.collect::<Vec<_>>())
}

/// A head in as many frames as it needs, before whose own fields these come.
fn head_in_frames(stream: u32, first: &[u8], last: &[u8]) -> Vec<u8> {
    let block = [POST, first, last].concat();
    let mut parts = block.chunks(frame::MAX_PAYLOAD).peekable();
    let mut out = vec![];
    let mut kind = kind::HEADERS;
    while let Some(part) = parts.next() {
        let end = if parts.peek().is_none() { WHOLE } else { 0 };
        out.extend(framed(kind, end, stream, part));
        kind = kind::CONTINUATION;
    }
    out
}

/// `length` in a literal's way, after its first byte.
fn long_text(length: usize) -> Vec<u8> {
    let rest = length - 127;
    [&[0x7f, (rest & 0x7f) as u8 | 0x80, (rest >> 7) as u8][..], &vec![b'n'; length]].concat()
}

/// What a class of floods sends as its frames of this number.
type Class = (&'static str, fn(u32) -> Vec<u8>);

/// Every class that a server of HTTP/2 is known to have fallen to, and every one of our own.
const CLASSES: &[Class] = &[
    ("ping flood (2019)", |_| framed(kind::PING, 0, 0, &[7; 8])),
    ("settings flood (2019)", |_| framed(kind::SETTINGS, 0, 0, &[])),
    ("settings of many windows while calls wait", |n| match n {
        0 => windows([0].into_iter()),
        1..1_000 => call(n * 2 + 1),
        _ => windows((n..).map(|value| value & 1)),
    }),
    ("settings of windows that rise while calls wait", |n| match n {
        0 => windows([0].into_iter()),
        1..1_000 => call(n * 2 + 1),
        _ => windows(1 + (n - 1_000) % 1_000..2 + (n - 1_000) % 1_000),
    }),
    ("all windows at once while calls wait", |n| match n {
        0 => windows([0].into_iter()),
        1..600 => call(n * 2 + 1),
        _ => [windows([1 << 20].into_iter()), window(0, 1 << 20)].concat(),
    }),
    ("windows that open and close while the connection's is shut", |n| match n {
        0..1_000 => call(n * 2 + 1),
        _ => [windows([1 << 20].into_iter()), windows([0].into_iter())].concat(),
    }),
    ("reset flood (2019), rapid reset (2023)", |n| [open(n * 2 + 1), reset(n * 2 + 1)].concat()),
    ("rapid reset of complete calls (2023)", |n| [call(n * 2 + 1), reset(n * 2 + 1)].concat()),
    ("late frames of calls that were reset", |n| match n {
        0..2_000 => [open(n * 2 + 1), window(n * 2 + 1, 0)].concat(),
        _ => framed(kind::DATA, 0, 1_000 * 2 + n % 2_000 - n % 2 + 1, b""),
    }),
    ("empty frames (2019)", |n| match n {
        0 => open(1),
        _ => framed(kind::DATA, 0, 1, &[]),
    }),
    ("padding alone", |n| match n {
        0 => open(1),
        _ => framed(kind::DATA, 0x8, 1, &[255; 256]),
    }),
    ("data of a byte", |n| match n {
        0 => open(1),
        _ => framed(kind::DATA, 0, 1, b"d"),
    }),
    ("priority flood", |n| framed(kind::PRIORITY, 0, n * 2 + 1, &[0, 0, 0, 0, 1])),
    ("resource loop (2019)", |n| match n {
        0..500 => open(n * 2 + 1),
        _ => [
            framed(kind::PRIORITY, 0, n % 500 * 2 + 1, &((n + 7) % 500 * 2 + 1).to_be_bytes()),
            framed(kind::PRIORITY, 0, n % 500 * 2 + 1, &[0x80, 0, 0, 1, 7]),
        ]
        .concat(),
    }),
    ("0-length headers (2019)", |n| head_in_frames(n * 2 + 1, &[0, 0, 0].repeat(5_000), &[])),
    ("data dribble (2019)", |n| match n {
        0 => windows([0].into_iter()),
        1..900 => call(n * 2 + 1),
        _ => window(n % 899 * 2 + 3, 1),
    }),
    ("internal data buffering (2019)", |n| match n {
        0 => windows([1 << 30].into_iter()),
        1 => window(0, 1 << 30),
        _ => call(n * 2 + 1),
    }),
    ("CONTINUATION flood (2024)", |n| {
        let begin = framed(kind::HEADERS, 0, n * 2 + 1, POST);
        let more = framed(kind::CONTINUATION, 0, n * 2 + 1, &[0x82]).repeat(60);
        [begin, more, framed(kind::CONTINUATION, WHOLE, n * 2 + 1, &[])].concat()
    }),
    ("a long value in the table, referred to by a byte", |n| {
        let kept = [&[0x40, 1, b'x'][..], &long_text(4_000)].concat();
        head_in_frames(n * 2 + 1, &kept, &[0xbe].repeat(60_000))
    }),
    ("a long name in the table, referred to by two bytes", |n| {
        let kept = [&[0x40][..], &long_text(4_000), &[0]].concat();
        // Its index is one beyond what four bits hold.
        head_in_frames(n * 2 + 1, &kept, &[0x0f, 0x2f, 0x00].repeat(19_000))
    }),
    ("a long name in the table, referred to and kept", |n| {
        let kept = [&[0x40][..], &long_text(3_900), &[0]].concat();
        head_in_frames(n * 2 + 1, &kept, &[0x7e, 0x00].repeat(29_000))
    }),
    ("a table that is emptied and filled", |n| {
        let fill = [0x40, 1, b'x', 1, b'y'].repeat(100);
        [head_in_frames(n * 2 + 1, &[], &fill), {
            let resized = [&[0x20, 0x3f, 0xe1, 0x1f].repeat(500)[..], POST].concat();
            framed(kind::HEADERS, WHOLE, n * 2 + 3, &resized)
        }]
        .concat()
        .repeat(usize::from(n % 2 == 0))
    }),
    ("more calls than may be open", |n| open(n * 2 + 1)),
    ("frames that mean nothing", |_| framed(0xbe, 0, 0, &[0; 20])),
    ("windows that grow by one", |_| window(0, 1)),
    ("goodbyes", |_| framed(kind::GOAWAY, 0, 0, &[0; 8])),
];

#[test]
fn no_known_flood_costs_more_than_what_it_sends() {
    for (name, next) in CLASSES {
        for reads in [true, false] {
            println!("{name}, reads {reads}");
            let mut client = Client::new(LIMITS, reads);
            for n in 0..20_000 {
                if !client.send(&next(n)) || client.received > 4 << 20 {
                    break;
                }
            }
            client.read(usize::MAX);
        }
    }
}

/// Ways to make us reset a call (MadeYouReset, 2025), or to answer one for nothing.
const MADE_TO_RESET: &[Class] = &[
    ("a window that grows by nothing", |n| [open(n * 2 + 1), window(n * 2 + 1, 0)].concat()),
    ("a window that overflows", |n| [open(n * 2 + 1), window(n * 2 + 1, 0x7fff_ffff)].concat()),
    ("a priority of a wrong size", |n| [open(n * 2 + 1), framed(kind::PRIORITY, 0, n * 2 + 1, &[])].concat()),
    ("data of a call that its client gave up", |n| {
        [open(n * 2 + 1), reset(n * 2 + 1), framed(kind::DATA, 0, n * 2 + 1, b"d")].concat()
    }),
    ("a head of a call that its client gave up", |n| {
        [open(n * 2 + 1), reset(n * 2 + 1), open(n * 2 + 1)].concat()
    }),
    ("a second head that isn't the end", |n| [open(n * 2 + 1), open(n * 2 + 1)].concat()),
    ("more data than was announced", |n| {
        let head = [POST, &[0x0f, 0x0d, 1, b'1']].concat();
        [framed(kind::HEADERS, WHOLE, n * 2 + 1, &head), framed(kind::DATA, 0, n * 2 + 1, b"dd")].concat()
    }),
    ("less data than was announced", |n| {
        let head = [POST, &[0x0f, 0x0d, 1, b'1']].concat();
        framed(kind::HEADERS, WHOLE | ENDS, n * 2 + 1, &head)
    }),
    ("a malformed head", |n| framed(kind::HEADERS, WHOLE, n * 2 + 1, &[POST, &[0, 0, 0]].concat())),
    ("malformed trailers", |n| {
        [open(n * 2 + 1), framed(kind::HEADERS, WHOLE | ENDS, n * 2 + 1, POST)].concat()
    }),
    ("a head that is too large", |n| {
        head_in_frames(n * 2 + 1, &[0x40, 1, b'x', 1, b'y'], &[0xbe].repeat(2_000))
    }),
    ("calls given up", |n| [open(n * 2 + 1), reset(n * 2 + 1)].concat()),
];

#[test]
fn whoever_makes_us_reset_is_sent_away() {
    const BUDGET: u32 = 500;
    for (name, next) in MADE_TO_RESET {
        let mut client = Client::new(Limits { unrest: BUDGET, ..LIMITS }, true);
        let ended = (0..2 * BUDGET).find(|n| !client.send(&next(*n)));
        println!("{name}: ended after {ended:?}");
        assert!(ended.is_some_and(|n| n <= BUDGET), "{name}: {ended:?}");
        assert_eq!(client.goaway(), Some(Code::EnhanceYourCalm as u32), "{name}");
    }
    // More calls than may be open are refused, which is work as well.
    let mut client = Client::new(Limits { unrest: BUDGET, streams: 1, ..LIMITS }, true);
    let ended = (0..2 * BUDGET).find(|n| !client.send(&open(n * 2 + 1)));
    assert!(ended.is_some_and(|n| n <= BUDGET + 1), "{ended:?}");
    // So is what is answered before its client has said all, which makes up for nothing.
    let mut client = Client::new(Limits { unrest: BUDGET, ..LIMITS }, true);
    let ended = (0..2 * BUDGET).find(|n| {
        let taken = client.send(&open(n * 2 + 1));
        client.session.answer_alone(n * 2 + 1, b"\x88");
        !taken
    });
    assert!(ended.is_some_and(|n| n <= BUDGET + 1), "{ended:?}");
    // Calls that are answered make up for some.
    let mut client = Client::new(Limits { unrest: BUDGET, ..LIMITS }, true);
    assert!((0..4 * BUDGET).all(|n| {
        client.send(&[call(n * 8 + 1), open(n * 8 + 3), reset(n * 8 + 3)].concat())
            && client.send(&[window(0, 2_000), framed(kind::PING, 0, 0, &[0; 8])].concat())
    }));
}

#[test]
fn answers_that_find_no_room_are_reset() {
    let mut client = Client::new(Limits { unrest: 100, queued: 50_000, ..LIMITS }, true);
    assert!(client.send(&windows([0].into_iter())));
    let ended = (0..1_000).find(|n| !client.send(&call(n * 2 + 1)));
    assert!(ended.is_some_and(|n| (100..200).contains(&n)), "{ended:?}");
    assert!(client.session.memory() < 50_000 + 300_000);
}

#[test]
fn many_windows_at_once_let_through_what_the_last_does() {
    let mut client = Client::new(LIMITS, true);
    assert!(client.send(&windows([0].into_iter())));
    for n in 0..60 {
        assert!(client.send(&call(n * 2 + 1)));
    }
    client.read(usize::MAX);
    let before = client.written;
    assert!(client.send(&windows(1..=50)));
    client.read(usize::MAX);
    // One frame a call, and the acknowledgement.
    assert_eq!(client.written - before, 60 * (9 + 50) + 9);
    // What is beyond all windows is refused, though it isn't the last.
    assert!(!client.send(&windows([1 << 31, 1].into_iter())));
    assert_eq!(client.goaway(), Some(Code::FlowControl as u32));
}

/// Something that a client may send, with numbers that are made to fit.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let stream = || (0_u32..40).prop_map(|n| n * 2 + 1);
    let small = || prop::collection::vec(any::<u8>(), 0..30);
    prop_oneof![
        6 => stream().prop_map(open),
        6 => stream().prop_map(call),
        3 => (stream(), 0_usize..2_000).prop_map(|(id, n)| framed(kind::DATA, 0, id, &vec![0; n])),
        3 => (stream(), small()).prop_map(|(id, data)| framed(kind::DATA, ENDS, id, &data)),
        3 => stream().prop_map(reset),
        3 => (stream(), 1_u32..2_000).prop_map(|(id, more)| window(id, more)),
        2 => (1_u32..5_000).prop_map(|more| window(0, more)),
        3 => prop::collection::vec(0_u32..1_200, 1..20).prop_map(|values| windows(values.into_iter())),
        1 => prop::collection::vec((0_u16..7, 0_u32..70_000), 0..20).prop_map(|settings| {
            let payload = settings.into_iter().flat_map(|(name, value)| {
                [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()
            });
            framed(kind::SETTINGS, 0, 0, &payload.collect::<Vec<_>>())
        }),
        1 => stream().prop_map(|id| framed(kind::PRIORITY, 0, id, &[0; 5])),
        1 => any::<u8>().prop_map(|byte| framed(kind::PING, 0, 0, &[byte; 8])),
        2 => (stream(), prop::collection::vec(any::<u8>(), 0..200))
            .prop_map(|(id, block)| framed(kind::HEADERS, WHOLE, id, &[POST, &block].concat())),
        2 => (stream(), 128_usize..4_000, 0_usize..3_000).prop_map(|(id, length, times)| {
            let kept = [&[0x40][..], &long_text(length), &[0]].concat();
            head_in_frames(id, &kept, &[0xbe].repeat(times))
        }),
        1 => (0_u8..11, any::<u8>(), 0_u32..90, small())
            .prop_map(|(kind, flags, stream, payload)| framed(kind, flags, stream, &payload)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Numbers of streams rise, as a connection that ended early would show little.
    #[test]
    fn nothing_costs_more_than_what_is_sent(
        frames in prop::collection::vec((frames(), 0_usize..30_000), 0..200), reads in any::<bool>(),
    ) {
        let mut client = Client::new(LIMITS, reads);
        for (frames, taken) in &frames {
            if !client.send(frames) {
                break;
            }
            client.read(*taken);
        }
    }
}
