//! Futures whose steps take long, in turns on one thread.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::sync::Semaphore;
use tokio::task::yield_now;

/// Turns of the futures of one thread. Between two steps of such futures, all other tasks that are
/// ready are polled, and what has arrived on sockets is noticed: however many TLS handshakes begin
/// at once, a Check waits for one step of one of them.
pub(super) struct Turns(Semaphore);

impl Turns {
    /// Creates the turns of a thread.
    pub(super) fn new() -> Self {
        Self(Semaphore::new(1))
    }

    /// Runs a future, each of whose steps waits for its turn.
    pub(super) async fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        loop {
            let step = {
                // The semaphore is never closed. If it were, steps would come without turns.
                let _turn = self.0.acquire().await;
                yield_now().await;
                poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
            };
            match step {
                Poll::Ready(output) => return output,
                Poll::Pending => woken().await,
            }
        }
    }
}

/// Waits until somebody wakes the task, which the last step has asked for.
async fn woken() {
    let mut has_waited = false;
    poll_fn(|_| match std::mem::replace(&mut has_waited, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::task::{JoinSet, LocalSet};

    use super::*;

    /// Runs a test on a thread of its own, as the worker threads do.
    fn on_one_thread<F: Future>(test: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, test)
    }

    #[test]
    fn other_tasks_come_between_the_steps_of_many_futures() {
        const FUTURES: usize = 50;
        const STEPS: usize = 3;
        let order = Rc::new(RefCell::new(vec![]));
        on_one_thread(async {
            let turns = Rc::new(Turns::new());
            let mut long = JoinSet::new();
            for _ in 0..FUTURES {
                let (turns, order) = (Rc::clone(&turns), Rc::clone(&order));
                long.spawn_local(async move {
                    let mut steps = 0;
                    let future = poll_fn(|context| {
                        order.borrow_mut().push("step");
                        steps += 1;
                        context.waker().wake_by_ref();
                        if steps == STEPS { Poll::Ready(()) } else { Poll::Pending }
                    });
                    turns.run(future).await;
                });
            }
            let other = tokio::task::spawn_local({
                let order = Rc::clone(&order);
                async move {
                    loop {
                        order.borrow_mut().push("other");
                        yield_now().await;
                    }
                }
            });
            while long.join_next().await.is_some() {}
            other.abort();
        });
        let order = order.borrow();
        assert_eq!(order.iter().filter(|what| **what == "step").count(), FUTURES * STEPS);
        // The very first round may begin with a step.
        assert!(!order.windows(3).any(|three| three == ["step"; 3]), "{order:?}");
    }

    #[test]
    fn a_future_that_waits_keeps_no_turn_and_is_woken() {
        on_one_thread(async {
            let turns = Rc::new(Turns::new());
            let (mut client, mut server) = duplex(1);
            let waits = tokio::task::spawn_local({
                let turns = Rc::clone(&turns);
                async move {
                    let mut read = [0; 5];
                    turns.run(server.read_exact(&mut read)).await.unwrap();
                    read
                }
            });
            for byte in b"hello" {
                assert_eq!(turns.run(async { 7 }).await, 7);
                client.write_all(&[*byte]).await.unwrap();
            }
            assert_eq!(&waits.await.unwrap(), b"hello");
        });
    }
}
