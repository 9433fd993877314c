//! The fallback service: health and reflection, answered by tonic over the connections of Checks.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Buf;
use futures_util::future::LocalBoxFuture;
use http::{Request, Response};
use http_body::Body as _;
use http2_server::{EndStream, ErrorCode, HeaderBlock, StreamId};
use tonic::Status;
use tonic::body::Body as TonicBody;

use super::fallback_body::IncomingBody;
use super::grpc;
use super::session::SharedSession;

/// Answers the calls that aren't a Check.
pub type FallbackService = Rc<dyn Fn(Request<TonicBody>) -> LocalBoxFuture<'static, Response<TonicBody>>>;

/// Path prefixes of the services that are answered.
const SERVICES: [&[u8]; 3] = [
    b"/grpc.health.v1.Health/",
    b"/grpc.reflection.v1.ServerReflection/",
    b"/grpc.reflection.v1alpha.ServerReflection/",
];
/// Path of the call that stays open until the client ends it.
const WATCH: &[u8] = b"/grpc.health.v1.Health/Watch";
/// Request headers that the service receives; no other matters to it.
pub(super) const HEADERS: [&str; 4] = ["content-type", "te", "grpc-encoding", "grpc-timeout"];
/// Largest message of a call, in bytes: it holds names.
pub const MAX_FALLBACK_MESSAGE: usize = 4 * 1024;
/// Memory that a call takes, in bytes: a buffer of 8 KiB in each direction, tasks, unread chunks.
pub(super) const FALLBACK_COST: usize = 24 * 1024;

/// The kind of a call, by its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallKind {
    /// One message, answered at once.
    Unary,
    /// One message, and responses for as long as the client likes.
    Watch,
    /// Messages that are answered one by one.
    Streaming,
}

impl CallKind {
    /// Returns the kind of the call that a path names; None when no service has the path.
    pub(super) fn of_path(path: &[u8]) -> Option<Self> {
        let service = SERVICES.iter().position(|service| path.starts_with(service))?;
        Some(match service {
            0 if path == WATCH => Self::Watch,
            0 => Self::Unary,
            _ => Self::Streaming,
        })
    }
}

/// Answers one call within a deadline; dropped, it ends the call.
pub(super) async fn call(
    service: FallbackService,
    request: Request<IncomingBody>,
    id: StreamId,
    session: Rc<SharedSession>,
    deadline: Duration,
) {
    let mut has_begun = false;
    let answering = answer(service, request, id, &session, &mut has_begun);
    if tokio::time::timeout(deadline, answering).await.is_err() {
        let status = Status::deadline_exceeded("the call took too long");
        session.with(|session| match has_begun {
            true => session.end_stream(id, EndStream::Trailers(grpc::trailers(&status))),
            false => session.respond_without_body(id, &grpc::error_response(&status)),
        });
    }
}

/// Sends the response of a call frame by frame. Sets `has_begun` once its headers are sent.
async fn answer(
    service: FallbackService,
    request: Request<IncomingBody>,
    id: StreamId,
    session: &SharedSession,
    has_begun: &mut bool,
) {
    let response = service(request.map(TonicBody::new)).await;
    let (head, mut body) = response.into_parts();
    let head = HeaderBlock::response(head.status, &head.headers);
    if body.is_end_stream() {
        return session.with(|session| session.respond_without_body(id, &head));
    }
    session.with(|session| session.send_headers(id, &head));
    *has_begun = true;
    loop {
        match poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            None => return session.with(|session| session.end_stream(id, EndStream::Data)),
            Some(Err(_)) => return session.with(|session| session.reset(id, ErrorCode::InternalError)),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(mut data) => {
                    session.with(|session| session.send_data(id, data.copy_to_bytes(data.remaining())));
                    session.sent(id).await;
                }
                Err(frame) => {
                    let trailers = HeaderBlock::trailers(&frame.into_trailers().unwrap_or_default());
                    return session.with(|session| session.end_stream(id, EndStream::Trailers(trailers)));
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::fallback_body::channel;
    use super::super::grpc::Message;
    use super::super::limits::ConnectionLimits;
    use super::super::session::StreamState;
    use super::*;
    use futures_util::FutureExt;
    use http2_server::{Event, MemoryAccount, MemoryLimits, MemoryPermit, MemoryPool, Session};

    /// A connection with one stream.
    fn session() -> (Rc<SharedSession>, StreamId) {
        let limits = ConnectionLimits {
            max_concurrent_streams: 1,
            max_header_list_size: 1_000,
            abuse_budget: 10,
            max_pending: 10_000,
            ..ConnectionLimits::default()
        };
        let mut session = Session::new(limits.of_session());
        let input =
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x03\x01\x05\0\0\0\x01\x83\x86\x84";
        let (mut taken, mut id) = (0, 0);
        while let Ok(Some((count, event))) = session.receive(&input[taken..]) {
            taken += count;
            if let Some(Event::Request(incoming)) = event {
                let memory = MemoryLimits { connection: 0, guaranteed: 0, process: 0 };
                let account = Rc::new(MemoryAccount::new(Arc::new(MemoryPool::new(memory))));
                let (message, permit) = (Message::default(), MemoryPermit::new(account));
                id = session.accept(incoming, StreamState::Receiving { message, permit });
            }
        }
        (Rc::new(SharedSession::new(session)), id)
    }

    /// Returns the octets that a client is sent within a moment.
    async fn output(service: FallbackService) -> Vec<u8> {
        let (session, id) = session();
        let (_sender, incoming) = channel();
        let moment = Duration::from_millis(20);
        call(service, Request::new(incoming), id, Rc::clone(&session), moment).await;
        session.with(|session| {
            assert!(session.stream_mut(id).is_none(), "the stream has ended");
            session.output().to_vec()
        })
    }

    fn has_deadline_exceeded(output: &[u8]) -> bool {
        output.windows(14).any(|part| part == b"\x0bgrpc-status\x014")
    }

    #[tokio::test]
    async fn a_call_ends_at_its_deadline_whether_its_response_has_begun_or_not() {
        assert!(has_deadline_exceeded(&output(Rc::new(|_| std::future::pending().boxed_local())).await));
        let (_sender, endless) = channel();
        let endless = std::cell::RefCell::new(Some(endless));
        let begins: FallbackService = Rc::new(move |_| {
            let body = endless.borrow_mut().take().expect("one call");
            std::future::ready(Response::new(TonicBody::new(body))).boxed_local()
        });
        assert!(has_deadline_exceeded(&output(begins).await));
    }

    #[test]
    fn paths_tell_the_kinds_of_calls() {
        for (path, kind) in [
            ("/grpc.health.v1.Health/Check", Some(CallKind::Unary)),
            ("/grpc.health.v1.Health/Watch", Some(CallKind::Watch)),
            ("/grpc.health.v1.Health/Nothing", Some(CallKind::Unary)),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Some(CallKind::Streaming)),
            ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Some(CallKind::Streaming)),
            ("/grpc.health.v1.Healthy/Check", None),
            ("/envoy.service.auth.v3.Authorization/Nothing", None),
            ("", None),
        ] {
            assert_eq!(CallKind::of_path(path.as_bytes()), kind, "{path}");
        }
    }
}
