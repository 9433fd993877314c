//! Newest entries of the log that are applied here.

use std::collections::VecDeque;

use crate::store::LogEntry;

/// Entries that are kept; a row in Redis with an older stamp is read from the database again.
const MAX_ENTRIES: usize = 1 << 16;

/// Entries in order, without a gap.
#[derive(Default)]
pub(super) struct LogTail(VecDeque<LogEntry>);

impl LogTail {
    /// Appends the next entry; drops the oldest one if there are too many.
    pub(super) fn push(&mut self, entry: LogEntry) {
        if self.0.len() == MAX_ENTRIES {
            self.0.pop_front();
        }
        self.0.push_back(entry);
    }

    /// Removes all entries.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the newest entry.
    pub(super) fn newest(&self) -> Option<&LogEntry> {
        self.0.back()
    }

    /// Returns true if entry `n` is here and has this tag.
    pub(super) fn contains(&self, n: u64, tag: u128) -> bool {
        self.index(n)
            .and_then(|index| self.0.get(index))
            .is_some_and(|entry| (entry.n, entry.tag) == (n, tag))
    }

    /// Returns at most `max` entries from number `n` on.
    pub(super) fn entries_from(&self, n: u64, max: usize) -> Vec<LogEntry> {
        self.index(n).map_or_else(Vec::new, |index| self.0.iter().skip(index).take(max).cloned().collect())
    }

    fn index(&self, n: u64) -> Option<usize> {
        usize::try_from(n.checked_sub(self.0.front()?.n)?).ok()
    }
}

/// Returns true if no number is missing between the first and the last entry.
pub(super) fn is_gapless(entries: &[LogEntry]) -> bool {
    entries.windows(2).all(|pair| pair[1].n == pair[0].n + 1)
}
