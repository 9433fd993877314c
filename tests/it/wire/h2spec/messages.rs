//! Cases about messages and header compression.

use super::super::call::{CALL, block, call_and, call_with};
use super::super::cases::Case;
use super::super::frames::{END_HEADERS, PUSH_PROMISE, data, frame, headers, last_data};
use super::requests::{
    COMPRESSION, MALFORMED, PROTOCOL, bodiless, huffman_value, twice, with_octets, without,
};

pub(super) const MESSAGES: &[Case] = &[
    (
        "http2/8.1/1 second HEADERS without END_STREAM",
        &|good| [headers(1, &good.head()), headers(1, &block(&[("x-test", "ok")]))].concat(),
        MALFORMED,
    ),
    ("http2/8.1.2/1 capitals", &|_| bodiless(&call_and(&[("X-TEST", "ok")])), MALFORMED),
    (
        "http2/8.1.2.1/1 unknown pseudo-header",
        &|_| bodiless(&block(&[&CALL[..4], &[(":test", "ok")][..], &CALL[4..]].concat())),
        MALFORMED,
    ),
    (
        "http2/8.1.2.1/2 a response's pseudo-header",
        &|_| bodiless(&block(&[&CALL[..4], &[(":status", "200")][..], &CALL[4..]].concat())),
        MALFORMED,
    ),
    (
        "http2/8.1.2.1/3 pseudo-header in trailers",
        &|good| {
            let trailers = bodiless(&block(&[(":method", "200")]));
            [headers(1, &good.head()), data(1, &good.message), trailers].concat()
        },
        MALFORMED,
    ),
    (
        "http2/8.1.2.1/4 pseudo-header after others",
        &|_| bodiless(&block(&[&CALL[1..], &CALL[..1]].concat())),
        MALFORMED,
    ),
    ("http2/8.1.2.2/1 connection", &|_| bodiless(&call_and(&[("connection", "keep-alive")])), MALFORMED),
    ("http2/8.1.2.2/2 TE", &|_| bodiless(&call_with("te", "trailers, deflate")), MALFORMED),
    ("http2/8.1.2.3/1 empty :path", &|_| bodiless(&call_with(":path", "")), MALFORMED),
    ("http2/8.1.2.3/2 no :method", &|_| bodiless(&without(":method")), MALFORMED),
    ("http2/8.1.2.3/3 no :scheme", &|_| bodiless(&without(":scheme")), MALFORMED),
    ("http2/8.1.2.3/4 no :path", &|_| bodiless(&without(":path")), MALFORMED),
    ("http2/8.1.2.3/5 two :method", &|_| bodiless(&twice(":method")), MALFORMED),
    ("http2/8.1.2.3/6 two :scheme", &|_| bodiless(&twice(":scheme")), MALFORMED),
    ("http2/8.1.2.3/7 two :path", &|_| bodiless(&twice(":path")), MALFORMED),
    (
        "http2/8.1.2.6/1 content-length, one DATA",
        &|_| [headers(1, &call_and(&[("content-length", "1")])), last_data(1, b"test")].concat(),
        MALFORMED,
    ),
    (
        "http2/8.1.2.6/2 content-length, several DATA",
        &|_| {
            let head = headers(1, &call_and(&[("content-length", "1")]));
            [head, data(1, b"test"), last_data(1, b"test")].concat()
        },
        MALFORMED,
    ),
    (
        "http2/8.2/1 PUSH_PROMISE",
        &|good| {
            let promise = [&2_u32.to_be_bytes()[..], &good.head()].concat();
            [headers(1, &good.head()), frame(PUSH_PROMISE, END_HEADERS, 1, &promise)].concat()
        },
        PROTOCOL,
    ),
    ("hpack/2.3.3/1 indexed, invalid", &|good| with_octets(good, &[], &[0xc6]), COMPRESSION),
    (
        "hpack/2.3.3/2 literal, invalid name index",
        &|good| with_octets(good, &[], &[0x7f, 0x07, 0x05, b'e', b'm', b'p', b't', b'y']),
        COMPRESSION,
    ),
    ("hpack/4.2/1 table size update at the end", &|good| with_octets(good, &[], &[0x21]), COMPRESSION),
    (
        "hpack/5.2/1 padding of more than 7 bits",
        &|good| with_octets(good, &[], &huffman_value(&[0x1f, 0xff])),
        COMPRESSION,
    ),
    ("hpack/5.2/2 padding of zeros", &|good| with_octets(good, &[], &huffman_value(&[0x18])), COMPRESSION),
    ("hpack/5.2/3 EOS", &|good| with_octets(good, &[], &huffman_value(&[0xff; 4])), COMPRESSION),
    ("hpack/6.1/1 index 0", &|good| with_octets(good, &[], &[0x80]), COMPRESSION),
    (
        "hpack/6.3/1 table size update above the limit",
        &|good| with_octets(good, &[0x3f, 0xe2, 0x1f], &[]),
        COMPRESSION,
    ),
];
