//! The request body of a fallback call, from the connection's task to the service that reads it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::mpsc;

/// Most bytes of a body that its service hasn't read, overhead counted.
pub(super) const MAX_UNREAD: usize = 5 * 1024;
/// Memory that an unread chunk takes beside its bytes, in bytes.
const CHUNK_COST: usize = 64;

/// Makes both ends of a body.
pub(super) fn channel() -> (RequestBody, IncomingBody) {
    channel_of(MAX_UNREAD)
}

/// Makes both ends of a body of which at most `max_unread` bytes are unread.
pub(super) fn channel_of(max_unread: usize) -> (RequestBody, IncomingBody) {
    let (sender, chunks) = mpsc::unbounded_channel();
    let unread = Arc::new(AtomicUsize::new(0));
    (RequestBody { sender, unread: Arc::clone(&unread), max_unread }, IncomingBody { chunks, unread })
}

/// The end that the client writes to.
pub(super) struct RequestBody {
    sender: mpsc::UnboundedSender<Bytes>,
    unread: Arc<AtomicUsize>,
    max_unread: usize,
}

impl RequestBody {
    /// Appends a chunk; false when too much is unread, and the stream must end.
    pub(super) fn push(&self, chunk: &[u8]) -> bool {
        if chunk.is_empty() {
            return true;
        }
        let unread = self.unread.fetch_add(chunk.len() + CHUNK_COST, Ordering::Relaxed);
        if unread + chunk.len() + CHUNK_COST > self.max_unread {
            return false;
        }
        // A service that reads no more has answered.
        let _ = self.sender.send(Bytes::copy_from_slice(chunk));
        true
    }
}

/// The end that the service reads.
pub(super) struct IncomingBody {
    chunks: mpsc::UnboundedReceiver<Bytes>,
    unread: Arc<AtomicUsize>,
}

impl Body for IncomingBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.chunks.poll_recv(context).map(|chunk| {
            chunk.map(|chunk| {
                self.unread.fetch_sub(chunk.len() + CHUNK_COST, Ordering::Relaxed);
                Ok(Frame::data(chunk))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unread_chunks_are_bounded_with_their_overhead() {
        let (sender, mut incoming) = channel();
        assert!(sender.push(&[0; MAX_UNREAD - CHUNK_COST]) && !sender.push(&[0]));
        let (sender_of_bytes, _incoming) = channel();
        assert!((0..1_000).any(|_| !sender_of_bytes.push(&[0])));
        let mut context = Context::from_waker(std::task::Waker::noop());
        while let Poll::Ready(Some(_)) = Pin::new(&mut incoming).poll_frame(&mut context) {}
        assert!(incoming.unread.load(Ordering::Relaxed) < MAX_UNREAD);
    }
}
