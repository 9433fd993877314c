//! Writes of a connection, gathered until it has nothing more to say for the moment.
//!
//! An answer is three frames, and several answers are often ready at once. Over TCP a system call costs more than all
//! that we do to make an answer, so whatever one look at the connection produced goes out in one plain write.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// So much may wait to be written before the connection has to wait itself, in bytes.
const MOST: usize = 64 * 1024;
/// So much memory is kept for what comes next, in bytes: more than sixteen answers take.
const KEPT: usize = 32 * 1024;

/// The stream as the connection sees it: whatever it writes is taken, and said to be flushed.
pub struct Gathered<S>(Rc<RefCell<Inner<S>>>);

/// The same stream, for whoever decides when it is time to write.
pub struct Outlet<S>(Rc<RefCell<Inner<S>>>);

struct Inner<S> {
    stream: S,
    waiting: Vec<u8>,
    /// How much of `waiting` is written.
    written: usize,
}

/// Both ends of a gathered stream.
pub fn gather<S>(stream: S) -> (Gathered<S>, Outlet<S>) {
    let inner = Rc::new(RefCell::new(Inner { stream, waiting: vec![], written: 0 }));
    (Gathered(Rc::clone(&inner)), Outlet(inner))
}

impl<S: AsyncWrite + Unpin> Inner<S> {
    fn poll_write_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while self.written < self.waiting.len() {
            let rest = &self.waiting[self.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        self.waiting.clear();
        self.waiting.shrink_to(KEPT);
        self.written = 0;
        Pin::new(&mut self.stream).poll_flush(context)
    }
}

impl<S: AsyncWrite + Unpin> Outlet<S> {
    /// Writes what has been gathered.
    ///
    /// # Errors
    /// When the other end takes no more.
    pub fn poll_write_out(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_write_out(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        if inner.waiting.len() >= MOST {
            ready!(inner.poll_write_out(context))?;
        }
        inner.waiting.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_write_out(context))?;
        Pin::new(&mut inner.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn nothing_goes_out_before_it_is_time_and_all_of_it_then() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let (mut gathered, outlet) = gather(ours);
        for part in ["one", "two", "three"] {
            gathered.write_all(part.as_bytes()).await.unwrap();
            gathered.flush().await.unwrap();
        }
        assert_eq!(outlet.0.borrow().waiting, b"onetwothree");
        poll_fn(|context| outlet.poll_write_out(context)).await.unwrap();
        let mut read = [0; 11];
        theirs.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"onetwothree");
    }

    #[tokio::test]
    async fn who_does_not_read_is_waited_for() {
        let (ours, mut theirs) = tokio::io::duplex(1_000);
        let (mut gathered, _outlet) = gather(ours);
        let sent = vec![7; 200_000];
        let writing = async {
            for part in sent.chunks(16_000) {
                gathered.write_all(part).await.unwrap();
                assert!(gathered.0.borrow().waiting.len() <= MOST + 16_000);
            }
            gathered.shutdown().await.unwrap();
        };
        let mut read = Vec::new();
        let (_, read_all) = tokio::join!(writing, theirs.read_to_end(&mut read));
        read_all.unwrap();
        assert_eq!(read, sent);
    }
}
