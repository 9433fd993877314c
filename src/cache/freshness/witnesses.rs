//! What lookups have seen of the log before a poll did.
//!
//! A lookup may see number 7 and its tag while the last poll ended at 5. If the database then fails over to one that
//! never had 6 and 7, and gives those numbers out again, nothing that was polled shows it; and what the lookup brought
//! would pass for newer than the new 7. So the next poll must find each entry that was seen, or history was rewritten.

use std::collections::BTreeMap;

use super::tail::Tail;

/// Most that are kept. More than that between two polls is as good as one that isn't found.
const MAX: usize = 1 << 14;

#[derive(Default, Clone)]
pub(super) struct Witnesses {
    seen: BTreeMap<u64, u128>,
    contradicted: bool,
}

impl Witnesses {
    pub fn note(&mut self, n: u64, tag: u128) {
        self.contradicted |= self.seen.len() >= MAX || *self.seen.entry(n).or_insert(tag) != tag;
    }

    /// Whether the log has all of them.
    pub fn are_confirmed_by(&self, tail: &Tail) -> bool {
        !self.contradicted && self.seen.iter().all(|(n, tag)| tail.has(*n, *tag))
    }

    /// Those of the others that came later stay.
    pub fn forget_all_of(&mut self, confirmed: &Self) {
        self.seen.retain(|n, tag| confirmed.seen.get(n) != Some(tag));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Logged;

    #[test]
    fn all_that_was_seen_must_be_there() {
        let mut tail = Tail::default();
        for n in 3..6 {
            tail.push(Logged { n, tag: u128::from(n) * 10, subject: None });
        }
        let of = |seen: &[(u64, u128)]| {
            let mut witnesses = Witnesses::default();
            seen.iter().for_each(|(n, tag)| witnesses.note(*n, *tag));
            witnesses
        };
        assert!(of(&[]).are_confirmed_by(&tail));
        assert!(of(&[(4, 40), (5, 50), (4, 40)]).are_confirmed_by(&tail));
        for bad in [&[(4, 41)][..], &[(6, 60)], &[(5, 50), (2, 20)], &[(4, 40), (4, 41)]] {
            assert!(!of(bad).are_confirmed_by(&tail), "{bad:?}");
        }
        let many: Vec<_> = (0..=MAX as u64).map(|n| (n, 0)).collect();
        assert!(!of(&many).are_confirmed_by(&tail));

        let mut later = of(&[(4, 40), (6, 60)]);
        later.forget_all_of(&of(&[(4, 40)]));
        tail.push(Logged { n: 6, tag: 60, subject: None });
        assert!(later.are_confirmed_by(&tail));
        assert_eq!(later.seen.len(), 1);
    }
}
