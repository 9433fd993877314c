//! Good Checks in random forms; each must be answered with its own caller's identity.

use std::collections::VecDeque;

use super::call::{CALL, Good, fields};
use super::client::Wire;
use super::frames::{
    CONTINUATION, DATA, DEFAULT_FRAME, END_HEADERS, END_STREAM, HEADER_TABLE_SIZE, HEADERS,
    INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, PADDED, PING, PRIORITY, UNKNOWN, WITH_PRIORITY, frame, padded,
    reset, with_priority,
};
use super::hpack::{Field, Form, Style, TABLE};
use crate::rig::random::Random;
use crate::rig::support::number_from;
use crate::rig::talos::Talos;

/// Calls of one connection.
const CALLS: usize = 60;
const AT_ONCE: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn good_checks_are_answered_whatever_form_they_have() {
    let mut random = Random::seeded("good checks in every form");
    let talos = Talos::start().await;
    let mut goods = vec![];
    for caller in 0..5 {
        let good = Good::new(&talos, &format!("caller-{caller}")).await;
        goods.extend([good.grown_by(caller * 9_000), good.answered_by(caller * 7_000), good]);
    }
    let mut left = number_from("TALOS_TEST_WIRE", 500);
    while left > 0 {
        let calls = left.min(CALLS);
        let wire = Wire::open(talos.authz).await;
        let client = Client { random: random.split(), wire, goods: goods.clone(), open: vec![], out: vec![] };
        client.run(calls).await;
        left -= calls;
    }
}

/// A call on its way.
struct Open {
    stream: u32,
    good: Good,
    /// The parts that are still to be sent.
    parts: VecDeque<Part>,
}

enum Part {
    /// Payload, padding, and whether that is all.
    Data(Vec<u8>, Option<u8>, bool),
    Trailers,
}

struct Client {
    random: Random,
    wire: Wire,
    goods: Vec<Good>,
    open: Vec<Open>,
    /// To be written at some time.
    out: Vec<u8>,
}

impl Client {
    async fn run(mut self, calls: usize) {
        let (mut begun, mut stream) = (0, 1);
        while begun < calls || !self.open.is_empty() {
            match self.random.below(10) {
                0..4 if begun < calls && self.open.len() < AT_ONCE => {
                    self.begin(stream);
                    begun += 1;
                    // Numbers may be left out.
                    stream += if self.one_in(9) { 14 } else { 2 };
                }
                4 => self.noise().await,
                5 if self.one_in(8) => self.give_up(),
                _ => self.go_on().await,
            }
            if self.one_in(4) {
                self.flush().await;
            }
        }
    }

    fn one_in(&mut self, of: usize) -> bool {
        self.random.below(of) == 0
    }

    fn begin(&mut self, stream: u32) {
        let good = self.random.pick(&self.goods).clone();
        let mut head = fields(&CALL);
        let (pseudo, rest) = head.split_at_mut(4);
        shuffle(&mut self.random, pseudo);
        shuffle(&mut self.random, rest);
        let more = self.some_fields();
        head.extend(more);
        self.head(stream, &head, 0);
        let parts = self.parts(&good.message);
        self.open.push(Open { stream, good, parts });
    }

    fn some_fields(&mut self) -> Vec<Field> {
        let all = [
            ("user-agent", "grpc-go/1.70.0".to_owned()),
            ("grpc-timeout", "200m".to_owned()),
            ("grpc-accept-encoding", "gzip".to_owned()),
            ("x-request-id", self.random.text("0123456789abcdef", 32)),
            ("authorization", format!("Bearer {}", self.random.text("abc.-_", 200))),
            ("x-long", self.random.text("xyz~!\u{7f}é", 2_000).replace('\u{7f}', "")),
            ("cookie", format!("a={}", self.random.below(4))),
            ("x-empty", String::new()),
        ];
        let count = self.random.below(7);
        (0..count)
            .map(|_| {
                let (name, value) = self.random.pick(&all);
                (name.as_bytes().to_vec(), value.as_bytes().to_vec())
            })
            .collect()
    }

    /// Writes a head in some form.
    fn head(&mut self, stream: u32, head: &[Field], flags: u8) {
        let mut block = vec![];
        for _ in 0..self.random.below(3) * usize::from(self.random.below(4) == 0) {
            let size = *self.random.pick(&[0, 64, 150, 500, 1_000, TABLE - 1, TABLE]);
            self.wire.encoder.resize(size, &mut block);
        }
        for (name, value) in head {
            let style = self.style();
            self.wire.encoder.field(name, value, style, &mut block);
        }
        let cuts = if self.one_in(3) { self.random.between(1, 4) } else { 0 };
        let mut parts = VecDeque::from(self.cut(&block, cuts));
        let mut first = parts.pop_front().unwrap_or_default();
        let mut flags = flags;
        if self.one_in(4) {
            first = with_priority(self.random.below(50) as u32 & !1, &first);
            flags |= WITH_PRIORITY;
        }
        if let Some(padding) = self.padding() {
            first = padded(&first, padding);
            flags |= PADDED;
        }
        let end = |rest: usize| if rest == 0 { END_HEADERS } else { 0 };
        self.out.extend(frame(HEADERS, flags | end(parts.len()), stream, &first));
        while let Some(part) = parts.pop_front() {
            self.out.extend(frame(CONTINUATION, end(parts.len()), stream, &part));
        }
    }

    fn style(&mut self) -> Style {
        let forms = [Form::Indexed, Form::Indexed, Form::Kept, Form::NotIndexed, Form::NeverIndexed];
        Style {
            form: *self.random.pick(&forms),
            name_by_index: self.one_in(2),
            huffman_name: self.one_in(2),
            huffman_value: self.one_in(2),
        }
    }

    fn padding(&mut self) -> Option<u8> {
        self.one_in(4).then(|| self.random.next() as u8)
    }

    /// Cuts bytes at `cuts` places, some of them the same.
    fn cut(&mut self, bytes: &[u8], cuts: usize) -> Vec<Vec<u8>> {
        let mut places: Vec<usize> = (0..cuts).map(|_| self.random.below(bytes.len() + 1)).collect();
        places.extend([0, bytes.len()]);
        places.sort_unstable();
        places.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect()
    }

    /// A message in some frames.
    fn parts(&mut self, message: &[u8]) -> VecDeque<Part> {
        let cuts = self.random.below(6);
        let pieces = self.cut(message, cuts);
        let small = pieces.iter().flat_map(|piece| piece.chunks(DEFAULT_FRAME - 256).chain(nothing(piece)));
        let mut parts: VecDeque<Part> =
            small.map(|part| Part::Data(part.to_vec(), self.padding(), false)).collect();
        match self.random.below(3) {
            0 => parts.push_back(Part::Trailers),
            1 => parts.push_back(Part::Data(vec![], self.padding(), true)),
            _ => {
                if let Some(Part::Data(.., is_last)) = parts.back_mut() {
                    *is_last = true;
                }
            }
        }
        parts
    }

    /// Sends the next part of some call, or waits for its answer.
    async fn go_on(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let which = self.random.below(self.open.len());
        let stream = self.open[which].stream;
        match self.open[which].parts.pop_front() {
            None => {
                // Earlier frames may still be in the client's buffer.
                self.flush().await;
                let Open { good, .. } = self.open.swap_remove(which);
                self.wire.answer(stream).await.allows(&good);
            }
            Some(Part::Trailers) => {
                let trailers = self.some_fields();
                self.head(stream, &trailers, END_STREAM);
            }
            Some(Part::Data(payload, padding, is_last)) => {
                let mut flags = if is_last { END_STREAM } else { 0 };
                let payload = match padding {
                    Some(padding) => {
                        flags |= PADDED;
                        padded(&payload, padding)
                    }
                    None => payload,
                };
                let room = |wire: &Wire| wire.upward.left(stream) >= payload.len() as i64;
                if !room(&self.wire) {
                    self.flush().await;
                    self.wire.until("there is room", room).await;
                }
                self.wire.upward.spend(stream, payload.len());
                self.out.extend(frame(DATA, flags, stream, &payload));
            }
        }
    }

    /// Sends frames that belong to no call.
    async fn noise(&mut self) {
        let stream = self.random.below(100) as u32;
        match self.random.below(6) {
            0 => self.out.extend(frame(PING, 0, 0, &self.random.next().to_be_bytes())),
            1 => {
                let count = self.random.below(300);
                self.out.extend(frame(UNKNOWN, self.random.next() as u8, stream, &self.random.bytes(count)));
            }
            2 => self.out.extend(frame(PRIORITY, 0, stream | 1, &[0, 0, 0, 0, 7])),
            3 => {
                // Settings are sent at once: what is before them goes first.
                self.flush().await;
                let table = *self.random.pick(&[0, 100, TABLE as u32, 1 << 16]);
                let window = *self.random.pick(&[50, 1_000, 65_535, 1 << 20]);
                let size = *self.random.pick(&[16_384, 16_385, 1 << 20]);
                let all = [(HEADER_TABLE_SIZE, table), (INITIAL_WINDOW_SIZE, window), (MAX_FRAME_SIZE, size)];
                let some: Vec<_> = all.into_iter().filter(|_| self.one_in(2)).collect();
                self.wire.announce(&some).await;
            }
            4 => {
                self.flush().await;
                self.wire.grant(0, 1 + stream).await;
            }
            _ => {
                self.flush().await;
                self.wire.ping().await;
            }
        }
    }

    fn give_up(&mut self) {
        if !self.open.is_empty() {
            let which = self.random.below(self.open.len());
            let open = self.open.swap_remove(which);
            self.out.extend(reset(open.stream, self.random.below(14) as u32));
        }
    }

    /// Writes what there is, in pieces that have nothing to do with frames.
    async fn flush(&mut self) {
        let mut out = std::mem::take(&mut self.out);
        while !out.is_empty() {
            let most = *self.random.pick(&[1, 9, 100, 1_000, usize::MAX]);
            let rest = out.split_off(out.len().min(self.random.between(1, most.min(out.len()))));
            self.wire.send(&out).await;
            if self.one_in(3) {
                tokio::task::yield_now().await;
            }
            out = rest;
        }
    }
}

/// A frame without data has its place, too.
fn nothing(piece: &[u8]) -> Option<&[u8]> {
    piece.is_empty().then_some(piece)
}

fn shuffle<T>(random: &mut Random, of: &mut [T]) {
    for place in (1..of.len()).rev() {
        of.swap(place, random.below(place + 1));
    }
}
