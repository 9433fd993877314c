//! Limits on log lines of one kind, which clients could otherwise cause as often as they send.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::BootTime;

/// Time between two log lines of one kind.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Most different texts of one kind in that time.
const MAX_TEXTS: usize = 16;

/// Limits log lines of one kind to one in [`LOG_INTERVAL`], for all threads together.
#[derive(Clone, Default)]
pub(super) struct LogLimiter(Arc<Mutex<Option<BootTime>>>);

impl LogLimiter {
    /// Returns whether a line may be logged now, and takes it for logged.
    pub(super) fn take(&self, now: BootTime) -> bool {
        let mut logged = self.0.lock();
        let is_allowed = logged.is_none_or(|at| now.since(at) >= LOG_INTERVAL);
        if is_allowed {
            *logged = Some(now);
        }
        is_allowed
    }
}

/// Limits log lines of one kind to one of each text in [`LOG_INTERVAL`], and to [`MAX_TEXTS`]
/// texts, for all threads together: a mistake that is made often doesn't hide another one.
#[derive(Clone, Default)]
pub(super) struct TextLimiter(Arc<Mutex<Texts>>);

#[derive(Default)]
struct Texts {
    /// Beginning of the interval. None before the first line.
    since: Option<BootTime>,
    /// Hashes of the texts that were logged in it.
    logged: HashSet<u64>,
    hasher: RandomState,
}

impl TextLimiter {
    /// Returns whether a line with this text may be logged now, and takes it for logged.
    pub(super) fn take(&self, text: &str, now: BootTime) -> bool {
        let mut texts = self.0.lock();
        if texts.since.is_none_or(|at| now.since(at) >= LOG_INTERVAL) {
            texts.since = Some(now);
            texts.logged.clear();
        }
        let hash = texts.hasher.hash_one(text);
        texts.logged.len() < MAX_TEXTS && texts.logged.insert(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn one_line_a_minute_is_logged_by_all_threads_together() {
        let limiter = LogLimiter::default();
        let of_another_thread = limiter.clone();
        assert!(limiter.take(at(5)));
        assert!(!limiter.take(at(5)) && !of_another_thread.take(at(64)));
        assert!(of_another_thread.take(at(65)));
        assert!(!limiter.take(at(66)) && !limiter.take(at(124)) && limiter.take(at(125)));
    }

    #[test]
    fn each_of_some_texts_is_logged_once_a_minute() {
        let limiter = TextLimiter::default();
        let of_another_thread = limiter.clone();
        assert!(limiter.take("a", at(5)) && of_another_thread.take("b", at(6)));
        assert!(!of_another_thread.take("a", at(64)) && !limiter.take("b", at(64)));
        assert!(limiter.take("b", at(65)) && !limiter.take("b", at(66)));
        let taken = (0..1_000).filter(|n| limiter.take(&format!("text {n}"), at(67))).count();
        assert_eq!(taken, MAX_TEXTS - 1, "whoever may choose the text");
        assert!(limiter.take("b", at(125)));
    }
}
