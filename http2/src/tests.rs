//! Sessions against the client of the `h2` crate, and against any bytes.

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, proptest};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use crate::*;

const LIMITS: Limits = Limits {
    max_concurrent_streams: 100,
    max_header_list_size: 64 * 1024,
    abuse_budget: 1_000,
    max_output: 64 * 1024,
    max_pending: 32 << 20,
    read_ticks: 10,
    write_ticks: 20,
};

/// Answers every request with its own body, over a stream that passes `step` bytes at a time.
async fn echo(mut stream: DuplexStream, step: usize) {
    let mut session: Session<Vec<u8>> = Session::new(LIMITS);
    let (mut input, mut part) = (vec![], vec![0; step]);
    while !session.is_finished() {
        while !session.output().is_empty() {
            if !write_some(&mut session, &mut stream, step).await {
                return;
            }
        }
        let Ok(count @ 1..) = stream.read(&mut part).await else {
            return;
        };
        input.extend_from_slice(&part[..count]);
        let mut taken = 0;
        loop {
            let received = session.receive(&input[taken..]).expect("h2 keeps the rules");
            let Some((count, event)) = received else {
                if !session.is_output_full() {
                    break;
                }
                write_some(&mut session, &mut stream, step).await;
                continue;
            };
            taken += count;
            let ended = match event {
                None => None,
                Some(Event::Request(incoming)) => {
                    let ended = incoming.end_stream();
                    let id = session.accept(incoming, vec![]);
                    ended.then_some(id)
                }
                Some(Event::Data { id, data, end_stream }) => {
                    session.stream_mut(id).expect("a call").extend_from_slice(data);
                    end_stream.then_some(id)
                }
            };
            if let Some(id) = ended {
                let message = std::mem::take(session.stream_mut(id).expect("a call"));
                let head = HeaderBlock::response(http::StatusCode::OK, &http::HeaderMap::new());
                let last = (http::HeaderName::from_static("last"), http::HeaderValue::from_static("word"));
                let trailers = HeaderBlock::trailers(&http::HeaderMap::from_iter([last]));
                let body = (&b""[..], message.len());
                session.respond(id, &head, body, |out| out.extend_from_slice(&message), &trailers);
            }
        }
        input.drain(..taken);
    }
}

/// Writes up to so many bytes; false when the client is gone.
async fn write_some(session: &mut Session<Vec<u8>>, stream: &mut DuplexStream, most: usize) -> bool {
    let count = session.output().len().min(most);
    let written = stream.write_all(&session.output()[..count]).await.is_ok();
    session.consume_output(count, 0);
    written
}

/// Sends a request with a body, and reads the response within the windows.
async fn call(mut client: SendRequest<Bytes>, body: Bytes, number: usize) -> Bytes {
    let request = http::Request::post("http://localhost/a")
        // One header is new each time, one is repeated.
        .header("x-number", number.to_string())
        .header("x-kind", "a kind that is repeated")
        .body(())
        .expect("a request");
    std::future::poll_fn(|context| client.poll_ready(context)).await.expect("ready");
    let (response, mut sending) = client.send_request(request, false).expect("sending");
    let sent = async {
        let mut rest = body;
        while !rest.is_empty() {
            sending.reserve_capacity(rest.len());
            let room = std::future::poll_fn(|context| sending.poll_capacity(context)).await;
            let part = rest.split_to(room.expect("open").expect("room").min(rest.len()));
            sending.send_data(part, false).expect("sending");
        }
        sending.send_data(Bytes::new(), true).expect("sending");
    };
    let read = async {
        let mut body = response.await.expect("an answer").into_body();
        let mut all = vec![];
        while let Some(part) = body.data().await {
            let part = part.expect("data");
            let _ = body.flow_control().release_capacity(part.len());
            all.extend_from_slice(&part);
        }
        let trailers = body.trailers().await.expect("trailers").expect("some");
        assert_eq!(trailers["last"], "word");
        Bytes::from(all)
    };
    tokio::join!(sent, read).1
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn every_response_is_whole_whatever_the_windows(
        sizes in prop::collection::vec(0_usize..200_000, 1..20),
        window in 1_u32..100_000, connection_window in 65_535_u32..200_000, step in 1_usize..40_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let (ours, theirs) = duplex(10_000);
            let serving = tokio::task::spawn_local(echo(ours, step.max(50)));
            let mut builder = h2::client::Builder::new();
            // Below some hundred bytes it is h2 that makes of one window a thousand frames.
            builder.initial_window_size(window.max(500)).initial_connection_window_size(connection_window);
            let (client, connection) = builder.handshake(theirs).await.unwrap();
            let driving = tokio::task::spawn_local(connection);
            let calls = sizes.iter().enumerate().map(|(number, &size)| {
                let body = Bytes::from(vec![number as u8; size]);
                let client = client.clone();
                async move { assert_eq!(call(client, body.clone(), number).await, body) }
            });
            let all = futures_util::future::join_all(calls);
            tokio::time::timeout(Duration::from_secs(60), all).await.expect("in time");
            drop(client);
            driving.await.unwrap().unwrap();
            serving.abort();
        });
    }
}

/// A frame.
fn framed(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    frame::write(kind, flags, stream, payload, &mut out);
    out
}

/// Returns the events and the output of a session whose input arrives in pieces.
fn converse(input: &[u8], pieces: &[usize]) -> (Vec<String>, Vec<u8>) {
    let mut session: Session<()> = Session::new(LIMITS);
    let (mut events, mut output, mut held, mut rest) = (vec![], vec![], vec![], input);
    let mut pieces = pieces.iter().cycle();
    'all: while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(*pieces.next().unwrap_or(&1)));
        held.extend_from_slice(piece);
        rest = after;
        let mut taken = 0;
        loop {
            match session.receive(&held[taken..]) {
                Err(ConnectionClosed(_)) => break 'all,
                Ok(None) if session.is_output_full() => {
                    output.extend_from_slice(session.output());
                    session.consume_output(session.output().len(), 0);
                }
                Ok(None) => break,
                Ok(Some((count, event))) => {
                    taken += count;
                    events.extend(event.as_ref().map(|event| format!("{event:?}")));
                    if let Some(Event::Request(incoming)) = event {
                        session.accept(incoming, ());
                    }
                }
            }
        }
        held.drain(..taken);
    }
    output.extend_from_slice(session.output());
    (events, output)
}

proptest! {
    #[test]
    fn frames_may_come_in_any_pieces_and_say_anything(
        frames in prop::collection::vec(
            (0_u8..11, any::<u8>(), 0_u32..12, prop::collection::vec(any::<u8>(), 0..40)), 0..40,
        ),
        pieces in prop::collection::vec(1_usize..60, 1..10),
    ) {
        let mut input = [frame::PREFACE, &framed(frame::frame_type::SETTINGS, 0, 0, &[])].concat();
        for (kind, flags, stream, payload) in &frames {
            input.extend(framed(*kind, *flags, *stream, payload));
        }
        let (events, output) = converse(&input, &pieces);
        prop_assert_eq!((events, &output), (converse(&input, &[usize::MAX]).0, &converse(&input, &[usize::MAX]).1));
        prop_assert!(output.len() < 200 + 40 * input.len());
    }

    #[test]
    fn any_bytes_are_frames_or_the_end(input in prop::collection::vec(any::<u8>(), 0..300)) {
        converse(&[frame::PREFACE, &framed(frame::frame_type::SETTINGS, 0, 0, &[]), &input].concat(), &[7]);
        converse(&input, &[3]);
    }
}
