//! Log heads that lookups observed before a poll did.
//!
//! A lookup may see entry 7 and its tag while the last poll ended at 5. If the database then fails
//! over to a server that never had 6 and 7, and gives these numbers to other changes, nothing that
//! was polled shows that, and the row that the lookup read would pass for newer than the new 7. So
//! the next poll must find each observed head; otherwise the log was rewritten.

use std::collections::BTreeMap;

use super::log_tail::LogTail;

/// Most heads that are kept. More than that between two polls count as one that isn't found.
const MAX_HEADS: usize = 1 << 14;

/// Observed heads, by number.
#[derive(Default, Clone)]
pub(super) struct ObservedHeads {
    tags: BTreeMap<u64, u128>,
    /// True if a number was seen with two tags, or there were too many heads.
    is_contradictory: bool,
}

impl ObservedHeads {
    /// Adds a head.
    pub(super) fn insert(&mut self, n: u64, tag: u128) {
        self.is_contradictory |= self.tags.len() >= MAX_HEADS || *self.tags.entry(n).or_insert(tag) != tag;
    }

    /// Returns true if the log has all heads.
    pub(super) fn are_confirmed_by(&self, tail: &LogTail) -> bool {
        !self.is_contradictory && self.tags.iter().all(|(n, tag)| tail.contains(*n, *tag))
    }

    /// Removes confirmed heads; those that were added since stay.
    pub(super) fn remove_confirmed(&mut self, confirmed: &Self) {
        self.tags.retain(|n, tag| confirmed.tags.get(n) != Some(tag));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::LogEntry;

    #[test]
    fn each_observed_head_must_be_in_the_log() {
        let mut tail = LogTail::default();
        for n in 3..6 {
            tail.push(LogEntry { n, tag: u128::from(n) * 10, subject: None });
        }
        let observed = |seen: &[(u64, u128)]| {
            let mut heads = ObservedHeads::default();
            seen.iter().for_each(|(n, tag)| heads.insert(*n, *tag));
            heads
        };
        assert!(observed(&[]).are_confirmed_by(&tail));
        assert!(observed(&[(4, 40), (5, 50), (4, 40)]).are_confirmed_by(&tail));
        for bad in [&[(4, 41)][..], &[(6, 60)], &[(5, 50), (2, 20)], &[(4, 40), (4, 41)]] {
            assert!(!observed(bad).are_confirmed_by(&tail), "{bad:?}");
        }
        let many: Vec<_> = (0..=MAX_HEADS as u64).map(|n| (n, 0)).collect();
        assert!(!observed(&many).are_confirmed_by(&tail));

        let mut later = observed(&[(4, 40), (6, 60)]);
        later.remove_confirmed(&observed(&[(4, 40)]));
        tail.push(LogEntry { n: 6, tag: 60, subject: None });
        assert!(later.are_confirmed_by(&tail));
        assert_eq!(later.tags.len(), 1);
    }
}
