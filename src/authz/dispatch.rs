//! Dispatch of a connection's streams: to the authorization service, or to the fallback service.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http2_server::{
    ErrorCode, IncomingStream, MemoryAccount, MemoryPermit, MemoryPool, RequestHead, Session, StreamId,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::attributes::Attributes;
use super::check_answer::CheckAnswer;
use super::edge;
use super::fallback::{self, CallKind, FALLBACK_COST, FallbackService, HEADERS};
use super::fallback_body;
use super::grpc::{self, Message, MessageError};
use super::limits::ConnectionLimits;
use super::server::AuthorizationService;
use super::session::{SharedSession, StreamState};
use crate::telemetry::connections::StreamRefusal;

/// Memory that a Check takes while it waits, in bytes, beside its message and the lists of its
/// fields.
const WAITING_COST: usize = 7 * 1024;

/// The services and limits that all connections of a thread share.
pub struct Server {
    /// Answers Checks.
    pub authorization: Rc<AuthorizationService>,
    /// Answers all other calls.
    pub fallback: FallbackService,
    /// The limits of each connection.
    pub limits: ConnectionLimits,
    /// The memory that all connections of the process share.
    pub memory: Arc<MemoryPool>,
    /// Cancelled when all connections are to end.
    pub stop: CancellationToken,
}

/// Dispatches the streams of one connection.
pub(super) struct Dispatcher {
    server: Rc<Server>,
    session: Rc<SharedSession>,
    account: Rc<MemoryAccount>,
    /// Cloned by each stream of the fallback service, which counts them.
    fallback_streams: Rc<()>,
    /// Cloned by each stream to a module, which counts them.
    module_streams: Rc<()>,
    /// User id of the peer's process; only on a Unix socket.
    peer_uid: Option<u32>,
}

impl Dispatcher {
    /// Makes the dispatcher of a connection that has no stream yet.
    pub(super) fn new(server: Rc<Server>, session: Rc<SharedSession>, peer_uid: Option<u32>) -> Self {
        let account = Rc::new(MemoryAccount::new(Arc::clone(&server.memory)));
        let (fallback_streams, module_streams) = (Rc::default(), Rc::default());
        Self { server, session, account, fallback_streams, module_streams, peer_uid }
    }

    /// Returns whether a stream to a module is open.
    pub(super) fn serves_module(&self) -> bool {
        Rc::strong_count(&self.module_streams) > 1
    }

    /// Returns the memory account of the connection.
    pub(super) fn account(&self) -> &MemoryAccount {
        &self.account
    }

    /// Accepts or rejects a new stream.
    pub(super) fn on_request(&self, session: &mut Session<StreamState>, incoming: IncomingStream) {
        let head = session.request_head();
        if let Err(response) = grpc::check_request(head) {
            return session.reject(&incoming, &response);
        }
        if head.path() == grpc::CHECK {
            let permit = MemoryPermit::new(Rc::clone(&self.account));
            let end_stream = incoming.end_stream();
            let id = session.accept(incoming, StreamState::Receiving { message: Message::default(), permit });
            if end_stream {
                self.on_data(session, id, &[], true);
            }
            return;
        }
        if head.path() == edge::CONNECT {
            match self.connect_module(&incoming) {
                Ok(state) => drop(session.accept_streaming(incoming, state)),
                Err(status) => session.reject(&incoming, &grpc::error_response(&status)),
            }
            return;
        }
        let Some(kind) = CallKind::of_path(head.path()) else {
            let status = Status::unimplemented("there is no such method");
            return session.reject(&incoming, &grpc::error_response(&status));
        };
        match (self.fall_back(kind, head, &incoming), kind) {
            (Ok(state), CallKind::Streaming) => {
                session.accept_streaming(incoming, state);
            }
            (Ok(state), CallKind::Unary | CallKind::Watch) => {
                session.accept(incoming, state);
            }
            (Err(status), _) => session.reject(&incoming, &grpc::error_response(&status)),
        }
    }

    /// Starts the stream to a module in Envoy.
    fn connect_module(&self, incoming: &IncomingStream) -> Result<StreamState, Status> {
        let stream = edge::admit(&self.server.authorization, self.peer_uid)?;
        let mut permit = MemoryPermit::new(Rc::clone(&self.account));
        if !permit.grow(edge::STREAM_COST) {
            return Err(self.exhausted(StreamRefusal::Memory));
        }
        let (body, incoming_body) = fallback_body::channel_of(edge::MAX_UNREAD);
        let (session, stop) = (Rc::clone(&self.session), self.server.stop.clone());
        let serving = stream.serve(incoming_body, (incoming.id(), session), stop);
        Ok(StreamState::Fallback {
            body: (!incoming.end_stream()).then_some(body),
            _permit: permit,
            _counted: Rc::clone(&self.module_streams),
            _task: AbortOnDropHandle::new(tokio::task::spawn_local(serving)),
        })
    }

    /// Starts a call of the fallback service.
    fn fall_back(
        &self,
        kind: CallKind,
        head: &RequestHead,
        incoming: &IncomingStream,
    ) -> Result<StreamState, Status> {
        let limits = self.server.limits;
        if Rc::strong_count(&self.fallback_streams) > limits.max_fallback_streams as usize {
            return Err(self.exhausted(StreamRefusal::FallbackStreams));
        }
        let mut permit = MemoryPermit::new(Rc::clone(&self.account));
        if !permit.grow(FALLBACK_COST) {
            return Err(self.exhausted(StreamRefusal::Memory));
        }
        let request = head
            .to_request(&HEADERS)
            .ok_or_else(|| Status::internal("the head of the call isn't a valid HTTP request"))?;
        let deadline = if kind == CallKind::Watch { limits.watch_timeout } else { limits.fallback_timeout };
        let (body, incoming_body) = fallback_body::channel();
        let request = request.map(|()| incoming_body);
        let (service, session) = (Rc::clone(&self.server.fallback), Rc::clone(&self.session));
        let calling = fallback::call(service, request, incoming.id(), session, deadline);
        Ok(StreamState::Fallback {
            body: (!incoming.end_stream()).then_some(body),
            _permit: permit,
            _counted: Rc::clone(&self.fallback_streams),
            _task: AbortOnDropHandle::new(tokio::task::spawn_local(calling)),
        })
    }

    /// Counts a refusal, and returns the status that the client is sent.
    fn exhausted(&self, why: StreamRefusal) -> Status {
        self.server.authorization.stream_refused(why, 1);
        Status::resource_exhausted(match why {
            StreamRefusal::FallbackStreams => "too many calls of this connection are open",
            _ => "this connection holds too much memory",
        })
    }

    /// Receives a part of a stream's message.
    pub(super) fn on_data(
        &self,
        session: &mut Session<StreamState>,
        id: StreamId,
        data: &[u8],
        end_stream: bool,
    ) {
        match session.stream_mut(id) {
            Some(StreamState::Receiving { message, .. }) if end_stream && message.is_empty() => {
                self.on_message(session, id, data);
            }
            Some(StreamState::Receiving { message, permit }) => {
                let pushed = match permit.grow(message.growth(data.len())) {
                    true => message.push(data).map_err(|error| self.unreadable(error)),
                    false => Err(self.exhausted(StreamRefusal::Memory)),
                };
                if let Err(status) = pushed {
                    return respond(session, id, Err(status));
                }
                if end_stream {
                    let octets = std::mem::take(message).finish();
                    self.on_message(session, id, &octets);
                }
            }
            Some(StreamState::Fallback { body, .. }) => {
                let has_room = body.as_ref().is_none_or(|body| body.push(data));
                if end_stream {
                    *body = None;
                }
                if !has_room {
                    self.server.authorization.stream_refused(StreamRefusal::UnreadBody, 1);
                    session.reset(id, ErrorCode::EnhanceYourCalm);
                }
            }
            // The message was complete before.
            Some(StreamState::Checking { .. }) | None => {}
        }
    }

    /// Answers a Check from its complete body.
    fn on_message(&self, session: &mut Session<StreamState>, id: StreamId, body: &[u8]) {
        match grpc::message(body) {
            Ok(message) => self.check(session, id, message),
            Err(error) => respond(session, id, Err(self.unreadable(error))),
        }
    }

    /// Counts a message that is too large, and returns the status that the client is sent.
    fn unreadable(&self, error: MessageError) -> Status {
        if error == MessageError::TooLarge {
            self.server.authorization.message_too_large();
        }
        error.into()
    }

    fn check(&self, session: &mut Session<StreamState>, id: StreamId, message: &[u8]) {
        if let Some(answer) = self.server.authorization.check_cached(message) {
            return respond(session, id, answer);
        }
        let mut permit = MemoryPermit::new(Rc::clone(&self.account));
        let lists = Attributes::decode(message).map_or(0, |attributes| attributes.lists_size());
        if !permit.grow(WAITING_COST + message.len() + lists) {
            return respond(session, id, Err(self.exhausted(StreamRefusal::Memory)));
        }
        let checking = Rc::clone(&self.server.authorization).check(Bytes::copy_from_slice(message));
        let shared = Rc::clone(&self.session);
        let task = tokio::task::spawn_local(async move {
            let answer = Box::pin(checking).await;
            shared.with(|session| respond(session, id, answer));
        });
        if let Some(state) = session.stream_mut(id) {
            *state = StreamState::Checking { _permit: permit, _task: AbortOnDropHandle::new(task) };
        }
    }

    /// Counts streams that the session reset because their responses found no room.
    pub(super) fn count_overflows(&self, session: &mut Session<StreamState>) {
        let overflows = session.take_overflows();
        if overflows > 0 {
            self.server.authorization.stream_refused(StreamRefusal::PendingResponses, overflows);
        }
    }
}

/// Sends a response, if the stream is still open.
pub(super) fn respond(session: &mut Session<StreamState>, id: StreamId, answer: Result<CheckAnswer, Status>) {
    match answer.and_then(|message| Ok((grpc::prefix(message.len())?, message))) {
        Ok((prefix, message)) => {
            let body = (&prefix[..], message.len());
            session.respond(id, &grpc::RESPONSE_HEAD, body, |out| message.write(out), &grpc::OK_TRAILERS);
        }
        Err(status) => session.respond_without_body(id, &grpc::error_response(&status)),
    }
}
