//! One HTTP/2 connection of the authz plane, from the client's first byte to its end.
//!
//! Envoy sends all Checks of a worker over one connection. Cached ones are answered by the
//! connection's own task as they are read: no other task, no queue, no copy, and one write for all
//! that were read together. A Check that must wait for the database gets its own task.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http2_server::{ConnectionClosed, ErrorCode, Event, Session, Timeout};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tonic::Status;

use super::dispatch::{Dispatcher, Server, respond};
use super::keepalive::Keepalive;
use super::limits::TICK;
use super::session::{SharedSession, StreamState};
use crate::telemetry::connections::ConnectionRefusal;

/// Memory that a connection takes beside what is counted exactly, in bytes.
const CONNECTION_COST: usize = 1_024;
/// Bytes that are read and answered before other connections of the thread have their turn.
const MAX_TURN: usize = 64 * 1024;
/// Capacity that an empty output buffer keeps, in bytes: enough for sixteen responses.
const KEPT_OUTPUT: usize = 32 * 1024;
/// Size of the read buffer at first, in bytes.
const MIN_READ: usize = 4 * 1024;
/// Largest size of the read buffer, in bytes; it holds a whole frame.
const MAX_READ: usize = 32 * 1024;
/// Most bytes that are read and dropped while a client hasn't received the last GOAWAY.
const MAX_DISCARDED: usize = 64 * 1024;
/// Age of a connection that never ends by its age.
const NO_MAX_AGE: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Serves a connection to its end, and returns why it was closed early, if it was.
///
/// After `age` the client is asked to open another one, once the connection serves no module:
/// nothing but a fault ends such a stream, so it couldn't end gracefully. `peer_uid` is the user id
/// of the client's process, on a Unix socket.
pub async fn serve<S>(
    server: Rc<Server>,
    stream: S,
    age: Option<Duration>,
    peer_uid: Option<u32>,
) -> Option<ConnectionRefusal>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let limits = server.limits;
    let stop = server.stop.clone();
    let shared = Rc::new(SharedSession::new(Session::new(limits.of_session())));
    let mut connection = Connection {
        dispatcher: Dispatcher::new(server, Rc::clone(&shared), peer_uid),
        shared,
        stream,
        input: vec![0; MIN_READ],
        filled: 0,
        was_full: false,
        has_frames: false,
        keepalive: Keepalive::new(limits),
        tick: None,
    };
    let mut stopped = pin!(stop.cancelled());
    let mut aged = pin!(sleep(age.unwrap_or(NO_MAX_AGE)));
    let mut is_old = false;
    let serving = poll_fn(|context| {
        let stopped = stopped.as_mut().poll(context).is_ready();
        // A future that was ready isn't polled again.
        is_old = is_old || aged.as_mut().poll(context).is_ready();
        match stopped || (is_old && !connection.dispatcher.serves_module()) {
            true => Poll::Ready(None),
            false => connection.poll(context).map(Some),
        }
    });
    let mut reason = serving.await;
    if reason.is_none() && connection.session().borrow().is_handshake_complete() {
        connection.session().borrow_mut().graceful_shutdown();
        let draining = poll_fn(|context| connection.poll(context));
        reason = timeout(limits.drain_timeout, draining).await.ok();
    }
    connection.dispatcher.count_overflows(&mut connection.session().borrow_mut());
    connection.session().borrow_mut().drop_streams();
    if matches!(reason, Some(CloseReason::Finished | CloseReason::Refused(_))) {
        let _ = timeout(limits.close_timeout, connection.close()).await;
    }
    match reason {
        Some(CloseReason::Refused(why)) => Some(why),
        Some(CloseReason::PeerGone | CloseReason::Finished) | None => None,
    }
}

/// The reason why a connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CloseReason {
    /// The peer has closed it, or can't be reached.
    PeerGone,
    /// No stream is left, or the peer violated the protocol.
    Finished,
    /// The peer exceeded a limit, and was sent a GOAWAY.
    Refused(ConnectionRefusal),
}

struct Connection<S> {
    dispatcher: Dispatcher,
    shared: Rc<SharedSession>,
    stream: S,
    /// The read buffer, filled up to `filled`.
    input: Vec<u8>,
    filled: usize,
    /// True when the last read filled the buffer.
    was_full: bool,
    /// True when the buffer may hold whole frames that wait until output is written.
    has_frames: bool,
    keepalive: Keepalive,
    /// The timer of ticks, while something is unfinished and a moment longer.
    tick: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn session(&self) -> &RefCell<Session<StreamState>> {
        self.shared.session()
    }

    /// Receives and answers what has arrived; ready when the connection has ended.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<CloseReason> {
        self.shared.set_writer(context);
        // Responses of other tasks go out before a frame is read that may reset their streams.
        if let Poll::Ready(Err(_)) = self.poll_write_out(context) {
            return Poll::Ready(CloseReason::PeerGone);
        }
        if let Some(reason) = self.receive_all(context) {
            return Poll::Ready(reason);
        }
        if let Poll::Ready(Err(_)) = self.poll_write_out(context) {
            return Poll::Ready(CloseReason::PeerGone);
        }
        if let Poll::Ready(why) = self.poll_tick(context) {
            return Poll::Ready(self.refuse(why));
        }
        let gone = self.keepalive.poll(self.shared.session(), context);
        if self.keepalive.take_idle() {
            self.shrink();
        }
        match self.poll_write_out(context) {
            Poll::Ready(Err(_)) => return Poll::Ready(CloseReason::PeerGone),
            Poll::Ready(Ok(())) if self.session().borrow().is_finished() => {
                return Poll::Ready(CloseReason::Finished);
            }
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        self.dispatcher.count_overflows(&mut self.session().borrow_mut());
        if !self.is_within_memory() {
            return Poll::Ready(self.refuse(ConnectionRefusal::Memory));
        }
        gone.map(|()| CloseReason::PeerGone)
    }

    /// Reads and receives frames for one turn; Some when the connection has ended.
    fn receive_all(&mut self, context: &mut Context<'_>) -> Option<CloseReason> {
        let mut turn = 0;
        loop {
            if self.session().borrow().is_output_full() {
                match self.poll_write_out(context) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Some(CloseReason::PeerGone),
                    // Stops reading from a client that doesn't read its responses.
                    Poll::Pending => return None,
                }
            }
            if !self.has_frames {
                if turn >= MAX_TURN {
                    // Wakes this task once the thread has polled its other connections.
                    let _ = pin!(tokio::task::yield_now()).poll(context);
                    return None;
                }
                match self.poll_read(context) {
                    Poll::Ready(Ok(count @ 1..)) => turn += count,
                    Poll::Ready(Ok(0) | Err(_)) => {
                        let _ = self.poll_write_out(context);
                        return Some(CloseReason::PeerGone);
                    }
                    Poll::Pending => return None,
                }
                self.keepalive.received();
            }
            match self.receive_frames() {
                Ok(()) => {}
                Err(ConnectionClosed(ErrorCode::EnhanceYourCalm)) => {
                    return Some(CloseReason::Refused(ConnectionRefusal::Abuse));
                }
                Err(ConnectionClosed(_)) => return Some(CloseReason::Finished),
            }
        }
    }

    /// Receives all whole frames of the read buffer, as long as the output has room.
    fn receive_frames(&mut self) -> Result<(), ConnectionClosed> {
        let mut session = self.shared.session().borrow_mut();
        let mut received = 0;
        while let Some((count, event)) = session.receive(&self.input[received..self.filled])? {
            match event {
                None => {}
                Some(Event::Request(incoming)) => self.dispatcher.on_request(&mut session, incoming),
                Some(Event::Data { id, data, end_stream }) => {
                    self.dispatcher.on_data(&mut session, id, data, end_stream);
                }
            }
            received += count;
        }
        self.input.copy_within(received..self.filled, 0);
        self.filled -= received;
        self.has_frames = self.filled > 0 && session.is_output_full();
        Ok(())
    }

    /// Tells the client that it exceeds a limit.
    fn refuse(&self, why: ConnectionRefusal) -> CloseReason {
        self.session().borrow_mut().goaway(ErrorCode::EnhanceYourCalm);
        CloseReason::Refused(why)
    }

    /// Accounts for the connection's memory; false when it exceeds a limit even after shrinking.
    fn is_within_memory(&mut self) -> bool {
        let account = |connection: &Self| {
            let session = connection.session().borrow().memory_usage();
            let own = CONNECTION_COST + connection.input.capacity() + session;
            connection.dispatcher.account().set_own(own)
        };
        if account(self) {
            return true;
        }
        self.shrink();
        account(self)
    }

    /// Releases memory that holds nothing.
    fn shrink(&mut self) {
        if self.filled == 0 && self.input.len() > MIN_READ {
            self.input = vec![0; MIN_READ];
            self.was_full = false;
        }
        self.session().borrow_mut().shrink_to_fit();
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.was_full {
            let larger = (self.input.len() * 2).min(MAX_READ);
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
        let mut session = self.shared.session().borrow_mut();
        if session.output().is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !session.output().is_empty() {
            match Pin::new(&mut self.stream).poll_write(context, session.output())? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(count) => session.consume_output(count, KEPT_OUTPUT),
                Poll::Pending => return Poll::Pending,
            }
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Ends streams whose messages are late; ready when the connection must end.
    fn poll_tick(&mut self, context: &mut Context<'_>) -> Poll<ConnectionRefusal> {
        let mut session = self.shared.session().borrow_mut();
        let has_partial_frame = self.filled > 0;
        if self.tick.is_none() && !session.needs_ticks(has_partial_frame) {
            return Poll::Pending;
        }
        let tick = self.tick.get_or_insert_with(|| Box::pin(sleep(TICK)));
        while tick.as_mut().poll(context).is_ready() {
            let late = match session.tick(has_partial_frame) {
                Ok(late) => late,
                Err(Timeout::Read) => return Poll::Ready(ConnectionRefusal::SlowHeader),
                Err(Timeout::Write) => return Poll::Ready(ConnectionRefusal::UnreadResponses),
            };
            for id in late {
                respond(&mut session, id, Err(Status::deadline_exceeded("the message took too long")));
            }
            if !session.needs_ticks(has_partial_frame) {
                self.tick = None;
                break;
            }
            tick.as_mut().reset(Instant::now() + TICK);
        }
        Poll::Pending
    }

    /// Closes the connection so that the client receives the last GOAWAY.
    ///
    /// A connection that is closed while its client sends would be reset instead.
    async fn close(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll_write_out(context)).await?;
        self.stream.shutdown().await?;
        let mut discarded = 0;
        while discarded < MAX_DISCARDED {
            match self.stream.read(&mut self.input).await? {
                0 => break,
                count => discarded += count,
            }
        }
        Ok(())
    }
}
