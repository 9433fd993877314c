//! The process-wide part: one cache and one stream for each server, for all filter configurations
//! and their successors.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use arc_swap::{ArcSwapOption, Guard};
use parking_lot::Mutex;

use crate::client;
use crate::config::ConfigError;
use crate::state::State;

/// Most servers of one process.
const MAX_ACCELERATORS: usize = 16;
/// Most lines that wait to be logged.
const MAX_NOTES: usize = 16;

static ACCELERATORS: Mutex<Vec<Arc<Accelerator>>> = Mutex::new(Vec::new());

/// Connection with one server, and what is known from it.
pub(crate) struct Accelerator {
    socket: PathBuf,
    max_bytes: AtomicU64,
    /// What the stream that is open has told; `None` while there is none.
    state: ArcSwapOption<State>,
    started: Once,
    /// Filter configurations that have it.
    users: AtomicUsize,
    /// True if it made room for another: its thread ends.
    is_over: AtomicBool,
    /// Lines for Envoy's log. This thread must not write them: while Envoy ends, its log may be
    /// gone before the thread.
    notes: Mutex<Vec<String>>,
    has_notes: AtomicBool,
}

impl Accelerator {
    /// Returns the one for a socket, with a new bound for its next stream. It stays when its last
    /// configuration is dropped, as a successor may come, until its place is needed.
    ///
    /// # Errors
    /// Fails if there are too many.
    pub(crate) fn of_socket(socket: &Path, max_bytes: u64) -> Result<User, ConfigError> {
        let mut all = ACCELERATORS.lock();
        if let Some(found) = all.iter().find(|one| one.socket == socket) {
            found.max_bytes.store(max_bytes, Ordering::Relaxed);
            return Ok(User::new(found));
        }
        if all.len() >= MAX_ACCELERATORS {
            let unused = all.iter().position(|one| one.users.load(Ordering::Acquire) == 0);
            let unused = all.swap_remove(unused.ok_or(ConfigError::Sockets(MAX_ACCELERATORS))?);
            unused.is_over.store(true, Ordering::Release);
        }
        let new = Arc::new(Self::new(socket.to_owned(), max_bytes));
        all.push(Arc::clone(&new));
        Ok(User::new(&new))
    }

    /// Returns true if its thread must end.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Creates one that nobody else shares.
    fn new(socket: PathBuf, max_bytes: u64) -> Self {
        Self {
            socket,
            max_bytes: AtomicU64::new(max_bytes),
            state: ArcSwapOption::empty(),
            started: Once::new(),
            users: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            notes: Mutex::default(),
            has_notes: AtomicBool::new(false),
        }
    }

    /// Returns the socket of the server.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Returns the bytes that entries may take.
    pub(crate) fn max_bytes(&self) -> u64 {
        self.max_bytes.load(Ordering::Relaxed)
    }

    /// Starts the thread that speaks with the server, at the first call: not when a configuration
    /// is only validated.
    pub(crate) fn start(self: &Arc<Self>) {
        self.started.call_once(|| {
            let own = Arc::clone(self);
            let thread = std::thread::Builder::new().name("talos-module".to_owned());
            if let Err(error) = thread.spawn(move || client::run(&own)) {
                self.note(format!("no thread for the stream can be started: {error}"));
            }
        });
    }

    /// Returns what is known.
    pub(crate) fn state(&self) -> Guard<Option<Arc<State>>> {
        self.state.load()
    }

    /// Replaces what is known; returns what was. The caller keeps that for a while: a thread of
    /// Envoy's that looks at it just now must not be the one that frees all its entries.
    #[must_use]
    pub(crate) fn set_state(&self, state: Option<Arc<State>>) -> Option<Arc<State>> {
        self.state.swap(state)
    }

    /// Notes a line for Envoy's log. Must not contain a secret.
    pub(crate) fn note(&self, line: String) {
        let mut notes = self.notes.lock();
        if notes.len() < MAX_NOTES {
            notes.push(line);
        }
        self.has_notes.store(true, Ordering::Release);
    }

    /// Returns the lines since the last call.
    pub(crate) fn take_notes(&self) -> Vec<String> {
        // Loaded first: this is asked for each request, and a load can be shared.
        if !self.has_notes.load(Ordering::Relaxed) || !self.has_notes.swap(false, Ordering::AcqRel) {
            return vec![];
        }
        std::mem::take(&mut self.notes.lock())
    }
}

/// Use by one filter configuration.
pub(crate) struct User(Arc<Accelerator>);

impl User {
    fn new(accelerator: &Arc<Accelerator>) -> Self {
        accelerator.users.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(accelerator))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.0.users.fetch_sub(1, Ordering::AcqRel);
    }
}

impl std::ops::Deref for User {
    type Target = Arc<Accelerator>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_bounded_and_those_out_of_use_make_room() {
        let path = |n: usize| PathBuf::from(format!("/nonexistent/{n}"));
        let of_socket = |n| Accelerator::of_socket(&path(n), 1_000_000);
        let mut used: Vec<User> = (0..MAX_ACCELERATORS).map(|n| of_socket(n).unwrap()).collect();
        let again = of_socket(3).unwrap();
        assert!(Arc::ptr_eq(&again, &used[3]));
        assert!(of_socket(100).is_err());
        drop(again);
        assert!(of_socket(100).is_err(), "one configuration still has it");
        let removed = Arc::clone(&used[3]);
        drop(used.remove(3));
        assert!(!removed.is_over());
        let _new = of_socket(100).unwrap();
        assert!(removed.is_over());
    }
}
