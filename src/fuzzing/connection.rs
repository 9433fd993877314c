//! Frames of a client of the authz plane.

pub(super) use http2_server::contract::check as http2;
#[cfg(test)]
pub(super) use http2_server::contract::seeds;

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
    use http2_server::contract::OPENING;
    use http2_server::{MemoryLimits, MemoryPool};
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
    use tokio_util::sync::CancellationToken;

    use super::super::fixture::fixture;
    use crate::authz::{ConnectionLimits, Server, serve_connection};

    /// A client that always has more to send, and reads everything.
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
            let bytes = OPENING.iter().chain(ping.iter().cycle()).copied();
            let at =
                if read < OPENING.len() { read } else { OPENING.len() + (read - OPENING.len()) % ping.len() };
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
    fn a_client_that_never_stops_sending_leaves_others_their_turn() {
        let minute = Duration::from_secs(60);
        let limits = ConnectionLimits {
            read_timeout: minute,
            keepalive_interval: minute,
            keepalive_timeout: minute,
            max_concurrent_streams: 10,
            abuse_budget: u32::MAX - 1,
            max_header_list_size: 1_000,
            drain_timeout: minute,
            close_timeout: minute,
            write_timeout: minute,
            fallback_timeout: minute,
            watch_timeout: minute,
            max_fallback_streams: 1,
            max_pending: 1_000,
        };
        let memory = MemoryLimits { connection: 1 << 20, guaranteed: 1 << 20, process: 1 << 20 };
        let server = Rc::new(Server {
            authorization: Rc::new(fixture().authorization()),
            fallback: Rc::new(|_| std::future::pending().boxed_local()),
            limits,
            memory: Arc::new(MemoryPool::new(memory)),
            stop: CancellationToken::new(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let read = Rc::new(Cell::new(0));
            let client = Endless { read: Rc::clone(&read) };
            let serving = tokio::task::spawn_local(serve_connection(server, client, None, None));
            // Another task of the same thread, as another connection has.
            let others = tokio::task::spawn_local(async move {
                let mut before = 0;
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                    let turn = read.get() - before;
                    // Tasks that yield are woken in any order: two turns may follow each other.
                    assert!(turn < 2 * 100_000, "{turn} bytes in two turns");
                    before = read.get();
                }
                before
            });
            let read = others.await.expect("the thread is shared");
            assert!(read > 1_000_000, "{read} bytes in all");
            serving.abort();
        });
    }
}
