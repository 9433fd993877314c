//! Limits what a client may send in a TLS handshake.

use std::task::Context;

use super::limits::MAX_TLS_HANDSHAKE;
use super::stream::ReadHook;

/// Ends a stream for its reader after [`MAX_TLS_HANDSHAKE`] bytes, until the handshake is complete.
///
/// Messages of a handshake stay in memory until their last byte. They take the place of the memory
/// that each connection is guaranteed and doesn't use yet, so that no pool must count them.
pub(super) struct HandshakeLimit {
    /// Bytes that may still be read; None once the handshake is complete.
    left: Option<usize>,
}

impl HandshakeLimit {
    /// Starts with a handshake.
    pub(super) fn new() -> Self {
        Self { left: Some(MAX_TLS_HANDSHAKE) }
    }

    /// Returns true if the handshake was ended because it is too large.
    pub(super) fn is_reached(&self) -> bool {
        self.left == Some(0)
    }

    /// Says that the handshake is complete.
    pub(super) fn complete(&mut self) {
        self.left = None;
    }
}

impl ReadHook for HandshakeLimit {
    fn has_ended(&mut self, _: &mut Context<'_>) -> bool {
        self.is_reached()
    }

    fn on_read(&mut self, bytes: &[u8]) {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::app::stream::HookedStream;

    #[tokio::test]
    async fn a_handshake_is_limited_and_what_follows_it_is_not() {
        const MORE: usize = MAX_TLS_HANDSHAKE + 100;
        for is_complete in [false, true] {
            let (mut client, server) = duplex(2 * MORE);
            let mut server = HookedStream::new(server, HandshakeLimit::new());
            if is_complete {
                server.hook_mut().complete();
            }
            client.write_all(&[7; MORE]).await.unwrap();
            drop(client);
            let (mut read, mut bytes) = (0, [0; 4_096]);
            while let count @ 1.. = server.read(&mut bytes).await.unwrap() {
                read += count;
            }
            assert_eq!(read, if is_complete { MORE } else { MAX_TLS_HANDSHAKE });
        }
    }
}
