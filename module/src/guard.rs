//! Containment of panics: a hook that panics does nothing, and nothing is accelerated for a while.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Time after a caught panic in which nothing is accelerated.
pub(crate) const PAUSE: Duration = Duration::from_secs(60);

/// Panics of this process that were caught.
pub(crate) struct Panics {
    /// Boot time of the last one in microseconds; 0 before the first.
    last: AtomicU64,
    /// Panics that aren't in Envoy's counter yet.
    uncounted: AtomicU64,
}

/// Panics of the process: all filters pause together.
pub(crate) static PANICS: Panics = Panics::new();

impl Panics {
    pub(crate) const fn new() -> Self {
        Self { last: AtomicU64::new(0), uncounted: AtomicU64::new(0) }
    }

    /// Runs a hook's body. After a panic it returns `fallback`, and nothing is accelerated until
    /// [`PAUSE`] is over. A panic must not unwind into Envoy, which would end.
    pub(crate) fn contain<T>(&self, now_micros: fn() -> u64, fallback: T, body: impl FnOnce() -> T) -> T {
        match catch_unwind(AssertUnwindSafe(body)) {
            Ok(result) => result,
            Err(payload) => {
                // What drops a payload may panic again.
                std::mem::forget(payload);
                self.last.store(now_micros().max(1), Ordering::Release);
                self.uncounted.fetch_add(1, Ordering::Relaxed);
                fallback
            }
        }
    }

    /// Returns true while the module must do nothing.
    pub(crate) fn is_pausing(&self, now_micros: fn() -> u64) -> bool {
        match self.last.load(Ordering::Acquire) {
            0 => false,
            last => now_micros().saturating_sub(last) < PAUSE.as_micros() as u64,
        }
    }

    /// Returns the panics since the last call.
    pub(crate) fn take_uncounted(&self) -> u64 {
        // Loaded first: this is asked for each request, and a load can be shared.
        if self.uncounted.load(Ordering::Relaxed) == 0 {
            0
        } else {
            self.uncounted.swap(0, Ordering::Relaxed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_contained_counted_and_followed_by_a_pause() {
        static NOW: AtomicU64 = AtomicU64::new(5_000_000);
        let now = || NOW.load(Ordering::SeqCst);
        let panics = Panics::new();
        assert_eq!(panics.contain(now, 0, || 1), 1);
        assert!(!panics.is_pausing(now));
        assert_eq!(panics.take_uncounted(), 0);
        assert_eq!(panics.contain(now, 0, || panic!("as it must")), 0);
        assert!(panics.is_pausing(now));
        assert_eq!((panics.take_uncounted(), panics.take_uncounted()), (1, 0));
        NOW.fetch_add(59_999_999, Ordering::SeqCst);
        assert!(panics.is_pausing(now));
        NOW.fetch_add(1, Ordering::SeqCst);
        assert!(!panics.is_pausing(now));
    }
}
