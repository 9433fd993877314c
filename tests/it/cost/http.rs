//! Inputs of a client of an HTTP plane: all that it may send, over HTTP/1.1 and over HTTP/2.

use super::client::{Input, Style};
use super::frames::{KEPT, NAMED, NAMED_AND_KEPT, NEWEST, NOT_KEPT, hello, in_frames, literal, stream};
use super::waiting_requests;
use crate::rig::talos::VERIFY;
use crate::wire::frames::{
    CONTINUATION, DATA, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, PADDED, PRIORITY, UNKNOWN, WHOLE, data,
    frame, headers, last_data, padded, ping, reset, settings, window_update,
};

/// An operation that an honest client uses.
#[derive(Clone)]
pub struct Target {
    path: String,
    /// Empty for a GET.
    body: Vec<u8>,
}

impl Target {
    pub fn get(path: &str) -> Target {
        Target { path: path.to_owned(), body: vec![] }
    }

    pub fn post(path: &str, body: &str) -> Target {
        Target { path: path.to_owned(), body: body.into() }
    }

    /// Returns a verification of a key that was never issued.
    pub fn verify() -> Target {
        Target::post(VERIFY, r#"{"credential":"a key that is none"}"#)
    }

    /// The beginning of a request over HTTP/1.1, its head still open.
    fn begun(&self) -> String {
        let method = if self.body.is_empty() { "GET" } else { "POST" };
        format!("{method} {} HTTP/1.1\r\nhost: localhost\r\n", self.path)
    }

    /// A request over HTTP/1.1 with more lines in its head.
    fn request(&self, lines: &str, body: &[u8]) -> Vec<u8> {
        let content = match body {
            [] => String::new(),
            body => format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()),
        };
        [format!("{}{lines}{content}\r\n", self.begun()).as_bytes(), body].concat()
    }

    /// The header block of a request over HTTP/2.
    fn block(&self) -> Vec<u8> {
        let method = if self.body.is_empty() { 0x82 } else { 0x83 };
        let path = [&[0x04][..], &literal(NOT_KEPT, b"", self.path.as_bytes())[2..]].concat();
        let authority = [&[0x01][..], &literal(NOT_KEPT, b"", b"localhost")[2..]].concat();
        let media = literal(NOT_KEPT, b"content-type", b"application/json");
        [&[method, 0x86][..], &path, &authority, &media].concat()
    }

    /// A request over HTTP/2.
    pub fn on(&self, stream: u32) -> Vec<u8> {
        match &self.body[..] {
            [] => frame(HEADERS, WHOLE | END_STREAM, stream, &self.block()),
            body => [headers(stream, &self.block()), last_data(stream, body)].concat(),
        }
    }

    /// Makes requests over HTTP/2 whose bodies have a content-length of `bytes` and lack the last
    /// byte.
    pub fn begun_on_http2(&self, bytes: usize) -> impl Fn(u32) -> Vec<u8> + Clone + Send + Sync + use<> {
        let block = self.block();
        move |stream| {
            let parts = (0..bytes / 15_000).map(|_| data(stream, &[b' '; 15_000]));
            [headers(stream, &block), parts.collect::<Vec<_>>().concat()].concat()
        }
    }

    /// Requests one after the other, their answers taken.
    pub fn http1(&self) -> Input {
        let request = self.request("", &self.body);
        Input::new("honest requests over HTTP/1.1", vec![], Style::Reads, move |_| request.clone())
    }

    pub fn http2(&self) -> Input {
        let target = self.clone();
        Input::new("honest requests over HTTP/2", hello(&[]), Style::Reads, move |n| target.on(stream(n)))
    }

    /// Requests that lack the end of their head.
    pub fn held(&self) -> Input {
        let begun = self.begun().into_bytes();
        Input::new("a head without its end", begun, Style::Reads, |n| {
            format!("x-{n:05}: {}\r\n", "a".repeat(1_000)).into_bytes()
        })
    }
}

/// Everything over HTTP/1.1.
pub fn http1_inputs(target: &Target) -> Vec<Input> {
    let again = |name: &str, style: Style, request: Vec<u8>| {
        Input::new(&format!("HTTP/1.1, {name}"), vec![], style, move |_| request.clone())
    };
    let fields = |count: usize| (0..count).map(|n| format!("x-{n}: a\r\n")).collect::<String>();
    let long = |size: usize| format!("x-long: {}\r\n", "a".repeat(size));
    let by_the_byte = |name: &str, request: Vec<u8>| {
        Input::new(&format!("HTTP/1.1, {name}"), vec![], Style::Dribbles, move |n| {
            vec![request[n as usize % request.len()]]
        })
    };
    let chunked = target.begun() + "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let endless = |name: &str, part: &'static str| {
        let opening = target.begun().into_bytes();
        Input::new(&format!("HTTP/1.1, {name}"), opening, Style::Reads, move |_| part.into())
    };
    let odd = Target { path: format!("{}?{}", target.path, "a=b&".repeat(2_000)), ..target.clone() };
    let mut all = vec![
        again("answers not taken", Style::Stalls, target.request("", &target.body)),
        again("90 fields", Style::Reads, target.request(&fields(90), &target.body)),
        again("more fields than a head may have", Style::Reads, target.request(&fields(2_000), &target.body)),
        again("a field of 60 KB", Style::Reads, target.request(&long(60_000), &target.body)),
        again(
            "a field of more than a head may have",
            Style::Reads,
            target.request(&long(70_000), &target.body),
        ),
        again("a query of 8 KB", Style::Reads, odd.request("", &target.body)),
        again("a body that is waited for", Style::Leaves, target.request("expect: 100-continue\r\n", b"{")),
        again("no HTTP", Style::Reconnects, b"\0\x01\x02\r\n\r\n".to_vec()),
        again("a head and a half, given up", Style::Leaves, target.request("", &[])),
        again("connections that say nothing", Style::Leaves, vec![]),
        endless("a head without end", "x-more: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n"),
        endless("empty lines", "\r\n"),
        by_the_byte("requests by the byte", target.request("", &target.body)),
        by_the_byte("long heads by the byte", target.request(&long(20_000), &target.body)),
        Input::new("HTTP/1.1, chunks of a byte", chunked.clone().into_bytes(), Style::Reads, |_| {
            b"1\r\n \r\n".to_vec()
        }),
        Input::new("HTTP/1.1, a chunk with long words", chunked.into_bytes(), Style::Reads, |_| {
            format!("1;{}\r\n \r\n", "a".repeat(1_000)).into_bytes()
        }),
    ];
    for (name, body) in bodies() {
        if !target.body.is_empty() {
            all.push(again(name, Style::Reads, target.request("", &body)));
        }
    }
    all
}

/// JSON that is much work to read, if anything is.
fn bodies() -> Vec<(&'static str, Vec<u8>)> {
    let many = |text: &str, times: usize| text.repeat(times).into_bytes();
    vec![
        ("a body of brackets", many("[", 30_000)),
        ("a body of objects", many("{\"a\":", 5_000)),
        ("a body of escapes", format!("{{\"credential\":\"{}\"}}", "\\u0041".repeat(5_000)).into_bytes()),
        ("a body of fields", format!("{{{}\"a\":1}}", "\"a\":1,".repeat(5_000)).into_bytes()),
        ("a body of digits", format!("{{\"credential\":{}}}", "9".repeat(30_000)).into_bytes()),
        ("a body of an exponent", b"{\"credential\":1e999999999}".to_vec()),
        ("a body of blanks", many(" ", 30_000)),
        (
            "a body of texts",
            format!("{{\"expected_audiences\":[{}\"\"]}}", "\"\",".repeat(10_000)).into_bytes(),
        ),
    ]
}

/// Everything over HTTP/2.
pub fn http2_inputs(target: &Target) -> Vec<Input> {
    let input = |name: &str, style: Style, part: fn(&Target, u32) -> Vec<u8>| {
        let target = target.clone();
        Input::new(&format!("HTTP/2, {name}"), hello(&[]), style, move |n| part(&target, n))
    };
    let untaken = |name: &str, window: u32, style: Style| {
        let target = target.clone();
        let opening = hello(&[(INITIAL_WINDOW_SIZE, window)]);
        Input::new(&format!("HTTP/2, {name}"), opening, style, move |n| target.on(stream(n)))
    };
    let bomb = |name: &str, first: Vec<u8>, more: &[u8], times: usize| {
        let block = [target.block(), first, more.repeat(times)].concat();
        Input::new(&format!("HTTP/2, {name}"), hello(&[]), Style::Reads, move |n| {
            in_frames(stream(n), END_STREAM, &block)
        })
    };
    let (name, value) = (vec![b'n'; 4_000], vec![b'v'; 4_000]);
    let waiting = |name: &str, more: fn(u32) -> Vec<u8>| {
        let target = target.clone();
        let opening = hello(&[(INITIAL_WINDOW_SIZE, 0)]);
        Input::new(&format!("HTTP/2, {name}"), opening, Style::Reads, move |n| match n {
            n if n < waiting_requests() => target.on(stream(n)),
            _ => more(n),
        })
    };
    vec![
        input("PING", Style::Reads, |_, n| ping(u64::from(n).to_be_bytes())),
        input("PING, answers not taken", Style::Stalls, |_, n| ping(u64::from(n).to_be_bytes())),
        input("SETTINGS", Style::Reads, |_, n| settings(&[(INITIAL_WINDOW_SIZE, n)])),
        input("WINDOW_UPDATE", Style::Reads, |_, _| window_update(0, 1)),
        input("PRIORITY", Style::Reads, |_, n| frame(PRIORITY, 0, stream(n), &[0, 0, 0, 0, 1])),
        input("frames of no known kind", Style::Reads, |_, _| frame(UNKNOWN, 0, 0, &[])),
        input("DATA, empty", Style::Reads, |target, n| match n {
            0 => headers(1, &target.block()),
            _ => frame(DATA, 0, 1, &[]),
        }),
        input("DATA of padding alone", Style::Reads, |target, n| match n {
            0 => headers(1, &target.block()),
            _ => frame(DATA, PADDED, 1, &padded(&[], 255)),
        }),
        input("DATA of a byte", Style::Reads, |target, n| match n {
            0 => headers(1, &target.block()),
            _ => data(1, b" "),
        }),
        input("CONTINUATION without end", Style::Reads, |target, n| match n {
            0 => frame(HEADERS, END_STREAM, 1, &target.block()),
            _ => frame(CONTINUATION, 0, 1, &[]),
        }),
        input("rapid reset", Style::Reads, |target, n| [target.on(stream(n)), reset(stream(n), 8)].concat()),
        input("made to reset", Style::Reads, |target, n| {
            [headers(stream(n), &target.block()), window_update(stream(n), 0)].concat()
        }),
        input("bodies that don't come", Style::Reads, |target, n| headers(stream(n), &target.block())),
        input("paths that aren't there", Style::Reads, |_, n| Target::get("/nowhere").on(stream(n))),
        untaken("answers not taken", 65_535, Style::Stalls),
        untaken("answers not taken, no window", 0, Style::Reads),
        untaken("answers not taken, a window of a byte", 1, Style::Reads),
        waiting("data dribble: a byte of window each", |n| window_update(stream(n % waiting_requests()), 1)),
        waiting("a byte of window for all", |_| window_update(0, 1)),
        waiting("SETTINGS of 2,700 windows while answers wait", |n| {
            settings(&[(INITIAL_WINDOW_SIZE, n % 2); 2_700])
        }),
        bomb("a long name, referred to whole", literal(KEPT, &name, b""), &NEWEST, 60_000),
        bomb("a long value, referred to whole", literal(KEPT, b"x-long", &value), &NEWEST, 60_000),
        bomb("a long name, referred to by name", literal(KEPT, &name, b""), &NAMED, 20_000),
        bomb("a long name, kept again and again", literal(KEPT, &name, b""), &NAMED_AND_KEPT, 30_000),
        bomb("a short name, kept again and again", literal(KEPT, b"x", b""), &NAMED_AND_KEPT, 30_000),
        bomb("fields of the static table", vec![], &[0x80 | 58], 60_000),
        bomb("a field of 60 KB", literal(NOT_KEPT, b"x-long", &vec![b'a'; 60_000]), &[], 0),
    ]
}
