//! Messages between two threads of a simulation: each takes a while, and they come in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::world::World;

/// One direction of a stream within a machine.
pub struct Channel<T> {
    /// Thread that reads.
    reader: usize,
    /// Instance whose machine it is on.
    instance: usize,
    inner: Mutex<Inner<T>>,
    news: Notify,
}

struct Inner<T> {
    /// Messages with the times at which they arrive.
    messages: VecDeque<(u64, T)>,
    is_closed: bool,
}

impl<T> Channel<T> {
    pub fn new(reader: usize, instance: usize) -> Self {
        let inner = Mutex::new(Inner { messages: VecDeque::new(), is_closed: false });
        Self { reader, instance, inner, news: Notify::new() }
    }

    /// Sends a message. One on a closed channel is lost.
    pub fn send(&self, world: &World, message: T) {
        let now = world.now();
        let delay = {
            let state = &mut *world.state();
            let pipe = &state.pipes[self.instance];
            let is_answer = self.reader != self.instance;
            let (least, end) = pipe.answer_latency.filter(|_| is_answer).unwrap_or(pipe.latency);
            state.random.within(least, end) * 1_000
        };
        {
            let mut inner = self.inner.lock();
            if inner.is_closed {
                return;
            }
            let last = inner.messages.back().map_or(0, |(arrives, _)| *arrives);
            inner.messages.push_back((last.max(now + delay), message));
        }
        self.wake(world);
    }

    /// Closes the channel; what is on its way is lost.
    pub fn close(&self, world: &World) {
        {
            let mut inner = self.inner.lock();
            inner.is_closed = true;
            inner.messages.clear();
        }
        self.wake(world);
    }

    /// Makes the reader look again.
    pub fn wake(&self, world: &World) {
        self.news.notify_one();
        world.scheduler.wake(self.reader);
    }

    /// Returns the next message, `None` once the channel is closed. Cancel-safe.
    pub async fn next(&self, world: &World) -> Option<T> {
        loop {
            let now = world.now();
            let is_held = world.state().pipes[self.instance].is_held;
            let due = {
                let mut inner = self.inner.lock();
                if inner.is_closed {
                    return None;
                }
                match inner.messages.front() {
                    _ if is_held => None,
                    Some((arrives, _)) if *arrives <= now => {
                        return inner.messages.pop_front().map(|(_, message)| message);
                    }
                    front => front.map(|(arrives, _)| *arrives),
                }
            };
            tokio::select! {
                biased;
                () = self.news.notified() => {}
                () = sleep(Duration::from_micros(due.unwrap_or(u64::MAX / 4) - now)), if due.is_some() => {}
            }
        }
    }
}

/// Stream between a module and its server.
pub struct Stream<U, D> {
    pub up: Channel<U>,
    pub down: Channel<D>,
}

impl<U, D> Stream<U, D> {
    pub fn close(&self, world: &World) {
        self.up.close(world);
        self.down.close(world);
    }
}

/// Closes a stream when its server is done with it, or gone.
pub struct Closing<U, D> {
    pub world: Arc<World>,
    pub stream: Arc<Stream<U, D>>,
}

impl<U, D> Drop for Closing<U, D> {
    fn drop(&mut self) {
        self.stream.close(&self.world);
    }
}
