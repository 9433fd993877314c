//! Ends a connection once its client's certificate is no longer trusted.

use std::pin::Pin;
use std::task::Context;

use super::stream::ReadHook;

/// Ends a stream for its reader once a future resolves.
///
/// Whoever serves the connection then sees that the client has gone, and abandons what it was
/// answering. Reads are the right place for this, not requests: it is the same for every plane and
/// protocol, and it wakes connections that wait for a request.
pub(super) struct EndWhen {
    /// None once it has resolved.
    end: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl EndWhen {
    /// Ends the stream once `end` has resolved.
    pub(super) fn new(end: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { end: Some(Box::pin(end)) }
    }
}

impl ReadHook for EndWhen {
    fn has_ended(&mut self, context: &mut Context<'_>) -> bool {
        if self.end.as_mut().is_some_and(|end| end.as_mut().poll(context).is_ready()) {
            self.end = None;
        }
        self.end.is_none()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::sync::oneshot;

    use super::*;
    use crate::app::stream::HookedStream;

    #[tokio::test]
    async fn reads_end_and_a_waiting_reader_is_woken() {
        let (mut client, server) = duplex(64);
        let (lose, lost) = oneshot::channel::<()>();
        let mut server = HookedStream::new(server, EndWhen::new(async move { drop(lost.await) }));
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
