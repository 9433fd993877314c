//! Turns: of all threads of a simulation one runs at a time, the one whose timer is the earliest.
//!
//! The threads of instances have a runtime each. Whoever has nothing to do until its next timer
//! moves virtual time on to the earliest timer of all, and passes the turn to its thread; the
//! director gets it when a fault is due. So all that happens, happens in one order, which the seed
//! decides.

use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Poll, Waker};

use crate::random::Random;
use crate::shim::{self, Reading};

/// Boot time at which a simulation begins, in microseconds.
pub const START: u64 = 1_000_000_000;
/// Wall time at that moment.
pub const START_WALL: i64 = 1_790_000_000_000_000;

/// Shares the turn among the threads of one simulation.
pub struct Scheduler {
    state: Mutex<State>,
    /// One for each thread, and the last for the director.
    turns: Vec<Condvar>,
}

struct State {
    now: u64,
    /// Time until which the threads pass the turn among themselves.
    end: u64,
    /// Thread whose turn it is; `None` means the director.
    turn: Option<usize>,
    threads: Vec<Thread>,
    random: Random,
}

/// A thread of an instance.
#[derive(Clone, Default)]
struct Thread {
    is_running: bool,
    /// Time of its next timer; `u64::MAX` without one.
    wake: u64,
    /// Time until which it is stopped.
    stopped_until: u64,
    /// Time that its machine was suspended.
    suspended: u64,
    /// Time by which its wall clock is ahead.
    wall_offset: i64,
    is_killed: bool,
    /// True if it ended by a panic.
    has_panicked: bool,
}

/// The thread that this is.
struct Current {
    scheduler: Arc<Scheduler>,
    thread: usize,
    /// Wakes the future that waits for the end of the process.
    killed: Option<Waker>,
    is_killed: bool,
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

impl Scheduler {
    pub fn new(threads: usize, seed: u64) -> Self {
        let state = State {
            now: START,
            end: START,
            turn: None,
            threads: vec![Thread::default(); threads],
            random: Random::new(seed),
        };
        Self { state: Mutex::new(state), turns: (0..=threads).map(|_| Condvar::new()).collect() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
    }

    /// Returns the virtual time.
    pub fn now(&self) -> u64 {
        self.state().now
    }

    pub fn is_running(&self, thread: usize) -> bool {
        self.state().threads[thread].is_running
    }

    /// Stops a thread for a while, as SIGSTOP does; its timers go on.
    pub fn stop(&self, thread: usize, micros: u64) {
        let mut state = self.state();
        let until = state.now + micros;
        let one = &mut state.threads[thread];
        one.stopped_until = one.stopped_until.max(until);
    }

    /// Suspends a thread's machine for a while: its timers stand still.
    pub fn suspend(&self, thread: usize, micros: u64) {
        let mut state = self.state();
        let until = state.now + micros;
        let now = state.now;
        let one = &mut state.threads[thread];
        // Time for which the thread stands still already doesn't count twice.
        let more = until.saturating_sub(one.stopped_until.max(now));
        one.stopped_until = one.stopped_until.max(until);
        one.suspended += more;
        one.wake = one.wake.saturating_add(more);
    }

    /// Wakes a thread: something that it waits for has happened.
    pub fn wake(&self, thread: usize) {
        let mut state = self.state();
        let now = state.now;
        let one = &mut state.threads[thread];
        one.wake = one.wake.min(now);
    }

    /// Sets a thread's wall clock.
    pub fn set_wall_offset(&self, thread: usize, micros: i64) {
        self.state().threads[thread].wall_offset = micros;
    }

    /// Ends a thread before it does anything else.
    pub fn kill(&self, thread: usize) {
        let mut state = self.state();
        let now = state.now;
        let one = &mut state.threads[thread];
        (one.is_killed, one.wake, one.stopped_until) = (true, now, 0);
    }

    /// Starts a thread with a runtime of its own, which runs `process` until it is killed.
    pub fn start<F>(
        self: &Arc<Self>,
        thread: usize,
        entropy: u64,
        process: impl FnOnce() -> F + Send + 'static,
    ) where
        F: Future<Output = ()>,
    {
        {
            let mut state = self.state();
            let now = state.now;
            let wall_offset = state.threads[thread].wall_offset;
            state.threads[thread] = Thread { is_running: true, wake: now, wall_offset, ..Thread::default() };
        }
        let scheduler = Arc::clone(self);
        std::thread::spawn(move || {
            let _end = End { scheduler: Arc::clone(&scheduler), thread };
            shim::set_entropy(entropy);
            let current =
                Current { scheduler: Arc::clone(&scheduler), thread, killed: None, is_killed: false };
            CURRENT.with_borrow_mut(|slot| *slot = Some(current));
            scheduler.wait_for_turn(thread);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = killed() => {}
                    () = process() => {}
                }
            });
        });
    }

    /// Runs the threads until `end`; what is due then isn't done yet.
    pub fn run_until(&self, end: u64) {
        let mut state = self.state();
        state.end = end;
        self.pass(&mut state, None);
        let director = self.turns.last().expect("one more than threads");
        let state = director.wait_while(state, |state| state.turn.is_some());
        let mut state = state.expect("no panic under this lock");
        state.now = state.now.max(end);
    }

    /// Kills all threads, and waits for their end. Returns true if one of them had panicked.
    pub fn end(&self) -> bool {
        let threads = self.turns.len() - 1;
        (0..threads).filter(|thread| self.is_running(*thread)).for_each(|thread| self.kill(thread));
        self.run_until(self.now() + 1);
        self.state().threads.iter().any(|thread| thread.has_panicked)
    }

    /// Passes the turn to the thread that is next, or to the director.
    fn pass(&self, state: &mut State, from: Option<usize>) {
        let end = state.end;
        state.turn = state.next().filter(|(wake, _)| *wake < end).map(|(wake, thread)| {
            state.now = state.now.max(wake);
            thread
        });
        if state.turn != from || from.is_none() {
            self.turns[state.turn.unwrap_or(self.turns.len() - 1)].notify_one();
        }
    }

    /// Gives the turn away until virtual time is so far.
    fn sleep(&self, thread: usize, millis: Option<u64>) {
        {
            let mut state = self.state();
            let wake = millis.map_or(u64::MAX, |millis| state.now + millis * 1_000);
            let one = &mut state.threads[thread];
            // One that is killed meanwhile is woken at once.
            one.wake = if one.is_killed { one.wake } else { wake };
            self.pass(&mut state, Some(thread));
        }
        self.wait_for_turn(thread);
    }

    fn wait_for_turn(&self, thread: usize) {
        let state = self.state();
        let state = self.turns[thread].wait_while(state, |state| state.turn != Some(thread));
        let state = state.expect("no panic under this lock");
        let (now, one) = (state.now, &state.threads[thread]);
        let reading = Reading {
            monotonic: now - one.suspended,
            boot: now,
            wall: shim::server_wall(now) + one.wall_offset,
        };
        let is_killed = one.is_killed;
        drop(state);
        shim::set_reading(Some(reading));
        if is_killed {
            let waker = CURRENT.with_borrow_mut(|current| {
                let current = current.as_mut()?;
                current.is_killed = true;
                current.killed.take()
            });
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

impl State {
    /// Returns the thread whose timer is the earliest; of several, a drawn one.
    fn next(&mut self) -> Option<(u64, usize)> {
        let mut earliest: Vec<usize> = vec![];
        let mut time = u64::MAX;
        for (index, thread) in self.threads.iter().enumerate().filter(|(_, thread)| thread.is_running) {
            let wake = thread.wake.max(thread.stopped_until);
            if wake < time {
                (time, earliest) = (wake, vec![]);
            }
            if wake == time {
                earliest.push(index);
            }
        }
        match earliest[..] {
            [] => None,
            _ if time == u64::MAX => None,
            [only] => Some((time, only)),
            _ => Some((time, *self.random.one_of(&earliest))),
        }
    }
}

/// Gives the turn back when a thread ends, also by a panic.
struct End {
    scheduler: Arc<Scheduler>,
    thread: usize,
}

impl Drop for End {
    fn drop(&mut self) {
        shim::set_reading(None);
        let mut state = self.scheduler.state();
        let one = &mut state.threads[self.thread];
        one.is_running = false;
        one.has_panicked = std::thread::panicking();
        self.scheduler.pass(&mut state, Some(self.thread));
    }
}

/// Sleeps in virtual time; for ever without a number.
pub fn sleep(millis: Option<u64>) {
    let current = CURRENT.with_borrow(|current| {
        current.as_ref().map(|current| (Arc::clone(&current.scheduler), current.thread))
    });
    let (scheduler, thread) = current.expect("a thread of a simulation");
    scheduler.sleep(thread, millis);
}

/// Returns the number of the instance that this thread runs.
pub fn current_thread() -> usize {
    CURRENT.with_borrow(|current| current.as_ref().expect("a thread of a simulation").thread)
}

/// Waits until the process is killed.
async fn killed() {
    std::future::poll_fn(|context| {
        CURRENT.with_borrow_mut(|current| {
            let current = current.as_mut().expect("a thread of a simulation");
            current.killed = Some(context.waker().clone());
            if current.is_killed { Poll::Ready(()) } else { Poll::Pending }
        })
    })
    .await;
}
