//! Graceful shutdown by either side, without a request that was accepted and isn't answered.
//!
//! See RFC 9113, 6.8.

use rustix::process::Signal;

use super::call::Good;
use super::client::Wire;
use super::frames::{NO_ERROR, data, goaway, headers, last_data};
use crate::rig::talos::{Setup, Talos};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sent_goaway_still_gets_responses() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "leaver").await;
    let (first, rest) = good.halves();
    // Complete calls, and one that isn't.
    let mut wire = Wire::open(talos.authz).await;
    let streams: Vec<u32> = (0..20).map(|call| call * 2 + 1).collect();
    let calls: Vec<u8> = streams.iter().flat_map(|stream| good.on(*stream)).collect();
    wire.send(&[calls, headers(41, &good.head()), data(41, first), goaway(0, NO_ERROR)].concat()).await;
    for stream in streams {
        wire.answer(stream).await.allows(&good);
    }
    wire.send(&last_data(41, rest)).await;
    wire.answer(41).await.allows(&good);
    // Twice, as those do who end gracefully: at first with the largest number.
    let mut wire = Wire::open(talos.authz).await;
    wire.send(&[headers(1, &good.head()), goaway((1 << 31) - 1, NO_ERROR)].concat()).await;
    wire.send(&[data(1, first), goaway(0, NO_ERROR), last_data(1, rest)].concat()).await;
    wire.answer(1).await.allows(&good);
    super::cases::answers(&talos, &good).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_gone_disturbs_nobody() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "leaver").await;
    for cut in 0..30 {
        let mut wire = Wire::open(talos.authz).await;
        let calls = [good.on(1), good.on(3), headers(5, &good.head())].concat();
        wire.send(&calls[..calls.len() * cut / 30]).await;
        drop(wire);
    }
    super::cases::answers(&talos, &good).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sigterm_what_was_taken_is_answered_and_then_the_connection_ends() {
    let mut talos = Talos::start().await;
    let good = Good::new(&talos, "stayer").await;
    let (first, rest) = good.halves();
    let mut idle = Wire::open(talos.authz).await;
    let mut busy = Wire::open(talos.authz).await;
    busy.send(&[good.on(1), headers(3, &good.head()), data(3, first)].concat()).await;
    busy.answer(1).await.allows(&good);
    // One that confirms late that it has read the GOAWAY: what it sends meanwhile is still taken.
    let mut late = Wire::open(talos.authz).await;
    late.answers_pings = false;
    late.send(&[headers(1, &good.head()), data(1, first)].concat()).await;
    late.ping().await;

    talos.process.signal(Signal::TERM);
    let said = idle.end().await;
    assert!(said.is_some_and(|goaway| goaway.code == NO_ERROR), "{:?}", idle.goaways);
    for (wire, next, open) in [(&mut busy, 5, 3), (&mut late, 3, 1)] {
        wire.until("a GOAWAY", |wire| !wire.goaways.is_empty()).await;
        let taken = |wire: &Wire| wire.goaways.iter().all(|goaway| goaway.last >= next);
        let is_taken = taken(wire);
        if is_taken {
            wire.send(&good.on(next)).await;
        }
        wire.pong().await;
        wire.answers_pings = true;
        wire.send(&last_data(open, rest)).await;
        wire.answer(open).await.allows(&good);
        let last = wire.end().await;
        assert!(
            last.is_some_and(|goaway| goaway.code == NO_ERROR && goaway.last >= open),
            "{:?}",
            wire.goaways
        );
        if is_taken && taken(wire) {
            wire.heard.remove(&next).unwrap_or_default().allows(&good);
        }
    }
    let status = talos.process.end().await;
    assert_eq!(status.code(), Some(0), "{status}:\n{}", talos.process.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_old_ends_as_gracefully() {
    let talos = Setup::new().set("TALOS_SERVE_AUTHZ_MAX_CONNECTION_AGE", "1s").start().await;
    let good = Good::new(&talos, "elder").await;
    let (first, rest) = good.halves();
    let mut wire = Wire::open(talos.authz).await;
    wire.send(&[headers(1, &good.head()), data(1, first)].concat()).await;
    wire.until("a GOAWAY", |wire| !wire.goaways.is_empty()).await;
    wire.send(&last_data(1, rest)).await;
    wire.answer(1).await.allows(&good);
    let last = wire.end().await;
    assert!(last.is_some_and(|goaway| goaway.code == NO_ERROR && goaway.last >= 1), "{:?}", wire.goaways);
    super::cases::answers(&talos, &good).await;
}
