//! One HTTP/2 connection of the authz plane, from Envoy's first byte to its end.
//!
//! Envoy sends all Checks of a worker over one connection. Those that memory can answer are answered where they are
//! read, in the connection's own task: no other task, no queue, no copy, and one write for all that came in together.
//! What has to wait, for the rest of a message or for the database, gets a task of its own and holds nobody up.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::forward::{self, Body, HEADERS, Kind, OTHER_COST, Others};
use super::grpc::{self, Message};
use super::memory::{Account, MemoryPool, Share};
use super::server::Plane;
use super::silence::Silence;
use crate::http2::{Closed, Code, Event, Head, Limits, Opened, Session, StreamId};
use crate::telemetry::connections::ConnectionRefusal;

/// What a client may take of us.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(test, derive(Default))]
pub struct Bounds {
    /// For the connection's first bytes, for all of a frame and of a head, and for the message of a call.
    pub patience: Duration,
    /// How long it may be silent before it is asked whether it is still there.
    pub silence: Duration,
    /// How long it may take to say so.
    pub pong: Duration,
    /// Most calls at once.
    pub streams: u32,
    /// Most frames that make nothing but work, beside calls that are answered: calls that are given up among them.
    pub unrest: u32,
    /// Largest head of a call, in bytes.
    pub head: u32,
    /// How long calls under way may take once the connection is to end.
    pub drain: Duration,
    /// How long the client may take to hear what is said last.
    pub last_words: Duration,
    /// How long an answer, or a part of it, may wait for the client to take it.
    pub untaken: Duration,
    /// How long a call that isn't a Check may take.
    pub call: Duration,
    /// How long a call that watches may take.
    pub watch: Duration,
    /// Most calls at once that aren't Checks.
    pub others: u32,
    /// Most answers that wait for the client's windows, in bytes.
    pub queued: usize,
}

/// So much may wait to be written before no more is read, in bytes.
const MAX_OUTPUT: usize = 64 * 1024;
/// Memory that a Check takes while it waits for what isn't in memory, in bytes, beside its message.
const WAITING_COST: usize = 8 * 1024;
/// Memory that a connection takes beside what is counted exactly, in bytes.
const CONNECTION_COST: usize = 1_024;
/// So much is read and answered before other connections of the thread have their turn, in bytes.
const MAX_TURN: usize = 64 * 1024;
/// So much memory is kept for what is written next, in bytes: more than sixteen answers take.
const KEPT: usize = 32 * 1024;
/// So much is read at once, in bytes: at first, and at most, which is more than a frame.
const READ: (usize, usize) = (4 * 1024, 32 * 1024);
/// So much is taken of a client that doesn't know yet that it is over, in bytes.
const MOST_UNHEARD: usize = 64 * 1024;
/// How often it is looked for what takes too long to come.
const TICK: Duration = Duration::from_secs(1);
/// As good as never.
const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);

/// What all connections of a thread have in common.
pub struct Server {
    /// Decides.
    pub plane: Rc<Plane>,
    /// Answers what isn't a Check.
    pub others: Others,
    /// For every connection.
    pub bounds: Bounds,
    /// What all connections of the process share.
    pub memory: Arc<MemoryPool>,
    /// When all of them are to end.
    pub stop: CancellationToken,
}

/// What is kept of a call.
pub enum Call {
    /// A Check of which the message isn't complete.
    Check {
        /// What there is of it.
        message: Message,
        /// Its share of what is held.
        share: Share,
        /// How often it was looked at.
        ticks: u32,
    },
    /// It is being answered.
    Answering {
        /// Its share of what is held.
        _share: Share,
        /// Ends with the call.
        _task: AbortOnDropHandle<()>,
    },
    /// One that isn't a Check, with what it still reads.
    Other {
        /// None when it has all.
        body: Option<Body>,
        /// Whether it has more than one message.
        is_streaming: bool,
        /// How often it was looked at while not all of it had come.
        ticks: u32,
        /// Its share of what is held.
        _share: Share,
        /// By how many there are of these, such calls are counted.
        _counted: Rc<()>,
        /// Ends with the call.
        _task: AbortOnDropHandle<()>,
    },
}

/// A connection, as the tasks of its calls see it.
pub struct Shared {
    session: RefCell<Session<Call>>,
    /// Of the task that writes.
    waker: RefCell<Option<Waker>>,
}

impl Shared {
    /// A connection that nobody writes for yet.
    pub fn new(session: Session<Call>) -> Self {
        Self { session: RefCell::new(session), waker: RefCell::default() }
    }

    /// Does something about a call, and sees to it that what comes of it is written.
    pub fn with<R>(&self, act: impl FnOnce(&mut Session<Call>) -> R) -> R {
        let done = act(&mut self.session.borrow_mut());
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
        done
    }

    /// Waits until the client has taken what it was sent of an answer.
    pub async fn sent(&self, id: StreamId) {
        poll_fn(|context| self.session.borrow_mut().poll_sent(id, context)).await;
    }

    fn is_woken_by(&self, context: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
    }
}

/// Serves a connection to its end; why we closed it before its time, if we did. After `age` the
/// client is asked to open another one.
pub async fn serve<S>(server: Rc<Server>, stream: S, age: Option<Duration>) -> Option<ConnectionRefusal>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let bounds = server.bounds;
    let limits = Limits {
        streams: bounds.streams,
        head: bounds.head,
        unrest: bounds.unrest,
        output: MAX_OUTPUT,
        queued: bounds.queued,
    };
    let stop = server.stop.clone();
    let mut open = Open {
        shared: Rc::new(Shared::new(Session::new(limits))),
        stream,
        input: vec![0; READ.0],
        filled: 0,
        was_full: false,
        has_frames: false,
        silence: Silence::new(bounds),
        tick: None,
        stuck: 0,
        written: 0,
        goal: None,
        account: Rc::new(Account::new(Arc::clone(&server.memory))),
        others: Rc::default(),
        server,
    };
    let mut stopped = pin!(stop.cancelled());
    let mut aged = pin!(sleep(age.unwrap_or(FAR)));
    let over = poll_fn(|context| {
        let stopped = stopped.as_mut().poll(context).is_ready();
        match stopped || aged.as_mut().poll(context).is_ready() {
            true => Poll::Ready(None),
            false => open.poll(context).map(Some),
        }
    });
    let mut over = over.await;
    if over.is_none() && open.shared.session.borrow().is_greeted() {
        // Calls that are on their way still come; then the client opens another connection, or none.
        open.shared.session.borrow_mut().leave();
        over = timeout(bounds.drain, poll_fn(|context| open.poll(context))).await.ok();
    }
    open.shared.session.borrow_mut().abandon();
    if matches!(over, Some(Over::Said | Over::Dismissed(_))) {
        let _ = timeout(bounds.last_words, open.close()).await;
    }
    match over {
        Some(Over::Dismissed(why)) => Some(why),
        Some(Over::Gone | Over::Said) | None => None,
    }
}

/// How a connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// The other end is gone.
    Gone,
    /// All is said: the client has broken the rules, or one of both wanted to go.
    Said,
    /// The client asks too much of us, and was told so.
    Dismissed(ConnectionRefusal),
}

struct Open<S> {
    server: Rc<Server>,
    shared: Rc<Shared>,
    stream: S,
    /// What was read, of which so much is filled.
    input: Vec<u8>,
    filled: usize,
    /// Whether there was more to be read than there was room for.
    was_full: bool,
    /// Whether frames may be in it that weren't taken, as answers were to be written first.
    has_frames: bool,
    silence: Silence,
    /// While something hasn't come whole, and a moment longer.
    tick: Option<Pin<Box<Sleep>>>,
    /// How often in a row the same frame or head was found unfinished.
    stuck: u32,
    /// Bytes written so far.
    written: u64,
    /// How many of them there are once all is written that was to be written at a tick, and how
    /// many ticks ago that was.
    goal: Option<(u64, u32)>,
    account: Rc<Account>,
    /// One more of these than calls that aren't Checks.
    others: Rc<()>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Open<S> {
    /// Takes and answers what there is; ready when the connection has ended.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Over> {
        self.shared.is_woken_by(context);
        // What calls that had to wait were answered: before it is read that somebody doesn't want it any more.
        if let Poll::Ready(Err(_)) = self.poll_write_out(context) {
            return Poll::Ready(Over::Gone);
        }
        let mut turn = 0;
        loop {
            if self.shared.session.borrow().is_output_full() {
                match self.poll_write_out(context) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Over::Gone),
                    // Who doesn't take its answers isn't asked for more.
                    Poll::Pending => break,
                }
            }
            if !self.has_frames {
                if turn >= MAX_TURN {
                    // Once it has been looked what there is to be read of the others.
                    let _ = pin!(tokio::task::yield_now()).poll(context);
                    break;
                }
                match self.poll_read(context) {
                    Poll::Ready(Ok(count @ 1..)) => turn += count,
                    Poll::Ready(Ok(0) | Err(_)) => {
                        let _ = self.poll_write_out(context);
                        return Poll::Ready(Over::Gone);
                    }
                    Poll::Pending => break,
                }
                self.silence.is_broken();
            }
            if self.take().is_err() {
                return Poll::Ready(Over::Said);
            }
        }
        if let Poll::Ready(Err(_)) = self.poll_write_out(context) {
            return Poll::Ready(Over::Gone);
        }
        if let Poll::Ready(why) = self.poll_tick(context) {
            return Poll::Ready(self.dismiss(why));
        }
        let silence = self.silence.poll(&self.shared.session, context);
        if self.silence.take_quiet() {
            self.shrink();
        }
        match self.poll_write_out(context) {
            Poll::Ready(Err(_)) => return Poll::Ready(Over::Gone),
            Poll::Ready(Ok(())) if self.shared.session.borrow().is_over() => return Poll::Ready(Over::Said),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        if !self.keeps_to_its_memory() {
            return Poll::Ready(self.dismiss(ConnectionRefusal::Memory));
        }
        silence.map(|()| Over::Gone)
    }

    /// Tells the client that it asks too much of us.
    fn dismiss(&self, why: ConnectionRefusal) -> Over {
        self.shared.session.borrow_mut().dismiss();
        Over::Dismissed(why)
    }

    /// Counts what the connection holds; false when that is more than it may, whatever is given
    /// back.
    fn keeps_to_its_memory(&mut self) -> bool {
        let count = |open: &Self| {
            let session = open.shared.session.borrow().memory();
            open.account.set_own(CONNECTION_COST + open.input.capacity() + session)
        };
        if count(self) {
            return true;
        }
        self.shrink();
        count(self)
    }

    /// Gives back the memory that nothing is in.
    fn shrink(&mut self) {
        if self.filled == 0 && self.input.len() > READ.0 {
            self.input = vec![0; READ.0];
            self.was_full = false;
        }
        self.shared.session.borrow_mut().shrink();
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.was_full {
            let larger = (self.input.len() * 2).min(READ.1);
            self.input.resize(larger, 0);
        }
        let mut into = ReadBuf::new(&mut self.input[self.filled..]);
        let read = Pin::new(&mut self.stream).poll_read(context, &mut into);
        let count = into.filled().len();
        self.filled += count;
        self.was_full = self.filled == self.input.len();
        read.map_ok(|()| count)
    }

    fn poll_write_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut session = self.shared.session.borrow_mut();
        if session.output().is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !session.output().is_empty() {
            match Pin::new(&mut self.stream).poll_write(context, session.output())? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(count) => {
                    self.written += count as u64;
                    session.wrote(count, KEPT);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Takes all frames that have come, as long as their answers find room.
    fn take(&mut self) -> Result<(), Closed> {
        let mut session = self.shared.session.borrow_mut();
        let mut taken = 0;
        while let Some((count, event)) = session.receive(&self.input[taken..self.filled])? {
            match event {
                None => {}
                Some(Event::Opened(opened)) => self.open(&mut session, opened),
                Some(Event::Data { id, data, ended }) => self.read(&mut session, id, data, ended),
            }
            taken += count;
            if !session.has_unfinished_head() {
                self.stuck = 0;
            }
        }
        self.input.copy_within(taken..self.filled, 0);
        self.filled -= taken;
        self.has_frames = self.filled > 0 && session.is_output_full();
        Ok(())
    }

    fn open(&self, session: &mut Session<Call>, opened: Opened) {
        let head = session.head();
        if let Err(answer) = grpc::is_call(head) {
            return session.turn_down(&opened, &answer);
        }
        if head.path() == grpc::CHECK {
            let share = Share::new(Rc::clone(&self.account));
            let ended = opened.ended();
            let id = session.accept(opened, Call::Check { message: Message::default(), share, ticks: 0 });
            if ended {
                self.read(session, id, &[], true);
            }
            return;
        }
        match self.other(head, &opened) {
            Ok(call) => {
                session.accept(opened, call);
            }
            Err(status) => session.turn_down(&opened, &grpc::status_alone(&status)),
        }
    }

    /// Begins a call that isn't a Check.
    fn other(&self, head: &Head, opened: &Opened) -> Result<Call, Status> {
        let kind = Kind::of(head.path()).ok_or_else(|| Status::unimplemented("there is no such method"))?;
        let mut share = Share::new(Rc::clone(&self.account));
        let bounds = self.server.bounds;
        if Rc::strong_count(&self.others) > bounds.others as usize || !share.grow(OTHER_COST) {
            return Err(Status::resource_exhausted("too many calls of this connection are open"));
        }
        let request =
            head.request(&HEADERS).ok_or_else(|| Status::internal("the call's head can't be read"))?;
        let deadline = if kind == Kind::Watch { bounds.watch } else { bounds.call };
        let (body, incoming) = forward::body();
        let request = request.map(|()| incoming);
        let (others, shared) = (Rc::clone(&self.server.others), Rc::clone(&self.shared));
        let answering = forward::forward(others, request, opened.id(), shared, deadline);
        Ok(Call::Other {
            body: (!opened.ended()).then_some(body),
            is_streaming: kind == Kind::Streaming,
            ticks: 0,
            _share: share,
            _counted: Rc::clone(&self.others),
            _task: AbortOnDropHandle::new(tokio::task::spawn_local(answering)),
        })
    }

    /// Takes a part of a call's message.
    fn read(&self, session: &mut Session<Call>, id: StreamId, data: &[u8], ended: bool) {
        match session.call(id) {
            Some(Call::Check { message, .. }) if ended && message.is_empty() => match grpc::whole(data) {
                Ok(message) => self.decide(session, id, message),
                Err(status) => respond(session, id, Err(status)),
            },
            Some(Call::Check { message, share, .. }) => {
                let pushed = match share.grow(message.growth(data.len())) {
                    true => message.push(data),
                    false => Err(Status::resource_exhausted("too many messages are incomplete")),
                };
                if let Err(status) = pushed {
                    return respond(session, id, Err(status));
                }
                if ended {
                    let whole = std::mem::take(message).finish();
                    match grpc::whole(&whole) {
                        Ok(message) => self.decide(session, id, message),
                        Err(status) => respond(session, id, Err(status)),
                    }
                }
            }
            Some(Call::Other { body, .. }) => {
                let is_taken = body.as_ref().is_none_or(|body| body.take(data));
                if ended {
                    *body = None;
                }
                if !is_taken {
                    session.reset(id, Code::EnhanceYourCalm);
                }
            }
            // It has said all that it may.
            Some(Call::Answering { .. }) | None => {}
        }
    }

    fn decide(&self, session: &mut Session<Call>, id: StreamId, message: &[u8]) {
        if let Some(decided) = self.server.plane.check_at_once(message) {
            return respond(session, id, decided);
        }
        let mut share = Share::new(Rc::clone(&self.account));
        if !share.grow(WAITING_COST + message.len()) {
            let status = Status::resource_exhausted("too many calls of this connection wait");
            return respond(session, id, Err(status));
        }
        let checking = Rc::clone(&self.server.plane).check(Bytes::copy_from_slice(message));
        let shared = Rc::clone(&self.shared);
        let task = tokio::task::spawn_local(async move {
            let decided = Box::pin(checking).await;
            shared.with(|session| respond(session, id, decided));
        });
        if let Some(call) = session.call(id) {
            *call = Call::Answering { _share: share, _task: AbortOnDropHandle::new(task) };
        }
    }

    /// Ends calls whose messages take too long; ready when the connection is to end, as a frame or
    /// a head does, or as answers aren't taken.
    fn poll_tick(&mut self, context: &mut Context<'_>) -> Poll<ConnectionRefusal> {
        let mut session = self.shared.session.borrow_mut();
        // Who isn't asked for more isn't slow.
        let is_read = !session.is_output_full();
        let is_stuck = is_read && (self.filled > 0 || session.has_unfinished_head());
        let is_untaken = !session.output().is_empty() || session.has_queued();
        let is_waiting = is_stuck || is_untaken || session.has_incomplete();
        if self.tick.is_none() && !is_waiting {
            return Poll::Pending;
        }
        let tick = self.tick.get_or_insert_with(|| Box::pin(sleep(TICK)));
        while tick.as_mut().poll(context).is_ready() {
            if !is_waiting {
                self.tick = None;
                self.goal = None;
                return Poll::Pending;
            }
            tick.as_mut().reset(Instant::now() + TICK);
            let Bounds { patience, untaken, .. } = self.server.bounds;
            self.stuck = if is_stuck { self.stuck + 1 } else { 0 };
            if TICK * self.stuck > patience {
                return Poll::Ready(ConnectionRefusal::SlowHeader);
            }
            let output = session.output().len();
            self.goal = match self.goal {
                _ if output == 0 => None,
                Some((goal, ticks)) if self.written < goal => Some((goal, ticks + 1)),
                Some(_) | None => Some((self.written + output as u64, 0)),
            };
            let unwritten = self.goal.map_or(0, |(_, ticks)| ticks);
            if TICK * session.tick_queued().max(unwritten) > untaken {
                return Poll::Ready(ConnectionRefusal::UnreadResponses);
            }
            let mut late = vec![];
            for (id, call) in session.incomplete_calls() {
                if let Call::Check { ticks, .. } | Call::Other { is_streaming: false, ticks, .. } = call {
                    *ticks += 1;
                    if TICK * *ticks > patience {
                        late.push(id);
                    }
                }
            }
            for id in late {
                respond(&mut session, id, Err(Status::deadline_exceeded("the message took too long")));
            }
        }
        Poll::Pending
    }

    /// Lets the client hear what was said last: it wouldn't if the connection were closed while it still sends.
    async fn close(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll_write_out(context)).await?;
        self.stream.shutdown().await?;
        let mut unheard = 0;
        while unheard < MOST_UNHEARD {
            match self.stream.read(&mut self.input).await? {
                0 => break,
                count => unheard += count,
            }
        }
        Ok(())
    }
}

/// Sends an answer. Whether the client still wants it is its business.
fn respond(session: &mut Session<Call>, id: StreamId, decided: Result<Bytes, Status>) {
    match decided.and_then(|message| Ok((grpc::prefix(&message)?, message))) {
        Ok((prefix, message)) => session.answer(id, grpc::ANSWER_HEAD, &prefix, message, grpc::OK_TRAILERS),
        Err(status) => session.answer_alone(id, &grpc::status_alone(&status)),
    }
}
