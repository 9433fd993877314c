//! Byte streams of connections, and hooks on what is read from them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Both directions of a connection: TCP or a Unix socket, with or without TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Observes the reads of a [`HookedStream`].
pub(super) trait ReadHook {
    /// Says before each read whether the stream has ended for its reader.
    fn has_ended(&mut self, _context: &mut Context<'_>) -> bool {
        false
    }

    /// Receives the bytes of each read.
    fn on_read(&mut self, _bytes: &[u8]) {}
}

/// A stream whose reads pass through a hook. Writes are left alone.
pub(super) struct HookedStream<S, H> {
    stream: S,
    hook: H,
}

impl<S, H> HookedStream<S, H> {
    /// Wraps a stream.
    pub(super) fn new(stream: S, hook: H) -> Self {
        Self { stream, hook }
    }

    /// Returns the hook.
    pub(super) fn hook_mut(&mut self) -> &mut H {
        &mut self.hook
    }
}

impl<S: AsyncRead + Unpin, H: ReadHook + Unpin> AsyncRead for HookedStream<S, H> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, hook } = self.get_mut();
        if hook.has_ended(context) {
            // No bytes mean the end of the stream.
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(stream).poll_read(context, buffer);
        if read.is_ready() {
            hook.on_read(&buffer.filled()[before..]);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin, H: Unpin> AsyncWrite for HookedStream<S, H> {
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
