//! The cases of h2spec 2.6, by section and number, with the reaction of this server to each.
//!
//! Many are in other tables, too, by the rule that they are about. Here they are complete, so each
//! line of a run of h2spec against the authz plane is found. A comment says why a reaction isn't
//! the one that h2spec asks for.

mod connection;
mod generic;
mod messages;
mod requests;
mod streams;

use std::collections::BTreeMap;

use self::connection::CONNECTION;
use self::generic::GENERIC;
use self::messages::MESSAGES;
use self::requests::PROTOCOL;
use self::streams::STREAMS;
use super::call::Good;
use super::cases::Reaction::{Goaway, Hangup};
use super::cases::{hold, react};
use super::client::Wire;
use super::frames::{
    INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, PREFACE, PROTOCOL_ERROR, REFUSED_STREAM, headers,
};
use crate::rig::support::Must;
use crate::rig::talos::Talos;

/// Number of cases of each section, as h2spec lists them.
const SECTIONS: [(&str, usize); 49] = [
    ("generic/1", 1),
    ("generic/2", 5),
    ("generic/3.1", 3),
    ("generic/3.2", 3),
    ("generic/3.3", 5),
    ("generic/3.4", 1),
    ("generic/3.5", 1),
    ("generic/3.7", 1),
    ("generic/3.8", 1),
    ("generic/3.9", 2),
    ("generic/3.10", 2),
    ("generic/4", 4),
    ("generic/5", 15),
    ("http2/3.5", 2),
    ("http2/4.1", 3),
    ("http2/4.2", 3),
    ("http2/4.3", 3),
    ("http2/5.1", 13),
    ("http2/5.1.1", 2),
    ("http2/5.1.2", 1),
    ("http2/5.3.1", 2),
    ("http2/5.4.1", 2),
    ("http2/5.5", 2),
    ("http2/6.1", 3),
    ("http2/6.2", 4),
    ("http2/6.3", 2),
    ("http2/6.4", 3),
    ("http2/6.5", 3),
    ("http2/6.5.2", 5),
    ("http2/6.5.3", 2),
    ("http2/6.7", 4),
    ("http2/6.8", 1),
    ("http2/6.9", 3),
    ("http2/6.9.1", 3),
    ("http2/6.9.2", 3),
    ("http2/6.10", 6),
    ("http2/7", 2),
    ("http2/8.1", 1),
    ("http2/8.1.2", 1),
    ("http2/8.1.2.1", 4),
    ("http2/8.1.2.2", 2),
    ("http2/8.1.2.3", 7),
    ("http2/8.1.2.6", 2),
    ("http2/8.2", 1),
    ("hpack/2.3.3", 2),
    ("hpack/4.2", 1),
    ("hpack/5.2", 3),
    ("hpack/6.1", 1),
    ("hpack/6.3", 1),
];

/// Cases that are no row of a table, as they take several steps.
const IN_STEPS: [&str; 5] =
    ["http2/3.5/2", "http2/5.1.2/1", "http2/6.9.1/1", "http2/6.9.2/1", "http2/6.9.2/2"];
#[test]
fn the_tables_have_every_case() {
    let rows = [GENERIC, CONNECTION, STREAMS, MESSAGES].concat();
    let names = rows.iter().map(|(name, ..)| name.split(' ').next().unwrap_or_default());
    let mut sections = BTreeMap::<&str, Vec<usize>>::new();
    for name in names.chain(IN_STEPS) {
        let (section, number) = name.rsplit_once('/').must("a section and a number");
        sections.entry(section).or_default().push(number.parse().must("a number"));
    }
    for (section, cases) in SECTIONS {
        let mut numbers = sections.remove(section).unwrap_or_default();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=cases).collect::<Vec<_>>(), "{section}");
    }
    assert!(sections.is_empty(), "{sections:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn generic() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "h2spec").await;
    hold(&talos, &good, GENERIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_connection() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "h2spec").await;
    hold(&talos, &good, CONNECTION).await;
    // http2/3.5/2: an invalid preface.
    let mut wire = Wire::connect(talos.authz).await;
    wire.send(&[b"INVALID CONNECTION PREFACE\r\n\r\n", PREFACE].concat()).await;
    let reaction = react(&mut wire, &good, PROTOCOL).await;
    assert!([Goaway(PROTOCOL_ERROR), Hangup].contains(&reaction), "{reaction:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_streams() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "h2spec").await;
    hold(&talos, &good, STREAMS).await;
    // http2/5.1.2/1: more streams than SETTINGS_MAX_CONCURRENT_STREAMS.
    let mut wire = Wire::open(talos.authz).await;
    let most = wire.theirs.as_ref().and_then(|theirs| theirs.get(&MAX_CONCURRENT_STREAMS)).copied();
    let most = most.must("a limit of streams");
    for stream in (0..=most).map(|n| n * 2 + 1) {
        wire.send(&headers(stream, &good.head())).await;
    }
    assert_eq!(wire.answer(most * 2 + 1).await.reset, Some(REFUSED_STREAM));
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_windows() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "h2spec").await;
    // http2/6.9.1/1: a window of one byte.
    let mut wire = Wire::open_with(talos.authz, &[(INITIAL_WINDOW_SIZE, 1)]).await;
    wire.replenishes = false;
    wire.send(&good.on(1)).await;
    wire.until("a byte", |wire| wire.received(1) >= 1).await;
    wire.ping().await;
    assert_eq!(wire.received(1), 1);
    // http2/6.9.2/1: a window that opens after the request.
    let mut wire = Wire::open_with(talos.authz, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    wire.replenishes = false;
    wire.send(&good.on(1)).await;
    wire.ping().await;
    assert_eq!(wire.received(1), 0);
    wire.settings(&[(INITIAL_WINDOW_SIZE, 1)]).await;
    wire.until("a byte", |wire| wire.received(1) >= 1).await;
    wire.ping().await;
    assert_eq!(wire.received(1), 1);
    // http2/6.9.2/2: a window that becomes negative.
    let mut wire = Wire::open_with(talos.authz, &[(INITIAL_WINDOW_SIZE, 3)]).await;
    wire.replenishes = false;
    wire.send(&good.on(1)).await;
    wire.until("three bytes", |wire| wire.received(1) >= 3).await;
    wire.settings(&[(INITIAL_WINDOW_SIZE, 2)]).await;
    wire.grant(1, 2).await;
    wire.until("a byte more", |wire| wire.received(1) >= 4).await;
    wire.ping().await;
    assert_eq!(wire.received(1), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_and_hpack() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "h2spec").await;
    hold(&talos, &good, MESSAGES).await;
}
