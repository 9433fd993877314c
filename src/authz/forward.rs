//! Calls that aren't a Check: health and reflection, answered by their tonic services over the same connection.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::future::LocalBoxFuture;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use http_body::{Body as _, Frame};
use tonic::body::Body;

use super::grpc::Framed;

/// Answers calls that aren't a Check.
pub type Others = Rc<dyn Fn(Request<Body>) -> LocalBoxFuture<'static, Response<Body>>>;

/// Answers one call; ends early when the client gives it up.
pub async fn forward(others: Others, request: Request<RecvStream>, mut respond: SendResponse<Framed>) {
    let answering = others(request.map(|body| Body::new(Incoming(body))));
    let mut answering = answering;
    let answered = poll_fn(|context| {
        if respond.poll_reset(context).is_ready() {
            return Poll::Ready(None);
        }
        answering.as_mut().poll(context).map(Some)
    });
    let Some(answer) = answered.await else {
        return;
    };
    let (head, body) = answer.into_parts();
    let ended = body.is_end_stream();
    if let Ok(stream) = respond.send_response(Response::from_parts(head, ()), ended)
        && !ended
    {
        send(body, stream).await;
    }
}

async fn send(mut body: Body, mut stream: SendStream<Framed>) {
    loop {
        let next = poll_fn(|context| {
            if stream.poll_reset(context).is_ready() {
                return Poll::Ready(None);
            }
            Pin::new(&mut body).poll_frame(context).map(Some)
        });
        let sent = match next.await {
            // The client has given up.
            None => return,
            Some(None) => return drop(stream.send_data(Framed::ready(Bytes::new()), true)),
            Some(Some(Err(_))) => return stream.send_reset(Reason::INTERNAL_ERROR),
            Some(Some(Ok(frame))) => match frame.into_data() {
                Ok(mut data) => send_data(data.copy_to_bytes(data.remaining()), &mut stream).await,
                Err(frame) => return drop(stream.send_trailers(frame.into_trailers().unwrap_or_default())),
            },
        };
        if sent.is_none() {
            return;
        }
    }
}

/// Sends data as fast as the client takes it; None when it takes no more.
async fn send_data(mut data: Bytes, stream: &mut SendStream<Framed>) -> Option<()> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = poll_fn(|context| stream.poll_capacity(context)).await?.ok()?;
        let part = data.split_to(room.min(data.len()));
        stream.send_data(Framed::ready(part), false).ok()?;
    }
    Some(())
}

/// The body of a call.
struct Incoming(RecvStream);

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let body = &mut self.0;
        if !body.is_end_stream() {
            match body.poll_data(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(data))) => {
                    let _ = body.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => {}
            }
        }
        let trailers = |trailers: Option<HeaderMap>| trailers.map(Frame::trailers);
        body.poll_trailers(context).map(|read| read.map(trailers).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}
