//! What a client sends over a connection of the authz plane.

use bytes::Bytes;

use crate::http2::{Closed, Event, Limits, Session};

/// What every client sends first: the preface and empty settings.
const FIRST: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Small enough to be reached.
const LIMITS: Limits = Limits { streams: 4, head: 1_024, unrest: 64, output: 50_000, queued: 100_000 };
/// More than a connection may take of memory, whatever it sends.
const MAX_MEMORY: usize = 400_000;
/// What each call is answered with, beside what it has sent.
const ANSWER: Bytes = Bytes::from_static(&[b'a'; 30_000]);

/// Frames: the same is made of them however they are cut, and no window is overrun by what they are
/// answered with.
pub fn http2(data: &[u8]) {
    let Some((cut, frames)) = data.split_first() else {
        return;
    };
    let input = [FIRST, frames].concat();
    let answered = talk(&input, usize::MAX);
    assert_eq!(talk(&input, usize::from(*cut).max(1)), answered, "cut after every {cut} bytes");
    let given =
        i64::from(u16::MAX) + frames_of(&input[FIRST.len() - 9..]).map(|frame| given(&frame)).sum::<i64>();
    let taken =
        frames_of(&answered).filter(|frame| frame.kind == 0).map(|frame| frame.payload.len()).sum::<usize>();
    assert!(taken as i64 <= given, "{taken} bytes of answers, and windows of {given}");
    // A client gets at most its answers, and little for each frame beside them.
    assert!(answered.len() < 1_000 + 40_000 * input.len(), "{} bytes for {}", answered.len(), input.len());
}

/// What a session says of input that comes in pieces of so many bytes, each call being answered
/// when it is complete.
fn talk(input: &[u8], piece: usize) -> Vec<u8> {
    let mut session: Session<usize> = Session::new(LIMITS);
    let mut output = vec![];
    let mut end = 0;
    let mut taken = 0;
    while end < input.len() {
        end = end.saturating_add(piece).min(input.len());
        loop {
            match session.receive(&input[taken..end]) {
                Err(Closed) => {
                    write_out(&mut session, &mut output);
                    return output;
                }
                Ok(None) if session.is_output_full() => write_out(&mut session, &mut output),
                Ok(None) => break,
                Ok(Some((count, event))) => {
                    taken += count;
                    answer(&mut session, event);
                }
            }
            assert!(session.output().len() < LIMITS.output + 40_000, "more is to be written than may be");
            assert!(session.memory() < MAX_MEMORY, "{} bytes are held", session.memory());
        }
    }
    write_out(&mut session, &mut output);
    output
}

/// Takes all output away, and what follows it.
fn write_out(session: &mut Session<usize>, output: &mut Vec<u8>) {
    while !session.output().is_empty() {
        output.extend_from_slice(session.output());
        session.wrote(session.output().len(), 0);
    }
}

fn answer(session: &mut Session<usize>, event: Option<Event<'_>>) {
    let (id, ended) = match event {
        None => return,
        Some(Event::Opened(opened)) => {
            let ended = opened.ended();
            (session.accept(opened, 0), ended)
        }
        Some(Event::Data { id, data, ended }) => {
            *session.call(id).expect("data is some call's") += data.len();
            (id, ended)
        }
    };
    if ended {
        let length = *session.call(id).expect("a call that isn't answered");
        session.answer(id, b"\x88", &length.to_be_bytes(), ANSWER, b"\x00\x01a\x01b");
    }
}

struct Frame<'i> {
    kind: u8,
    stream: u32,
    payload: &'i [u8],
}

/// The frames of `input`, up to one that isn't whole.
fn frames_of(mut input: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let &[a, b, c, kind, _, s, t, u, v] = input.first_chunk::<9>()?;
        let end = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
        let payload = input.get(9..end)?;
        input = &input[end..];
        Some(Frame { kind, stream: u32::from_be_bytes([s, t, u, v]) & 0x7fff_ffff, payload })
    })
}

/// How much more of answers a frame of the client allows for.
fn given(frame: &Frame<'_>) -> i64 {
    match (frame.kind, frame.stream, frame.payload.try_into()) {
        (8, 0, Ok(increment)) => i64::from(u32::from_be_bytes(increment) & 0x7fff_ffff),
        _ => 0,
    }
}

#[cfg(test)]
pub fn seeds() -> Vec<Vec<u8>> {
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
    };
    // POST /a by http: an index, an index, a literal.
    let head = |path: &[u8]| [&[0x83, 0x86, 0x04, path.len() as u8], path].concat();
    // With a field that is kept, in Huffman's code; and the same once more, by its index.
    let kept = [
        &head(b"/a")[..],
        b"\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf",
    ]
    .concat();
    let again = [&head(b"/b")[..], &[0xbe]].concat();
    let (end, whole) = (0x01, 0x04);
    [
        vec![frame(1, whole, 1, &kept), frame(0, end, 1, b"hello"), frame(1, whole | end, 3, &again)],
        vec![
            frame(1, end, 1, &head(b"/a")[..3]),
            frame(9, 0, 1, &head(b"/a")[3..5]),
            frame(9, whole, 1, &head(b"/a")[5..]),
            frame(8, 0, 0, &[0, 1, 0, 0]),
            frame(8, 0, 1, &[0, 0, 1, 0]),
        ],
        // Small windows, padding, a priority, a ping, and trailers.
        vec![
            frame(4, 0, 0, &[0, 4, 0, 0, 0, 9]),
            frame(1, whole | 0x28, 1, &[&[2, 0, 0, 0, 0, 7][..], &head(b"/c"), &[0, 0]].concat()),
            frame(0, 0x08, 1, &[3, 1, 2, 0, 0, 0]),
            frame(6, 0, 0, b"whatever"),
            frame(1, whole | end, 1, b"\x00\x01x\x01y"),
            frame(8, 0, 1, &[0, 0, 0, 5]),
            frame(4, 0, 0, &[0, 4, 0, 1, 0, 0]),
            frame(3, 0, 1, &[0, 0, 0, 8]),
        ],
        // A table that is made smaller, a head that is too large, a goodbye.
        vec![
            frame(1, whole | end, 1, &[&[0x3f, 0x29][..], &kept].concat()),
            frame(1, whole | end, 3, &[&again[..], b"\x00\x01x\x7f\x80\x08", &[b'v'; 1_151]].concat()),
            frame(7, 0, 0, &[0; 8]),
        ],
    ]
    .iter()
    .map(|frames| [&[5][..], &frames.concat()].concat())
    .collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io;
    use std::pin::Pin;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
    use tokio_util::sync::CancellationToken;

    use super::super::fixture::fixture;
    use super::*;
    use crate::authz::{Bounds, MemoryLimits, MemoryPool, Server, serve_connection};

    /// A client that has always something more to send, and takes whatever it is sent.
    struct Endless {
        read: Rc<Cell<usize>>,
    }

    impl AsyncRead for Endless {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let ping = b"\0\0\x08\x06\0\0\0\0\0whatever";
            let read = self.read.get();
            let bytes = FIRST.iter().chain(ping.iter().cycle()).copied();
            let at = if read < FIRST.len() { read } else { FIRST.len() + (read - FIRST.len()) % ping.len() };
            let part: Vec<u8> = bytes.skip(at).take(buffer.remaining()).collect();
            self.read.set(read + part.len());
            buffer.put_slice(&part);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Endless {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_client_that_sends_without_end_leaves_the_others_their_turn() {
        let minute = Duration::from_secs(60);
        let bounds = Bounds {
            patience: minute,
            silence: minute,
            pong: minute,
            streams: 10,
            unrest: u32::MAX - 1,
            head: 1_000,
            drain: minute,
            last_words: minute,
            untaken: minute,
            call: minute,
            watch: minute,
            others: 1,
            queued: 1_000,
        };
        let limits = MemoryLimits { connection: 1 << 20, guaranteed: 1 << 20, process: 1 << 20 };
        let server = Rc::new(Server {
            plane: Rc::new(fixture().plane()),
            others: Rc::new(|_| std::future::pending().boxed_local()),
            bounds,
            memory: Arc::new(MemoryPool::new(limits)),
            stop: CancellationToken::new(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let read = Rc::new(Cell::new(0));
            let client = Endless { read: Rc::clone(&read) };
            let serving = tokio::task::spawn_local(serve_connection(server, client, None));
            // Another task of the same thread, as another connection is.
            let others = tokio::task::spawn_local(async move {
                let mut before = 0;
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                    let turn = read.get() - before;
                    // Whoever yields is woken in any order: two turns may follow each other.
                    assert!(turn < 2 * 100_000, "{turn} bytes in two turns");
                    before = read.get();
                }
                before
            });
            let read = others.await.expect("nobody takes all of the thread");
            assert!(read > 1_000_000, "{read} bytes in all");
            serving.abort();
        });
    }
}
