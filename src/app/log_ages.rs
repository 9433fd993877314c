//! Ages of the mutation log's numbers, by this process's own running clock.
//!
//! Entries carry times, but of other clocks, which may be wrong. When this process saw a number for
//! the first time is certain.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::BootTime;

/// Readings of the log's newest number.
#[derive(Default)]
pub(super) struct LogAges(VecDeque<(BootTime, u64)>);

impl LogAges {
    /// Records the newest number. A smaller one than before belongs to another history.
    pub(super) fn record(&mut self, newest: u64, now: BootTime) {
        if self.0.back().is_some_and(|(_, before)| newest < *before) {
            self.0.clear();
        }
        self.0.push_back((now, newest));
    }

    /// Returns the newest number that is at least `age` old; the readings before it are dropped.
    pub(super) fn older_than(&mut self, age: Duration, now: BootTime) -> Option<u64> {
        let is_old = |reading: Option<&(BootTime, u64)>| reading.is_some_and(|(at, _)| now.since(*at) >= age);
        while is_old(self.0.get(1)) {
            self.0.pop_front();
        }
        self.0.front().filter(|first| is_old(Some(first))).map(|(_, newest)| *newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_grow_old() {
        let at = |minute: u64| BootTime::from_micros(minute * 60_000_000);
        let hour = Duration::from_secs(3_600);
        let mut ages = LogAges::default();
        assert_eq!(ages.older_than(hour, at(0)), None);
        for minute in 0..120 {
            ages.record(minute * 10, at(minute));
        }
        assert_eq!(ages.older_than(hour, at(59)), None);
        assert_eq!(ages.older_than(hour, at(60)), Some(0));
        assert_eq!(ages.older_than(hour, at(119)), Some(590));
        assert_eq!(ages.0.len(), 61, "older readings are dropped");
        // The log was restored from a backup.
        ages.record(7, at(120));
        assert_eq!(ages.older_than(hour, at(179)), None);
        assert_eq!(ages.older_than(hour, at(180)), Some(7));
    }
}
