//! A connection's session, shared by its own task and the tasks of its streams.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Waker};

use http2_server::{MemoryPermit, Session, StreamId};
use tokio_util::task::AbortOnDropHandle;

use super::fallback_body::RequestBody;
use super::grpc::Message;

/// The state of one stream.
pub(super) enum StreamState {
    /// A Check whose message isn't complete.
    Receiving {
        /// The part that has arrived.
        message: Message,
        /// The memory of that part.
        permit: MemoryPermit,
    },
    /// A Check that waits for something which isn't in memory.
    Checking {
        /// The memory that it takes meanwhile.
        _permit: MemoryPermit,
        /// The task, aborted with the stream.
        _task: AbortOnDropHandle<()>,
    },
    /// A call of the fallback service.
    Fallback {
        /// The body that is still arriving.
        body: Option<RequestBody>,
        /// The memory that it takes.
        _permit: MemoryPermit,
        /// A reference by which such streams are counted.
        _counted: Rc<()>,
        /// The task, aborted with the stream.
        _task: AbortOnDropHandle<()>,
    },
}

/// A session that the tasks of its streams may use.
pub(super) struct SharedSession {
    session: RefCell<Session<StreamState>>,
    /// Waker of the task that writes.
    writer: RefCell<Option<Waker>>,
}

impl SharedSession {
    /// Shares a session for which no task writes yet.
    pub(super) fn new(session: Session<StreamState>) -> Self {
        Self { session: RefCell::new(session), writer: RefCell::default() }
    }

    /// Returns the session, for the task that writes.
    pub(super) const fn session(&self) -> &RefCell<Session<StreamState>> {
        &self.session
    }

    /// Acts on the session, and wakes the task that writes.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut Session<StreamState>) -> R) -> R {
        let done = act(&mut self.session.borrow_mut());
        if let Some(writer) = &*self.writer.borrow() {
            writer.wake_by_ref();
        }
        done
    }

    /// Waits until the client has been sent all data of a response so far.
    pub(super) async fn sent(&self, id: StreamId) {
        poll_fn(|context| self.session.borrow_mut().poll_sent(id, context)).await;
    }

    /// Makes the current task the one that writes.
    pub(super) fn set_writer(&self, context: &Context<'_>) {
        let mut writer = self.writer.borrow_mut();
        if !writer.as_ref().is_some_and(|writer| writer.will_wake(context.waker())) {
            *writer = Some(context.waker().clone());
        }
    }
}
