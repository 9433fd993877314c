//! Waiting with a deadline.

use std::time::Duration;

/// Tries, and the time between two of them: 30 s in all.
const TRIES: usize = 1_500;
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// Asks again and again until it is true; gives up with `what` after 30 s.
pub fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    for _ in 0..TRIES {
        if is_true() {
            return;
        }
        std::thread::sleep(BETWEEN_TRIES);
    }
    panic!("gave up waiting: {what}");
}
