//! One HTTP/2 connection of the authz plane, from Envoy's first byte to its end.
//!
//! Envoy sends all Checks of a worker over one connection. Those that memory can answer are answered where they are
//! read, in the connection's own task: no other task, no queue, and one write for all that came in together. What has
//! to wait, for the rest of a message or for the database, gets a task of its own and holds nobody up.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Ping, PingPong, RecvStream};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::forward::{self, Others};
use super::gathered::{Gathered, Outlet, gather};
use super::grpc::{Framed, Message, answer_head, is_call, ok_trailers, status_alone};
use super::server::{Plane, SERVICE_NAME};

/// What a client may take of us.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// For the connection's first bytes, and for the message of a call.
    pub patience: Duration,
    /// How long it may be silent before it is asked whether it is still there.
    pub silence: Duration,
    /// How long it may take to say so.
    pub pong: Duration,
    /// Most calls at once.
    pub streams: u32,
    /// Most calls that were given up before we read them.
    pub cancelled: usize,
    /// Largest head of a call, in bytes.
    pub head: u32,
    /// How long calls under way may take once the connection is to end.
    pub drain: Duration,
}

/// Most streams that may end in an error of the client's own making.
const MAX_FAULTS: usize = 1_024;
/// Bytes of messages that the connection may have on their way to us.
const WINDOW: u32 = 1 << 20;
/// Bytes of messages that are held for a connection because they aren't complete.
const MOST_HELD: usize = 64 << 20;

/// What all connections of a thread have in common.
pub struct Server {
    /// Decides.
    pub plane: Rc<Plane>,
    /// Answers what isn't a Check.
    pub others: Others,
    /// For every connection.
    pub bounds: Bounds,
    /// When all of them are to end.
    pub stop: CancellationToken,
}

type Respond = SendResponse<Framed>;
type Checking = LocalBoxFuture<'static, Result<Bytes, Status>>;

/// Serves a connection to its end, which is its client's business: there is nothing to be told about it. After `age`
/// the client is asked to open another one.
pub async fn serve<S>(server: Rc<Server>, stream: S, age: Option<Duration>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (gathered, outlet) = gather(stream);
    let bounds = server.bounds;
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(bounds.streams)
        .max_header_list_size(bounds.head)
        .max_pending_accept_reset_streams(bounds.cancelled)
        .max_local_error_reset_streams(Some(MAX_FAULTS))
        .initial_connection_window_size(WINDOW);
    let mut shaking_hands = pin!(builder.handshake(gathered));
    // Our own settings have to go out before the client's come in.
    let shaken = timeout(
        bounds.patience,
        poll_fn(|context| {
            let shaken = shaking_hands.as_mut().poll(context);
            match outlet.poll_write_out(context) {
                Poll::Ready(Err(_)) => Poll::Ready(None),
                _ => shaken.map(Result::ok),
            }
        }),
    );
    let Ok(Some(mut connection)) = shaken.await else {
        return;
    };
    let pings = connection.ping_pong();
    let silence = Silence::new(pings, bounds);
    let stop = server.stop.clone();
    let held = Rc::new(Cell::new(0));
    let mut open = Open { server, connection, outlet, silence, held };
    let mut stopped = pin!(stop.cancelled());
    let mut aged = pin!(sleep(age.unwrap_or(FAR)));
    let over = poll_fn(|context| {
        let stopped = stopped.as_mut().poll(context).is_ready();
        match stopped || aged.as_mut().poll(context).is_ready() {
            true => Poll::Ready(true),
            false => open.poll(context).map(|()| false),
        }
    });
    let is_to_end = over.await;
    if is_to_end {
        // Calls that are on their way still come; then the client opens another connection, or none.
        open.connection.graceful_shutdown();
        let _ = timeout(bounds.drain, poll_fn(|context| open.poll(context))).await;
    }
}

/// As good as never.
const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);

struct Open<S> {
    server: Rc<Server>,
    connection: Connection<Gathered<S>, Framed>,
    outlet: Outlet<S>,
    silence: Silence,
    /// Bytes held of messages that aren't complete.
    held: Rc<Cell<usize>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Open<S> {
    /// Takes and answers what there is; ready when the connection has ended.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while let Poll::Ready(accepted) = self.connection.poll_accept(context) {
            let Some(Ok((request, respond))) = accepted else {
                let _ = self.outlet.poll_write_out(context);
                return Poll::Ready(());
            };
            self.silence.is_broken();
            self.take(request, respond, context);
        }
        if let Poll::Ready(Err(_)) = self.outlet.poll_write_out(context) {
            return Poll::Ready(());
        }
        self.silence.poll(context)
    }

    fn take(&self, request: Request<RecvStream>, mut respond: Respond, context: &mut Context<'_>) {
        let (head, mut body) = request.into_parts();
        if let Err(answer) = is_call(&head) {
            let _ = respond.send_response(answer, true);
            return;
        }
        let service = head.uri.path().strip_prefix('/').and_then(|path| path.split_once('/'));
        if service != Some((SERVICE_NAME, "Check")) {
            let request = Request::from_parts(head, body);
            tokio::task::spawn_local(forward::forward(self.server.others.clone(), request, respond));
            return;
        }
        let mut message = Message::default();
        let Poll::Ready(read) = poll_message(&mut message, &mut body, &self.held, context) else {
            let held = Held { of: Rc::clone(&self.held), bytes: message.len() };
            held.of.set(held.of.get() + held.bytes);
            tokio::task::spawn_local(finish(Rc::clone(&self.server), message, body, held, respond));
            return;
        };
        let message = match read.and_then(|()| message.finish()) {
            Ok(message) => message,
            Err(status) => return answer(&mut respond, Err(status)),
        };
        let plane = &self.server.plane;
        if let Some(decided) = plane.check_at_once(&message) {
            return answer(&mut respond, decided);
        }
        tokio::task::spawn_local(unless_reset(Box::pin(Rc::clone(plane).check(message)), respond));
    }
}

/// Reads what there is of a call's message; ready when that is all.
fn poll_message(
    message: &mut Message,
    body: &mut RecvStream,
    held: &Cell<usize>,
    context: &mut Context<'_>,
) -> Poll<Result<(), Status>> {
    loop {
        if body.is_end_stream() {
            return Poll::Ready(Ok(()));
        }
        match body.poll_data(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => return Poll::Ready(Ok(())),
            Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(Status::cancelled("the call was given up"))),
            Poll::Ready(Some(Ok(part))) => {
                let _ = body.flow_control().release_capacity(part.len());
                if held.get() + message.len() + part.len() > MOST_HELD {
                    let problem = "too many messages of this connection are incomplete";
                    return Poll::Ready(Err(Status::resource_exhausted(problem)));
                }
                message.push(part)?;
            }
        }
    }
}

/// One call's share of what is held for its connection.
struct Held {
    of: Rc<Cell<usize>>,
    bytes: usize,
}

impl Held {
    fn now(&mut self, bytes: usize) {
        self.of.set(self.of.get() + bytes - self.bytes);
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.set(self.of.get() - self.bytes);
    }
}

/// Answers a call whose message wasn't all there when it was accepted.
async fn finish(
    server: Rc<Server>,
    mut message: Message,
    mut body: RecvStream,
    mut held: Held,
    mut respond: Respond,
) {
    let reading = poll_fn(|context| {
        let before = message.len();
        // Its own share counts once.
        held.now(0);
        let read = poll_message(&mut message, &mut body, &held.of, context);
        held.now(message.len().max(before));
        read
    });
    let late = || Err(Status::deadline_exceeded("the message took too long"));
    let read = timeout(server.bounds.patience, reading).await.unwrap_or_else(|_| late());
    drop(held);
    match read.and_then(|()| message.finish()) {
        Ok(message) => unless_reset(Box::pin(Rc::clone(&server.plane).check(message)), respond).await,
        Err(status) => answer(&mut respond, Err(status)),
    }
}

/// Answers when it is decided; gives up when the client does.
async fn unless_reset(mut checking: Checking, mut respond: Respond) {
    let decided = poll_fn(|context| {
        if respond.poll_reset(context).is_ready() {
            return Poll::Ready(None);
        }
        checking.as_mut().poll(context).map(Some)
    });
    if let Some(decided) = decided.await {
        answer(&mut respond, decided);
    }
}

/// Sends an answer. Whether the client still wants it is its business.
fn answer(respond: &mut Respond, decided: Result<Bytes, Status>) {
    let framed = decided.and_then(Framed::message);
    let _ = match framed {
        Ok(framed) => respond.send_response(answer_head(), false).and_then(|mut body| {
            body.send_data(framed, false)?;
            body.send_trailers(ok_trailers())
        }),
        Err(status) => respond.send_response(status_alone(&status), true).map(drop),
    };
}

/// Finds out whether a silent client is still there.
struct Silence {
    pings: Option<PingPong>,
    bounds: Bounds,
    /// When there is something to do next.
    timer: Pin<Box<Sleep>>,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    /// Something came since the timer was set.
    Broken,
    Silent,
    /// It was asked.
    Asked,
}

impl Silence {
    fn new(pings: Option<PingPong>, bounds: Bounds) -> Self {
        Self { pings, bounds, timer: Box::pin(sleep(bounds.silence)), state: State::Silent }
    }

    /// Notes that it isn't silent.
    fn is_broken(&mut self) {
        self.state = State::Broken;
    }

    /// Ready when the client is gone.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(pings) = &mut self.pings else {
            return Poll::Pending;
        };
        loop {
            if self.state == State::Asked && pings.poll_pong(context).is_ready() {
                self.state = State::Broken;
            }
            if self.timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            let next = match self.state {
                State::Asked => return Poll::Ready(()),
                State::Broken => {
                    self.state = State::Silent;
                    self.bounds.silence
                }
                State::Silent => {
                    // An error says that the connection ends by itself.
                    let _ = pings.send_ping(Ping::opaque());
                    self.state = State::Asked;
                    self.bounds.pong
                }
            };
            self.timer.as_mut().reset(Instant::now() + next);
        }
    }
}
