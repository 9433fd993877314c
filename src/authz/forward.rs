//! Calls that aren't a Check: health and reflection, answered by their tonic services over the same connection.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::future::LocalBoxFuture;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use tokio::sync::mpsc;
use tonic::Status;
use tonic::body::Body as TonicBody;

use super::connection::Shared;
use super::grpc;
use crate::http2::{Code, End, StreamId, block};

/// Answers calls that aren't a Check.
pub type Others = Rc<dyn Fn(Request<TonicBody>) -> LocalBoxFuture<'static, Response<TonicBody>>>;

/// Services whose calls are answered here, as paths begin with them.
const SERVICES: [&[u8]; 3] = [
    b"/grpc.health.v1.Health/",
    b"/grpc.reflection.v1.ServerReflection/",
    b"/grpc.reflection.v1alpha.ServerReflection/",
];
/// The call that stays open for what may change.
const WATCH: &[u8] = b"/grpc.health.v1.Health/Watch";
/// Header fields that are handed on: nothing else is a matter of these calls.
pub const HEADERS: [&str; 4] = ["content-type", "te", "grpc-encoding", "grpc-timeout"];
/// Largest message of such a call, in bytes: they are names.
pub const MAX_OTHER_MESSAGE: usize = 4 * 1024;
/// Most that isn't read of such a call, in bytes, overhead counted.
const MAX_UNREAD: usize = 5 * 1024;
/// Memory that a part takes while it isn't read, beside its bytes.
const PART_COST: usize = 64;
/// Memory that such a call takes, in bytes: a buffer of 8 KiB in each direction, tasks, and what
/// isn't read.
pub const OTHER_COST: usize = 24 * 1024;

/// What is known of a call by its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One message that is answered at once.
    Unary,
    /// One message, and answers for as long as the client wants.
    Watch,
    /// Messages that are answered one by one.
    Streaming,
}

impl Kind {
    /// The kind of call that a path names; None when there is no such service.
    pub fn of(path: &[u8]) -> Option<Self> {
        let service = SERVICES.iter().position(|service| path.starts_with(service))?;
        Some(match service {
            0 if path == WATCH => Self::Watch,
            0 => Self::Unary,
            _ => Self::Streaming,
        })
    }
}

/// Answers one call, within a deadline. Whoever ends the call before that drops this.
pub async fn forward(
    others: Others,
    request: Request<Incoming>,
    id: StreamId,
    shared: Rc<Shared>,
    deadline: Duration,
) {
    let mut has_begun = false;
    let answering = answer(others, request, id, &shared, &mut has_begun);
    if tokio::time::timeout(deadline, answering).await.is_err() {
        let status = Status::deadline_exceeded("the call took too long");
        shared.with(|session| match has_begun {
            true => session.end(id, End::Trailers(grpc::trailers(&status).into())),
            false => session.answer_alone(id, &grpc::status_alone(&status)),
        });
    }
}

async fn answer(
    others: Others,
    request: Request<Incoming>,
    id: StreamId,
    shared: &Shared,
    has_begun: &mut bool,
) {
    let answer = others(request.map(TonicBody::new)).await;
    let (head, mut body) = answer.into_parts();
    let head = block(Some(head.status), &head.headers);
    if body.is_end_stream() {
        return shared.with(|session| session.answer_alone(id, &head));
    }
    shared.with(|session| session.begin(id, &head));
    *has_begun = true;
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
    /// Takes a part; false when too much isn't read, which ends the call.
    pub fn take(&self, part: &[u8]) -> bool {
        if part.is_empty() {
            return true;
        }
        let unread = self.unread.fetch_add(part.len() + PART_COST, Ordering::Relaxed);
        if unread + part.len() + PART_COST > MAX_UNREAD {
            return false;
        }
        // Whoever doesn't want to read more has its answer already.
        let _ = self.sender.send(Bytes::copy_from_slice(part));
        true
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
                self.unread.fetch_sub(part.len() + PART_COST, Ordering::Relaxed);
                Ok(Frame::data(part))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::Call;
    use super::super::grpc::Message;
    use super::super::memory::{Account, MemoryLimits, MemoryPool, Share};
    use super::*;
    use crate::http2::{Event, Limits, Session};
    use futures_util::FutureExt;

    /// A connection with one call.
    fn shared() -> (Rc<Shared>, StreamId) {
        let limits = Limits { streams: 1, head: 1_000, unrest: 10, output: 10_000, queued: 10_000 };
        let mut session = Session::new(limits);
        let input =
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x03\x01\x05\0\0\0\x01\x83\x86\x84";
        let (mut taken, mut id) = (0, 0);
        while let Ok(Some((count, event))) = session.receive(&input[taken..]) {
            taken += count;
            if let Some(Event::Opened(opened)) = event {
                let memory = MemoryLimits { connection: 0, guaranteed: 0, process: 0 };
                let share = Share::new(Rc::new(Account::new(Arc::new(MemoryPool::new(memory)))));
                id = session.accept(opened, Call::Check { message: Message::default(), share, ticks: 0 });
            }
        }
        (Rc::new(Shared::new(session)), id)
    }

    /// What the client of a call hears that is answered by this, within a moment.
    async fn hears(others: Others) -> Vec<u8> {
        let (shared, id) = shared();
        let (_sender, incoming) = body();
        let moment = Duration::from_millis(20);
        forward(others, Request::new(incoming), id, Rc::clone(&shared), moment).await;
        shared.with(|session| {
            assert!(session.call(id).is_none(), "the call is over");
            session.output().to_vec()
        })
    }

    fn is_told_so(heard: &[u8]) -> bool {
        heard.windows(14).any(|part| part == b"\x0bgrpc-status\x014")
    }

    #[tokio::test]
    async fn a_call_ends_at_its_deadline_whether_its_answer_has_begun_or_not() {
        assert!(is_told_so(&hears(Rc::new(|_| std::future::pending().boxed_local())).await));
        let (_sender, endless) = body();
        let endless = std::cell::RefCell::new(Some(endless));
        let begins: Others = Rc::new(move |_| {
            let body = endless.borrow_mut().take().expect("one call");
            std::future::ready(Response::new(TonicBody::new(body))).boxed_local()
        });
        assert!(is_told_so(&hears(begins).await));
    }

    #[test]
    fn paths_tell_what_calls_are() {
        for (path, kind) in [
            ("/grpc.health.v1.Health/Check", Some(Kind::Unary)),
            ("/grpc.health.v1.Health/Watch", Some(Kind::Watch)),
            ("/grpc.health.v1.Health/Nothing", Some(Kind::Unary)),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Some(Kind::Streaming)),
            ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Some(Kind::Streaming)),
            ("/grpc.health.v1.Healthy/Check", None),
            ("/envoy.service.auth.v3.Authorization/Nothing", None),
            ("", None),
        ] {
            assert_eq!(Kind::of(path.as_bytes()), kind, "{path}");
        }
    }

    #[test]
    fn what_is_not_read_is_bounded_with_its_overhead() {
        let (sender, mut incoming) = body();
        assert!(sender.take(&[0; MAX_UNREAD - PART_COST]) && !sender.take(&[0]));
        let (sender_of_bytes, _incoming) = body();
        assert!((0..1_000).any(|_| !sender_of_bytes.take(&[0])));
        let mut context = Context::from_waker(std::task::Waker::noop());
        while let Poll::Ready(Some(_)) = Pin::new(&mut incoming).poll_frame(&mut context) {}
        assert!(incoming.unread.load(Ordering::Relaxed) < MAX_UNREAD);
    }
}
