//! Inputs of a client of the authz plane: all that it may send frame by frame: each kind of frame,
//! each trick with a header.

use prost::Message;
use serde_json::json;

use super::client::{Input, Plane, Style};
use super::waiting_requests;
use crate::rig::check::Check as Request;
use crate::rig::grpc::Grpc;
use crate::rig::random::Random;
use crate::rig::support::until;
use crate::rig::talos::Talos;
use crate::rig::tls::Client;
use crate::wire::call::{
    CALL, HEALTH, NOWHERE, REFLECTION, WATCH, block, call_of, call_with, framed, reflect,
};
use crate::wire::frames::{
    ACK, CONTINUATION, DATA, END_STREAM, GOAWAY, HEADER_TABLE_SIZE, HEADERS, INITIAL_WINDOW_SIZE, PADDED,
    PING, PREFACE, PRIORITY, PUSH_PROMISE, SETTINGS, UNKNOWN, WHOLE, data, frame, headers, last_data, padded,
    ping, reset, settings, window_update,
};

/// A Check of a good key, as an honest client sends it.
#[derive(Clone)]
pub struct Check {
    pub ask: Request,
    head: Vec<u8>,
    message: Vec<u8>,
    /// The client that reaches the plane if that has TLS.
    pub tls: Option<Client>,
}

impl Check {
    pub async fn new(talos: &Talos) -> Check {
        let key = talos.issue(json!({ "actor_id": "honest" })).await;
        Self::from_secret(&key.secret)
    }

    pub fn from_secret(secret: &str) -> Check {
        let ask = Request::bearer(secret);
        let message = framed(&ask.build().encode_to_vec());
        Check { ask, head: block(&CALL), message, tls: None }
    }

    /// One whose key memory knows.
    pub async fn of(talos: &Talos, plane: &Plane) -> Check {
        let check = Check { tls: plane.tls.clone(), ..Self::new(talos).await };
        check.is_answered(talos).await;
        check
    }

    async fn connect(&self, talos: &Talos) -> Result<Grpc, String> {
        match &self.tls {
            Some(client) => client.grpc(talos.authz).await,
            None => Grpc::connect(talos.authz).await,
        }
    }

    /// Waits until it is answered on a new connection.
    pub async fn is_answered(&self, talos: &Talos) {
        until("a Check is answered", async || {
            let grpc = self.connect(talos).await.ok()?;
            grpc.check(&self.ask.build()).await.passes().then_some(())
        })
        .await;
    }

    pub fn on(&self, stream: u32) -> Vec<u8> {
        [headers(stream, &self.head), last_data(stream, &self.message)].concat()
    }

    /// All but its last byte.
    fn begun(&self, stream: u32) -> Vec<u8> {
        let most = &self.message[..self.message.len() - 1];
        [headers(stream, &self.head), data(stream, most)].concat()
    }

    /// Returns the Check with a response that is longer by about `bytes`: each header of a reserved
    /// name is removed by its name.
    pub fn answered_by_more(&self, bytes: usize) -> Check {
        let names = (0..bytes / 100).map(|n| format!("x-talos-{}-{n:05}", "a".repeat(84)));
        let ask = names.fold(self.ask.clone(), |ask, name| ask.header(&name, "1"));
        Check { message: framed(&ask.build().encode_to_vec()), ask, ..self.clone() }
    }

    /// The header block.
    pub fn block(&self) -> Vec<u8> {
        self.head.clone()
    }

    /// Returns the head of a Check, and the beginning of a message of `bytes`.
    pub fn begun_with(&self, bytes: u32) -> Vec<u8> {
        let prefix = [&[0][..], &bytes.to_be_bytes()].concat();
        [headers(1, &self.head), data(1, &prefix)].concat()
    }

    /// Checks one after the other, their answers taken.
    pub fn honest(&self) -> Input {
        let check = self.clone();
        Input::new("honest Checks", hello(&[]), Style::Reads, move |n| check.on(stream(n)))
    }

    /// Checks that lack their last byte, no more than may wait.
    pub fn held(&self) -> Input {
        let check = self.clone();
        Input::new("Checks without their last byte", hello(&[]), Style::Reads, move |n| match n {
            0..400 => check.begun(stream(n)),
            _ => ping(u64::from(n).to_be_bytes()),
        })
    }
}

/// The stream of a call by its number.
pub fn stream(number: u32) -> u32 {
    number * 2 + 1
}

/// First bytes of a connection: preface and settings.
pub fn hello(values: &[(u16, u32)]) -> Vec<u8> {
    [PREFACE, &settings(values)].concat()
}

/// An integer of HPACK with a prefix of 7 bits (RFC 7541, 5.1).
fn length(bytes: usize) -> Vec<u8> {
    if bytes < 127 {
        return vec![bytes as u8];
    }
    let mut out = vec![127];
    let mut rest = bytes - 127;
    while rest >= 128 {
        out.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    out.push(rest as u8);
    out
}

/// A field whose name and value stand there, after the bits of its kind.
pub fn literal(kind: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[kind][..], &length(name.len()), name, &length(value.len()), value].concat()
}

/// Kinds of literal fields: kept in the table, or not.
pub const KEPT: u8 = 0x40;
pub const NOT_KEPT: u8 = 0x00;

/// The newest field of the table, referred to whole, by its name alone, and by its name to be kept
/// once more. The last two have a value of no bytes.
pub const NEWEST: [u8; 1] = [0x80 | 62];
pub const NAMED: [u8; 3] = [0x0f, 62 - 15, 0];
pub const NAMED_AND_KEPT: [u8; 2] = [0x40 | 62, 0];

/// A head in frames of 16 KiB.
pub fn in_frames(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    let mut parts = block.chunks(16_384).peekable();
    let (mut out, mut kind, mut flags) = (vec![], HEADERS, flags);
    while let Some(part) = parts.next() {
        let end = if parts.peek().is_none() { WHOLE } else { 0 };
        out.extend(frame(kind, flags | end, stream, part));
        (kind, flags) = (CONTINUATION, 0);
    }
    out
}

/// An input on connections that begin as every one does.
fn input(name: &str, style: Style, part: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> Input {
    Input::new(name, hello(&[]), style, part)
}

/// Everything that goes by frames.
pub fn inputs(check: &Check, random: &mut Random) -> Vec<Input> {
    let mut all = each_kind(check, random);
    all.extend(calls(check));
    all.extend(heads(check));
    all.extend(untaken(check));
    all
}

/// Inputs of each kind of frame, as often as it may be sent, and more often.
fn each_kind(check: &Check, random: &mut Random) -> Vec<Input> {
    let begin = |part: fn(u32) -> Vec<u8>| {
        let head = check.head.clone();
        move |n: u32| if n == 0 { headers(1, &head) } else { part(n) }
    };
    let noise: Vec<Vec<u8>> = (0..256)
        .map(|_| {
            let (kind, flags) = (random.below(12) as u8, random.next() as u8);
            let (stream, size) = (random.below(9) as u32, random.below(64));
            frame(kind, flags, stream, &random.bytes(size))
        })
        .collect();
    vec![
        input("PING", Style::Reads, |n| ping(u64::from(n).to_be_bytes())),
        input("PING, answers not taken", Style::Stalls, |n| ping(u64::from(n).to_be_bytes())),
        input("acknowledged PING", Style::Reads, |_| frame(PING, ACK, 0, &[0; 8])),
        input("SETTINGS, empty", Style::Reads, |_| settings(&[])),
        input("SETTINGS of a window", Style::Reads, |n| settings(&[(INITIAL_WINDOW_SIZE, n)])),
        input("SETTINGS of a table", Style::Reads, |n| settings(&[(HEADER_TABLE_SIZE, n % 4_097)])),
        input("SETTINGS of 2,700 entries", Style::Reads, |n| settings(&[(INITIAL_WINDOW_SIZE, n); 2_700])),
        input("SETTINGS, answers not taken", Style::Stalls, |_| settings(&[])),
        input("acknowledged SETTINGS", Style::Reads, |_| frame(SETTINGS, ACK, 0, &[])),
        input("WINDOW_UPDATE of a connection", Style::Reads, |_| window_update(0, 1)),
        input("WINDOW_UPDATE of a stream", Style::Reads, begin(|_| window_update(1, 1))),
        input("WINDOW_UPDATE of streams that are gone", Style::Reads, begin(|_| window_update(3, 1))),
        input("PRIORITY", Style::Reads, |n| frame(PRIORITY, 0, stream(n), &[0, 0, 0, 0, 1])),
        input("PRIORITY of one stream", Style::Reads, |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1])),
        input("RST_STREAM of streams that are gone", Style::Reads, begin(|_| reset(1, 8))),
        input("GOAWAY", Style::Reads, |_| frame(GOAWAY, 0, 0, &[0; 8])),
        input("GOAWAY with 16 KB of words", Style::Reads, |_| frame(GOAWAY, 0, 0, &[0; 16_000])),
        input("PUSH_PROMISE", Style::Reads, |_| frame(PUSH_PROMISE, WHOLE, 1, &[0, 0, 0, 2])),
        input("frames of no known kind", Style::Reads, |_| frame(UNKNOWN, 0, 0, &[])),
        input("long frames of no known kind", Style::Reads, |_| frame(UNKNOWN, 0, 0, &[0; 16_000])),
        input("DATA, empty", Style::Reads, begin(|_| frame(DATA, 0, 1, &[]))),
        input("DATA of padding alone", Style::Reads, begin(|_| frame(DATA, PADDED, 1, &padded(&[], 255)))),
        input("DATA of a byte", Style::Reads, begin(|n| data(1, &[if n == 2 { 0x40 } else { 0 }]))),
        input("DATA of streams that are gone", Style::Reads, |_| data(1, &[0; 100])),
        input("CONTINUATION without end", Style::Reads, |n| match n {
            0 => frame(HEADERS, 0, 1, &call_with("te", "trailers")),
            _ => frame(CONTINUATION, 0, 1, &[]),
        }),
        input("CONTINUATION of a byte", Style::Reads, |n| match n {
            0 => frame(HEADERS, 0, 1, &[]),
            _ => frame(CONTINUATION, 0, 1, &[0x82]),
        }),
        input("random frames", Style::Reads, move |n| noise[n as usize % noise.len()].clone()),
    ]
}

/// Calls that come to nothing.
fn calls(check: &Check) -> Vec<Input> {
    let call = |name: &str, part: fn(&Check, u32) -> Vec<u8>| {
        let check = check.clone();
        input(name, Style::Reads, move |n| part(&check, stream(n)))
    };
    vec![
        call("calls that are reset at once", |check, n| [check.on(n), reset(n, 8)].concat()),
        call("heads that are reset at once", |check, n| [headers(n, &check.head), reset(n, 8)].concat()),
        call("calls that stay open", |check, n| headers(n, &check.head)),
        call("made to reset: a window that overflows", |check, n| {
            [headers(n, &check.head), window_update(n, (1 << 31) - 1)].concat()
        }),
        call("made to reset: a window that grows by nothing", |check, n| {
            [headers(n, &check.head), window_update(n, 0)].concat()
        }),
        call("made to reset: a priority of a wrong size", |check, n| {
            [headers(n, &check.head), frame(PRIORITY, 0, n, &[])].concat()
        }),
        call("malformed heads", |_, n| frame(HEADERS, WHOLE | END_STREAM, n, &call_with("te", "gzip"))),
        call("methods that aren't there", |_, n| frame(HEADERS, WHOLE | END_STREAM, n, &call_of(NOWHERE))),
        call("messages that are none", |check, n| [headers(n, &check.head), last_data(n, &[9; 30])].concat()),
        call("messages of no bytes", |check, n| {
            [headers(n, &check.head), last_data(n, &framed(&[]))].concat()
        }),
        call("messages that announce 4 MiB", |check, n| {
            [headers(n, &check.head), data(n, &[0, 0, 0x40, 0, 0, 0])].concat()
        }),
        call("messages of a byte in each frame", |check, n| {
            let parts = check.message.iter().map(|byte| data(n, &[*byte]));
            [headers(n, &check.head), parts.collect::<Vec<_>>().concat(), last_data(n, &[])].concat()
        }),
        call("health that announces 4 MiB", |_, n| {
            [headers(n, &call_of(HEALTH)), data(n, &[0, 0, 0x40, 0, 0, 0])].concat()
        }),
        call("health", |_, n| [headers(n, &call_of(HEALTH)), last_data(n, &framed(&[]))].concat()).honest(),
        call("watches", |_, n| [headers(n, &call_of(WATCH)), last_data(n, &framed(&[]))].concat()).honest(),
        call("reflection that announces 4 MiB", |_, n| {
            [headers(n, &call_of(REFLECTION)), data(n, &[0, 0, 0x40, 0, 0, 0])].concat()
        }),
        call("reflection", |_, n| {
            [headers(n, &call_of(REFLECTION)), last_data(n, &reflect(7, "*"))].concat()
        })
        .honest(),
    ]
}

/// Tricks with header blocks.
fn heads(check: &Check) -> Vec<Input> {
    let name = vec![b'n'; 4_000];
    let value = vec![b'v'; 4_000];
    let bomb = |title: &str, first: Vec<u8>, more: &[u8], times: usize| {
        let block = [check.head.clone(), first, more.repeat(times)].concat();
        input(title, Style::Reads, move |n| in_frames(stream(n), END_STREAM, &block))
    };
    let fields = |count: usize, size: usize| -> Vec<u8> {
        let field = |n: usize| literal(NOT_KEPT, format!("x-{n:06}").as_bytes(), &vec![b'a'; size]);
        (0..count).flat_map(field).collect()
    };
    vec![
        bomb("a long name, referred to whole", literal(KEPT, &name, b""), &NEWEST, 60_000),
        bomb("a long value, referred to whole", literal(KEPT, b"x-long", &value), &NEWEST, 60_000),
        bomb("a long name, referred to by name", literal(KEPT, &name, b""), &NAMED, 20_000),
        bomb("a long name, kept again and again", literal(KEPT, &name, b""), &NAMED_AND_KEPT, 30_000),
        bomb("a short name, kept again and again", literal(KEPT, b"x", b""), &NAMED_AND_KEPT, 30_000),
        bomb("fields of no bytes", vec![], &[0, 0, 0], 20_000),
        bomb("fields of the static table", vec![], &[0x80 | 58], 60_000),
        bomb("sizes of the table", vec![], &[0x20], 60_000),
        bomb("one field of 60 KB", literal(NOT_KEPT, b"x-long", &vec![b'a'; 60_000]), &[], 0),
        bomb("600 fields of 60 bytes", fields(600, 60), &[], 0),
        bomb("more than a head may have", fields(900, 100), &[], 0),
        input("a head without end", Style::Reads, |n| match n {
            0 => frame(HEADERS, 0, 1, &call_with("te", "trailers")),
            _ => frame(CONTINUATION, 0, 1, &literal(NOT_KEPT, b"x-long", &[b'a'; 15_000])),
        }),
        {
            let head = check.head.clone();
            input("a table that is filled anew by each head", Style::Reads, move |n| {
                let own = literal(KEPT, format!("x-{n:06}").as_bytes(), &[b'a'; 3_900]);
                frame(HEADERS, WHOLE | END_STREAM, stream(n), &[&head[..], &own].concat())
            })
        },
    ]
}

/// Inputs whose answers aren't taken, and windows that make the server look for data to send.
fn untaken(check: &Check) -> Vec<Input> {
    let checks = |name: &str, opening: Vec<u8>, style: Style, long: usize| {
        let check = check.answered_by_more(long);
        Input::new(name, opening, style, move |n| check.on(stream(n)))
    };
    let no_window = || hello(&[(INITIAL_WINDOW_SIZE, 0)]);
    let wide = || [hello(&[(INITIAL_WINDOW_SIZE, 1 << 30)]), window_update(0, 1 << 30)].concat();
    let waiting = |name: &str, more: fn(u32) -> Vec<u8>| {
        let check = check.clone();
        Input::new(name, no_window(), Style::Reads, move |n| match n {
            n if n < waiting_requests() => check.on(stream(n)),
            _ => more(n),
        })
    };
    vec![
        checks("answers not taken", hello(&[]), Style::Stalls, 0),
        checks("answers not taken, no window", no_window(), Style::Stalls, 0),
        checks("answers not taken, no window, nothing else unread", no_window(), Style::Reads, 0),
        checks("answers not taken, a window of a byte", hello(&[(INITIAL_WINDOW_SIZE, 1)]), Style::Reads, 0),
        checks("long answers not taken", hello(&[]), Style::Stalls, 9_000),
        checks("long answers not taken, no window", no_window(), Style::Stalls, 9_000),
        checks("internal data buffering", wide(), Style::Stalls, 9_000),
        waiting("data dribble: a byte of window each", |n| window_update(stream(n % waiting_requests()), 1)),
        waiting("a byte of window for all", |_| window_update(0, 1)),
        waiting("SETTINGS of 2,700 windows while answers wait", |n| {
            settings(&[(INITIAL_WINDOW_SIZE, n % 2); 2_700])
        }),
        waiting("SETTINGS of one window while answers wait", |n| settings(&[(INITIAL_WINDOW_SIZE, n % 2)])),
    ]
}
