//! Calls with more than one message, and calls that are given up.

use prost::Message;
use rustix::process::Signal;

use super::call::{Good, HEALTH, NOT_SERVING, REFLECTION, SERVING, WATCH, call_of, framed, reflect};
use super::client::Wire;
use super::frames::{CANCEL, INITIAL_WINDOW_SIZE, NO_ERROR, data, headers, last_data, reset};
use crate::rig::check::Check;
use crate::rig::talos::Talos;

const LIST_SERVICES: u8 = 7;
const FILE_CONTAINING_SYMBOL: u8 = 4;

fn watch(stream: u32, service: &str) -> Vec<u8> {
    // `HealthCheckRequest`: field 1 is the service's name, as it is of a request of reflection's.
    [headers(stream, &call_of(WATCH)), last_data(stream, &reflect(1, service))].concat()
}

/// Waits for a message on a stream that stays open.
async fn hears(wire: &mut Wire, stream: u32, number: usize, message: &[u8]) {
    let has = |wire: &Wire| wire.heard.get(&stream).is_some_and(|heard| heard.messages().len() >= number);
    wire.until("a message", has).await;
    let heard = &wire.heard[&stream];
    assert_eq!(heard.messages()[number - 1], message, "{heard:?}");
    assert!(!heard.is_over() && heard.messages().len() == number, "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_watched_beside_checks_until_the_end() {
    let mut talos = Talos::start().await;
    let good = Good::new(&talos, "watcher").await;
    let mut wire = Wire::open(talos.authz).await;
    let service = "envoy.service.auth.v3.Authorization";
    wire.send(&[watch(1, ""), watch(3, service), good.on(5)].concat()).await;
    hears(&mut wire, 1, 1, SERVING).await;
    hears(&mut wire, 3, 1, SERVING).await;
    wire.answer(5).await.allows(&good);
    for call in 0..50 {
        let stream = 101 + call * 2;
        wire.call(stream, &good).await;
        if call % 3 == 0 {
            wire.ping().await;
        }
        wire.answer(stream).await.allows(&good);
    }
    // Another one is opened and given up beside.
    wire.send(&watch(301, "")).await;
    hears(&mut wire, 301, 1, SERVING).await;
    wire.send(&reset(301, CANCEL)).await;
    // One whose message isn't there yet, and one that gets half of it.
    let (first, rest) = good.halves();
    wire.send(&[headers(303, &good.head()), headers(305, &good.head()), data(305, first)].concat()).await;
    wire.ping().await;
    for stream in [1, 3] {
        assert!(wire.heard[&stream].messages().len() == 1 && !wire.heard[&stream].is_over());
    }

    talos.process.signal(Signal::TERM);
    hears(&mut wire, 1, 2, NOT_SERVING).await;
    hears(&mut wire, 3, 2, NOT_SERVING).await;
    wire.until("a GOAWAY", |wire| !wire.goaways.is_empty()).await;
    wire.send(&[last_data(303, &good.message), last_data(305, rest)].concat()).await;
    for stream in [303, 305] {
        wire.answer(stream).await.allows(&good);
    }
    wire.send(&[reset(1, CANCEL), reset(3, CANCEL)].concat()).await;
    let goaway = wire.end().await;
    assert!(goaway.is_some_and(|goaway| goaway.code == NO_ERROR && goaway.last >= 305), "{:?}", wire.goaways);
    let status = talos.process.end().await;
    assert_eq!(status.code(), Some(0), "{status}:\n{}", talos.process.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn health_answers_for_what_it_knows() {
    let talos = Talos::start().await;
    let mut wire = Wire::open(talos.authz).await;
    for (stream, service, status) in
        [(1, "", 0), (3, "envoy.service.auth.v3.Authorization", 0), (5, "else", 5)]
    {
        wire.send(&[headers(stream, &call_of(HEALTH)), last_data(stream, &reflect(1, service))].concat())
            .await;
        let heard = wire.answer(stream).await;
        assert_eq!(heard.grpc_status(), Some(status), "{service}: {heard:?}");
        if status == 0 {
            assert_eq!(heard.message(), SERVING);
        }
    }
    // gRPC asks for SERVICE_UNKNOWN and an open call, as the service may appear; tonic says
    // NOT_FOUND.
    wire.send(&watch(7, "else")).await;
    wire.until("what becomes of it", |wire| {
        wire.heard.get(&7).is_some_and(|heard| heard.is_over() || !heard.messages().is_empty())
    })
    .await;
    let heard = &wire.heard[&7];
    let stays = !heard.is_over() && heard.messages() == [[8, 3]];
    assert!(stays || heard.grpc_status() == Some(5), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_are_given_up_leave_room_for_others() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "watcher").await;
    let mut wire = Wire::open(talos.authz).await;
    let mut stream = 1;
    // More than there may be at once.
    for _ in 0..12 {
        let streams: Vec<u32> = (0..100).map(|watch| stream + watch * 2).collect();
        wire.send(&streams.iter().flat_map(|stream| watch(*stream, "")).collect::<Vec<_>>()).await;
        for stream in &streams {
            hears(&mut wire, *stream, 1, SERVING).await;
        }
        wire.send(&streams.iter().flat_map(|stream| reset(*stream, CANCEL)).collect::<Vec<_>>()).await;
        stream += 200;
    }
    wire.call(stream, &good).await;
    wire.answer(stream).await.allows(&good);
    wire.ping().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_answers_each_request_of_a_call() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "reflector").await;
    let mut wire = Wire::open(talos.authz).await;
    wire.send(&[headers(1, &call_of(REFLECTION)), good.on(3)].concat()).await;
    wire.answer(3).await.allows(&good);
    // One after the other, each when the one before was answered; the third in two parts.
    let count = |wire: &Wire| wire.heard.get(&1).map_or(0, |heard| heard.messages().len());
    let symbol = reflect(FILE_CONTAINING_SYMBOL, "grpc.health.v1.Health");
    let (first, rest) = symbol.split_at(7);
    for (number, parts) in
        [(1, vec![&reflect(LIST_SERVICES, "*")[..]]), (2, vec![&symbol]), (3, vec![first, rest])]
    {
        for part in parts {
            assert_eq!(count(&wire), number - 1);
            wire.send(&data(1, part)).await;
            wire.ping().await;
        }
        wire.until("an answer", |wire| count(wire) == number).await;
    }
    let names = String::from_utf8_lossy(wire.heard[&1].messages()[0]).into_owned();
    assert!(names.contains("envoy.service.auth.v3.Authorization"), "{names}");
    // Many in one frame.
    wire.send(&data(1, &symbol.repeat(50))).await;
    wire.until("more answers", |wire| count(wire) == 53).await;
    assert!(!wire.heard[&1].is_over());
    wire.send(&last_data(1, &[])).await;
    let heard = wire.answer(1).await;
    assert_eq!((heard.grpc_status(), heard.messages().len()), (Some(0), 53));
    // A stream without a message.
    wire.send(&[headers(5, &call_of(REFLECTION)), last_data(5, &[])].concat()).await;
    let heard = wire.answer(5).await;
    assert_eq!((heard.grpc_status(), heard.data.len()), (Some(0), 0), "{heard:?}");
    // Given up between two.
    wire.send(&[headers(7, &call_of(REFLECTION)), data(7, &symbol)].concat()).await;
    wire.until("an answer", |wire| wire.received(7) > 0).await;
    wire.send(&[reset(7, CANCEL), good.on(9)].concat()).await;
    wire.answer(9).await.allows(&good);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_given_up_disturb_nobody() {
    let talos = Talos::start().await;
    let good = Good::new(&talos, "giver").await;
    let mut wire = Wire::open_with(talos.authz, &[(INITIAL_WINDOW_SIZE, 100)]).await;
    let mut stream = 1;
    for round in 0..100 {
        // An unknown key has to be looked up, so its answer comes later.
        let ask = Check::api_key(&format!("never-imported-{round}"));
        let unknown = framed(&ask.build().encode_to_vec());
        let looked_up = [headers(stream, &good.head()), last_data(stream, &unknown)].concat();
        let give_up = |calls: &[u32]| {
            calls.iter().flat_map(|call| reset(stream + call * 2, CANCEL)).collect::<Vec<_>>()
        };
        // Reset during the lookup, while the response waits for a window, and before the message.
        let calls = [looked_up, good.on(stream + 2), headers(stream + 4, &good.head())];
        match round % 3 {
            0 => wire.send(&[calls.concat(), give_up(&[0, 1, 2])].concat()).await,
            1 => {
                wire.send(&calls.concat()).await;
                wire.ping().await;
                wire.send(&give_up(&[1, 0, 2])).await;
            }
            _ => {
                wire.send(&[&calls[0][..], &give_up(&[0])].concat()).await;
                wire.send(&[&calls[1][..], &calls[2], &give_up(&[2, 1])].concat()).await;
            }
        }
        stream += 6;
        if round % 10 == 0 {
            wire.call(stream, &good).await;
            wire.answer(stream).await.allows(&good);
            stream += 2;
        }
    }
}
