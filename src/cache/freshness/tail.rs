//! The newest entries of the log, as far as they are taken in.

use std::collections::VecDeque;

use crate::store::Logged;

/// Most entries kept; what is stamped with an older one is read from the database again.
const MAX_TAIL: usize = 1 << 16;

/// Entries in order, without a gap.
#[derive(Default)]
pub(super) struct Tail(VecDeque<Logged>);

impl Tail {
    pub fn push(&mut self, entry: Logged) {
        if self.0.len() == MAX_TAIL {
            self.0.pop_front();
        }
        self.0.push_back(entry);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn newest(&self) -> Option<&Logged> {
        self.0.back()
    }

    pub fn has(&self, n: u64, tag: u128) -> bool {
        self.place(n)
            .and_then(|place| self.0.get(place))
            .is_some_and(|entry| (entry.n, entry.tag) == (n, tag))
    }

    /// The entries from number `n` on, `most` of them at most.
    pub fn part(&self, n: u64, most: usize) -> Vec<Logged> {
        self.place(n).map_or_else(Vec::new, |place| self.0.iter().skip(place).take(most).cloned().collect())
    }

    fn place(&self, n: u64) -> Option<usize> {
        usize::try_from(n.checked_sub(self.0.front()?.n)?).ok()
    }
}

/// Whether no number is missing.
pub(super) fn is_gapless(part: &[Logged]) -> bool {
    part.windows(2).all(|pair| pair[1].n == pair[0].n + 1)
}
