//! Grace periods that last as long as the old key is used.

use std::time::Duration;

use crate::clock::Timestamp;

/// End of a rotated key that its uses put off. [`super::Key::superseded`] is that end as of the
/// last recorded use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnusedGrace {
    /// Time without a use after which the key ends.
    pub after: Duration,
    /// Latest end, however much it is used.
    pub latest: Timestamp,
}

impl UnusedGrace {
    /// Shortest time without a use: uses are recorded with delays.
    pub const MIN_AFTER: Duration = Duration::from_secs(60 * 60);
    /// Longest time for which uses put the end off.
    pub const MAX_EXTENSION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

    /// Returns how precisely uses have to be recorded.
    pub const fn precision(self) -> Duration {
        Duration::from_micros(self.after.as_micros() as u64 / 8)
    }
}
