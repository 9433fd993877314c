//! Requests (RFC 9113, 8) and calls (gRPC over HTTP/2), malformed and well-formed.
//!
//! Comments on h2 name a reaction of that library, which tonic's servers use: it is right as well.

use super::call::{CALL, CHECK, Good, HEALTH, NOWHERE, block, call_and, call_of, call_with, fields, framed};
use super::cases::Reaction::{Allowed, Goaway, Grpc, Reset, Status};
use super::cases::{Case, Reaction, hold};
use super::client::Wire;
use super::frames::{
    DATA, END_STREAM, HEADERS, PADDED, PROTOCOL_ERROR, WHOLE, data, frame, headers, last_data, padded,
};
use super::hpack::{AS_IT_IS, Encoder, Field};
use crate::rig::support::Must;
use crate::rig::talos::Talos;

/// A malformed request is an error of its stream, and may be answered before.
const MALFORMED: &[Reaction] = &[Reset(PROTOCOL_ERROR), Status(400)];

/// A good message under this head.
fn under(head: Vec<u8>) -> impl Fn(&Good) -> Vec<u8> {
    move |good| [headers(1, &head), last_data(1, &good.message)].concat()
}

/// The head of a Check without one of its fields.
fn without(name: &str) -> Vec<u8> {
    let rest: Vec<_> = CALL.into_iter().filter(|(known, _)| *known != name).collect();
    block(&rest)
}

/// The head of a Check with one more field, of any bytes.
fn with_bytes(name: &[u8], value: &[u8]) -> Vec<u8> {
    let more: Field = (name.to_vec(), value.to_vec());
    Encoder::new().block(&[fields(&CALL), vec![more]].concat(), AS_IT_IS)
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_heads_are_refused_and_the_connection_lives() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "asker").await;
    // h2 ends the connection for a malformed name or value.
    let unreadable: &[Reaction] = &[MALFORMED, &[Goaway(PROTOCOL_ERROR)]].concat();
    // h2 accepts it.
    let tolerated: &[Reaction] = &[MALFORMED, &[Allowed]].concat();
    let (mut late, mut twice) = (CALL.to_vec(), CALL.to_vec());
    late.swap(3, 4);
    twice.insert(1, (":method", "POST"));
    let cases: &[Case] = &[
        ("a name in capitals", &under(with_bytes(b"X-Upper", b"a")), unreadable),
        ("a name with a space", &under(with_bytes(b"x y", b"a")), unreadable),
        ("a name with a colon", &under(with_bytes(b"x:y", b"a")), unreadable),
        ("a name of nothing", &under(with_bytes(b"", b"a")), unreadable),
        ("a name with a byte beyond ASCII", &under(with_bytes(b"x-\xff", b"a")), unreadable),
        ("a value with a line feed", &under(with_bytes(b"x-a", b"a\nb")), unreadable),
        ("a value with a carriage return", &under(with_bytes(b"x-a", b"a\rb")), unreadable),
        ("a value with a zero", &under(with_bytes(b"x-a", b"a\0b")), unreadable),
        ("a value that begins with a space", &under(with_bytes(b"x-a", b" a")), tolerated),
        ("a value that ends with a tab", &under(with_bytes(b"x-a", b"a\t")), tolerated),
        ("an unknown pseudo-header", &under(with_bytes(b":proto", b"a")), unreadable),
        (
            "a pseudo-header of answers",
            &under(block(&[&[(":status", "200")], &CALL[..]].concat())),
            MALFORMED,
        ),
        (
            "a pseudo-header of extended CONNECT",
            &under(block(&[&[(":protocol", "websocket")], &CALL[..]].concat())),
            MALFORMED,
        ),
        ("a pseudo-header twice", &under(block(&twice)), MALFORMED),
        ("a pseudo-header after a field", &under(block(&late)), MALFORMED),
        ("a pseudo-header at the end", &under(call_and(&[(":path", CHECK)])), MALFORMED),
        ("no method", &under(without(":method")), MALFORMED),
        ("no scheme", &under(without(":scheme")), MALFORMED),
        ("no path", &under(without(":path")), MALFORMED),
        ("a path of nothing", &under(call_of("")), MALFORMED),
        (
            "a path that isn't absolute",
            &under(call_of("Check")),
            &[Reset(PROTOCOL_ERROR), Status(400), Grpc(12)],
        ),
        ("nothing", &under(vec![]), MALFORMED),
        ("connection", &under(call_and(&[("connection", "close")])), MALFORMED),
        ("transfer-encoding", &under(call_and(&[("transfer-encoding", "chunked")])), MALFORMED),
        ("keep-alive", &under(call_and(&[("keep-alive", "timeout=5")])), MALFORMED),
        ("proxy-connection", &under(call_and(&[("proxy-connection", "close")])), MALFORMED),
        ("upgrade", &under(call_and(&[("upgrade", "h2c")])), MALFORMED),
        ("te that isn't trailers", &under(call_with("te", "gzip")), MALFORMED),
        ("te that isn't trailers alone", &under(call_with("te", "trailers, gzip")), MALFORMED),
    ];
    hold(&talos, &good, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unusual_well_formed_requests_are_accepted() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "asker").await;
    let cases: &[Case] = &[
        ("no authority", &under(without(":authority")), &[Allowed]),
        (
            "host instead of authority",
            &under(block(&[&CALL[..3], &CALL[4..], &[("host", "talos.test")]].concat())),
            &[Allowed],
        ),
        ("authority and host", &under(call_and(&[("host", "talos.test")])), &[Allowed]),
        ("no te", &under(without("te")), &[Allowed]),
        (
            "pseudo-headers in another order",
            &under(block(&[CALL[3], CALL[2], CALL[1], CALL[0], CALL[4]])),
            &[Allowed],
        ),
        ("https", &under(call_with(":scheme", "https")), &[Allowed]),
        (
            "a content-type with the format of messages",
            &under(call_with("content-type", "application/grpc+proto")),
            &[Allowed],
        ),
        ("cookies in crumbs", &under(call_and(&[("cookie", "a=1"), ("cookie", "b=2")])), &[Allowed]),
        ("a field twice", &under(call_and(&[("x-a", "1"), ("x-a", "2")])), &[Allowed]),
        ("a field of nothing", &under(call_and(&[("x-a", "")])), &[Allowed]),
        ("bytes beyond ASCII", &under(with_bytes(b"x-a", b"\x80\xff caf\xc3\xa9")), &[Allowed]),
        ("binary metadata", &under(call_and(&[("trace-bin", "AAEC/w")])), &[Allowed]),
        (
            "what gRPC's clients send along",
            &under(call_and(&[
                ("user-agent", "grpc-c++/1.60.0 grpc-c/37.0.0 (linux; chttp2)"),
                ("grpc-accept-encoding", "identity, deflate, gzip"),
                ("accept-encoding", "identity"),
                ("grpc-timeout", "200m"),
                ("grpc-encoding", "identity"),
                ("x-envoy-internal", "true"),
                ("x-forwarded-for", "10.0.0.1"),
                ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ])),
            &[Allowed],
        ),
    ];
    hold(&talos, &good, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_length_has_to_be_that_of_the_data() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "asker").await;
    let with = |length: fn(usize) -> String| {
        move |good: &Good| {
            let head = call_and(&[("content-length", &length(good.message.len()))]);
            [headers(1, &head), last_data(1, &good.message)].concat()
        }
    };
    let cases: &[Case] = &[
        ("right", &with(|length| length.to_string()), &[Allowed]),
        ("one less", &with(|length| (length - 1).to_string()), MALFORMED),
        ("one more", &with(|length| (length + 1).to_string()), MALFORMED),
        ("none", &with(|_| "0".to_owned()), MALFORMED),
        ("no number", &with(|_| "many".to_owned()), MALFORMED),
        ("nothing", &with(|_| String::new()), MALFORMED),
        ("a sign", &with(|length| format!("+{length}")), MALFORMED),
        ("beyond 64 bits", &with(|_| "9".repeat(30)), MALFORMED),
        (
            "right, the data padded",
            &|good| {
                let head = call_and(&[("content-length", &good.message.len().to_string())]);
                [headers(1, &head), frame(DATA, PADDED | END_STREAM, 1, &padded(&good.message, 99))].concat()
            },
            &[Allowed],
        ),
        (
            "right, with trailers",
            &|good| {
                let head = call_and(&[("content-length", &good.message.len().to_string())]);
                [headers(1, &head), data(1, &good.message), trailers(&[("x-a", "1")])].concat()
            },
            &[Allowed],
        ),
        (
            "one more, with trailers",
            &|good| {
                let head = call_and(&[("content-length", &(good.message.len() + 1).to_string())]);
                [headers(1, &head), data(1, &good.message), trailers(&[("x-a", "1")])].concat()
            },
            MALFORMED,
        ),
        (
            "two that agree",
            &|good| {
                let length = good.message.len().to_string();
                under(call_and(&[("content-length", &length), ("content-length", &length)]))(good)
            },
            &[Allowed, MALFORMED[0], MALFORMED[1]],
        ),
        (
            "two that don't",
            &|good| {
                let length = good.message.len().to_string();
                under(call_and(&[("content-length", &length), ("content-length", "1")]))(good)
            },
            MALFORMED,
        ),
        (
            "some, and no data at all",
            &|_| frame(HEADERS, WHOLE | END_STREAM, 1, &call_and(&[("content-length", "10")])),
            MALFORMED,
        ),
    ];
    hold(&talos, &good, cases).await;
}

fn trailers(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, WHOLE | END_STREAM, 1, &block(fields))
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_end_a_request_and_are_nothing_but_fields() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "asker").await;
    let then = |more: fn() -> Vec<u8>| {
        move |good: &Good| [headers(1, &good.head()), data(1, &good.message), more()].concat()
    };
    // h2 accepts them.
    let tolerated: &[Reaction] = &[MALFORMED, &[Allowed]].concat();
    let cases: &[Case] = &[
        ("one", &then(|| trailers(&[("x-checksum", "1")])), &[Allowed]),
        ("none", &then(|| trailers(&[])), &[Allowed]),
        ("many", &then(|| trailers(&[("grpc-status", "0"), ("x-a", "1"), ("x-a", "2")])), &[Allowed]),
        ("without an end", &then(|| headers(1, &block(&[("x-checksum", "1")]))), MALFORMED),
        ("with a pseudo-header", &then(|| trailers(&[(":path", CHECK)])), tolerated),
        ("with one of answers", &then(|| trailers(&[("x-a", "1"), (":status", "200")])), MALFORMED),
        ("with connection", &then(|| trailers(&[("connection", "close")])), MALFORMED),
        ("with a second head", &then(|| frame(HEADERS, WHOLE | END_STREAM, 1, &block(&CALL))), tolerated),
        (
            "right after the head",
            &|good| [headers(1, &good.head()), trailers(&[("x-a", "1")])].concat(),
            &[Grpc(13), Grpc(12), Grpc(3)],
        ),
    ];
    hold(&talos, &good, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_no_grpc_calls_are_refused() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "asker").await;
    let not_one = &[Grpc(13), Grpc(12), Grpc(3)];
    let sending = |message: fn(&Good) -> Vec<u8>| {
        move |good: &Good| [headers(1, &good.head()), last_data(1, &message(good))].concat()
    };
    let cases: &[Case] = &[
        ("GET", &under(call_with(":method", "GET")), &[Status(405)]),
        (
            "GET without a body",
            &|_| frame(HEADERS, WHOLE | END_STREAM, 1, &call_with(":method", "GET")),
            &[Status(405)],
        ),
        ("PUT", &under(call_with(":method", "PUT")), &[Status(405)]),
        ("a method that nobody knows", &under(call_with(":method", "BREW")), &[Status(405)]),
        ("no content-type", &under(without("content-type")), &[Status(415)]),
        ("JSON", &under(call_with("content-type", "application/json")), &[Status(415)]),
        ("gRPC-Web", &under(call_with("content-type", "application/grpc-web")), &[Status(415)]),
        ("messages in JSON", &under(call_with("content-type", "application/grpc+json")), &[Status(415)]),
        ("messages in gzip", &under(call_and(&[("grpc-encoding", "gzip")])), &[Grpc(12)]),
        ("a service that isn't there", &under(call_of(NOWHERE)), &[Grpc(12)]),
        (
            "a method that isn't there",
            &under(call_of("/envoy.service.auth.v3.Authorization/Chek")),
            &[Grpc(12)],
        ),
        (
            "a method of health's that isn't there",
            &under(call_of("/grpc.health.v1.Health/Cure")),
            &[Grpc(12)],
        ),
        ("a path of one part", &under(call_of("/Check")), &[Grpc(12)]),
        ("the root", &under(call_of("/")), &[Grpc(12)]),
        ("a path with a slash more", &under(call_of(&format!("{CHECK}/"))), &[Grpc(12)]),
        ("a compressed message", &sending(|good| [&[1], &good.message[1..]].concat()), not_one),
        ("a message that begins wrong", &sending(|good| [&[9], &good.message[1..]].concat()), not_one),
        ("no message", &sending(|_| vec![]), not_one),
        ("a message without its end", &sending(|good| good.halves().0.to_vec()), not_one),
        ("half a prefix", &sending(|_| vec![0, 0, 0]), not_one),
        ("two messages", &sending(|good| good.message.repeat(2)), not_one),
        ("a message and a byte", &sending(|good| [&good.message[..], &[0]].concat()), not_one),
        ("a message beyond 4 MiB", &sending(|_| [&[0, 0, 64, 0, 1][..], &[0; 100]].concat()), &[Grpc(8)]),
        (
            "a message of 4 GiB",
            &sending(|_| [&[0xff; 5][1..], &[0; 100]].concat()),
            &[Grpc(8), Grpc(13), Grpc(12)],
        ),
        ("a message of garbage", &sending(|_| framed(&[0xff; 50])), &[Grpc(13), Grpc(3)]),
        ("a head and no more", &|good| frame(HEADERS, WHOLE | END_STREAM, 1, &good.head()), not_one),
    ];
    hold(&talos, &good, cases).await;
    let mut wire = Wire::open(talos.authz).await;
    wire.send(&frame(HEADERS, WHOLE | END_STREAM, 1, &call_with(":method", "GET"))).await;
    assert_eq!(wire.answer(1).await.header("allow").as_deref(), Some("POST"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_may_be_cut_at_every_byte() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "cutter").await;
    let mut wire = Wire::open(talos.authz).await;
    let head = good.head();
    let mut stream = 1;
    let mut ask = async |parts: Vec<Vec<u8>>, at_once: bool| {
        let begin = headers(stream, &head);
        let parts = parts.iter().map(|part| [&part[..5], &stream.to_be_bytes(), &part[9..]].concat());
        if at_once {
            wire.send(&[begin, parts.collect::<Vec<_>>().concat()].concat()).await;
        } else {
            wire.send(&begin).await;
            for part in parts {
                wire.send(&part).await;
                // The server has read it, and has nothing but that.
                wire.ping().await;
            }
        }
        wire.answer(stream).await.allows(&good);
        stream += 2;
    };
    for cut in 0..=good.message.len() {
        let (first, rest) = good.message.split_at(cut);
        ask(vec![data(0, first), last_data(0, rest)], cut % 2 == 0).await;
        if cut < 8 || cut % 16 == 0 {
            // With empty frames around, and an end that has no data.
            let parts = vec![data(0, &[]), data(0, first), data(0, &[]), data(0, rest), last_data(0, &[])];
            ask(parts, cut % 2 == 1).await;
        }
    }
    let bytes: Vec<Vec<u8>> = good.message.iter().map(|byte| data(0, &[*byte])).collect();
    ask([bytes, vec![last_data(0, &[])]].concat(), true).await;
    wire.send(&[headers(100_001, &call_of(HEALTH)), last_data(100_001, &framed(&[]))].concat()).await;
    let answer = wire.answer(100_001).await;
    assert_eq!(answer.messages().first().copied().must("a message"), super::call::SERVING);
}
