//! A connection that ends once its client's certificate isn't trusted any more.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream of which nothing more is read once `lost` has resolved: to whoever serves it, the
/// client has gone.
///
/// What was being answered then isn't answered any more. Reading, not each request, is the place
/// for it: it is the same for all planes and protocols, and wakes connections that wait for a
/// request.
pub struct Rechecked<S> {
    stream: S,
    /// None once it has resolved.
    lost: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<S> Rechecked<S> {
    /// Wraps a stream.
    pub fn new(stream: S, lost: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { stream, lost: Some(Box::pin(lost)) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rechecked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.lost.as_mut().is_some_and(|lost| lost.as_mut().poll(context).is_ready()) {
            self.lost = None;
        }
        match self.lost {
            // As many bytes as at the end of a stream.
            None => Poll::Ready(Ok(())),
            Some(_) => Pin::new(&mut self.stream).poll_read(context, into),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rechecked<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn nothing_is_read_any_more_and_who_waits_is_woken() {
        let (mut client, server) = duplex(64);
        let (lose, lost) = oneshot::channel::<()>();
        let mut server = Rechecked::new(server, async move { drop(lost.await) });
        let mut bytes = [0; 5];
        client.write_all(b"first").await.unwrap();
        server.read_exact(&mut bytes).await.unwrap();
        let (read, ()) = tokio::join!(server.read(&mut bytes), async { lose.send(()).unwrap() });
        assert_eq!(read.unwrap(), 0);
        client.write_all(b"more").await.unwrap();
        assert_eq!(server.read(&mut bytes).await.unwrap(), 0);
        server.write_all(b"said").await.unwrap();
        client.read_exact(&mut bytes[..4]).await.unwrap();
        assert_eq!(&bytes[..4], b"said");
    }
}
