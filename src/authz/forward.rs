//! Calls that aren't a Check: health and reflection, answered by their tonic services over the same connection.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::future::LocalBoxFuture;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use tokio::sync::mpsc;
use tonic::body::Body as TonicBody;

use super::connection::Shared;
use crate::http2::{Code, End, StreamId, block};

/// Answers calls that aren't a Check.
pub type Others = Rc<dyn Fn(Request<TonicBody>) -> LocalBoxFuture<'static, Response<TonicBody>>>;

/// Answers one call. Whoever ends the call before that drops this.
pub async fn forward(others: Others, request: Request<Incoming>, id: StreamId, shared: Rc<Shared>) {
    let answer = others(request.map(TonicBody::new)).await;
    let (head, mut body) = answer.into_parts();
    let head = block(Some(head.status), &head.headers);
    if body.is_end_stream() {
        return shared.with(|session| session.answer_alone(id, &head));
    }
    shared.with(|session| session.begin(id, &head));
    loop {
        match poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            None => return shared.with(|session| session.end(id, End::Bare)),
            Some(Err(_)) => return shared.with(|session| session.reset(id, Code::Internal)),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(mut data) => {
                    shared.with(|session| session.send(id, data.copy_to_bytes(data.remaining())));
                    shared.sent(id).await;
                }
                Err(frame) => {
                    let trailers = block(None, &frame.into_trailers().unwrap_or_default());
                    return shared.with(|session| session.end(id, End::Trailers(trailers.into())));
                }
            },
        }
    }
}

/// Both ends of a call's body.
pub fn body() -> (Body, Incoming) {
    let (sender, parts) = mpsc::unbounded_channel();
    let unread = Arc::new(AtomicUsize::new(0));
    (Body { sender, unread: Arc::clone(&unread) }, Incoming { parts, unread })
}

/// The end that the client writes to.
pub struct Body {
    sender: mpsc::UnboundedSender<Bytes>,
    unread: Arc<AtomicUsize>,
}

impl Body {
    /// Takes a part; false when more than `most` bytes aren't read.
    pub fn take(&self, part: &[u8], most: usize) -> bool {
        if part.is_empty() {
            return true;
        }
        let unread = self.unread.fetch_add(part.len(), Ordering::Relaxed) + part.len();
        // Whoever doesn't want to read more has its answer already.
        let _ = self.sender.send(Bytes::copy_from_slice(part));
        unread <= most
    }
}

/// The end that the service reads.
pub struct Incoming {
    parts: mpsc::UnboundedReceiver<Bytes>,
    unread: Arc<AtomicUsize>,
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.parts.poll_recv(context).map(|part| {
            part.map(|part| {
                self.unread.fetch_sub(part.len(), Ordering::Relaxed);
                Ok(Frame::data(part))
            })
        })
    }
}
