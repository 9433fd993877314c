//! Guards the deny list against a truncated file: a list that removes many keys has to stand
//! unchanged for a while before it is applied.

use std::sync::Arc;

use crate::key::deny::{DenyList, MAX_IDS};

/// A list may remove one in this many keys of the list in force without confirmation.
const REMOVABLE_SHARE: usize = 10;

/// A list that can't be held, as together with the list in force it has too many keys.
#[derive(Debug, thiserror::Error)]
#[error("names too many others than the list in force: more than {} key ids together", 2 * MAX_IDS)]
pub(super) struct TooManyTogether;

/// Decides whether keys that the file no longer names are removed from the list in force.
pub(super) struct ShrinkGuard {
    /// Looks at an unchanged file after which a held list is confirmed.
    confirmation_looks: u128,
    /// The list before the first of the recent removals, and the looks since. Many small removals
    /// count as a large one.
    base: Option<(Arc<DenyList>, u128)>,
    held: Option<Held>,
}

/// A list that waits for confirmation.
struct Held {
    list: DenyList,
    /// Looks since it was first read.
    looks: u128,
}

/// The decision about a list that was read.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// Put the list into force.
    Apply {
        /// The list.
        list: DenyList,
        /// Keys that are no longer refused.
        lifted: usize,
        /// True if the list had to be confirmed.
        was_held: bool,
    },
    /// Refuse the keys of the list and of the one in force.
    Hold {
        /// Keys of both lists.
        together: DenyList,
        /// Keys of the list in force that the new list doesn't name.
        held: usize,
        /// True if the list is held for the first time.
        is_new: bool,
    },
}

impl ShrinkGuard {
    /// Confirms a list after this many looks at an unchanged file.
    pub(super) fn new(confirmation_looks: u128) -> Self {
        Self { confirmation_looks, base: None, held: None }
    }

    /// Decides about a list that was read.
    ///
    /// # Errors
    /// When the list has to be held, and has too many keys together with the one in force.
    pub(super) fn judge(
        &mut self,
        list: DenyList,
        in_force: &Arc<DenyList>,
    ) -> Result<Verdict, TooManyTogether> {
        let lifted = in_force.count_not_in(&list);
        let looks = self.held.take().filter(|held| held.list == list).map(|held| held.looks);
        let removes_many = |from: &DenyList, lifted: usize| lifted * REMOVABLE_SHARE > from.len();
        let is_many = removes_many(in_force, lifted)
            || self.base.as_ref().is_some_and(|(base, _)| removes_many(base, base.count_not_in(&list)));
        if lifted > 0 && is_many && looks.is_none_or(|looks| looks < self.confirmation_looks) {
            let together = in_force.union(&list).ok_or(TooManyTogether)?;
            self.held = Some(Held { list, looks: looks.unwrap_or(0) });
            return Ok(Verdict::Hold { together, held: lifted, is_new: looks.is_none() });
        }
        let was_held = lifted > 0 && is_many;
        if was_held {
            self.base = None;
        } else if lifted > 0 && self.base.is_none() {
            self.base = Some((Arc::clone(in_force), 0));
        }
        Ok(Verdict::Apply { list, lifted, was_held })
    }

    /// Returns true if a held list has stood unchanged for long enough to be read again.
    pub(super) fn is_confirmation_due(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.looks >= self.confirmation_looks)
    }

    /// Drops a held list, whose wait would begin anew.
    pub(super) fn forget_held(&mut self) {
        self.held = None;
    }

    /// Counts a look.
    pub(super) fn tick(&mut self) {
        if let Some(held) = &mut self.held {
            held.looks += 1;
        }
        self.base = self.base.take().map(|(base, looks)| (base, looks + 1));
        self.base.take_if(|(_, looks)| *looks > self.confirmation_looks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOKS: u128 = 40;

    fn list(ids: std::ops::Range<u128>) -> DenyList {
        let text: String = ids.map(|id| format!("{}\n", uuid::Uuid::from_u128(id))).collect();
        DenyList::parse(text.as_bytes()).unwrap()
    }

    /// A guard with the list in force.
    struct World(ShrinkGuard, Arc<DenyList>);

    impl World {
        fn of(in_force: std::ops::Range<u128>) -> Self {
            Self(ShrinkGuard::new(LOOKS), Arc::new(list(in_force)))
        }

        /// Reads a file. Returns the number of keys held and of keys refused then.
        fn reads(&mut self, file: std::ops::Range<u128>) -> (usize, usize) {
            let (list, held) = match self.0.judge(list(file), &self.1).unwrap() {
                Verdict::Apply { list, .. } => (list, 0),
                Verdict::Hold { together, held, .. } => (together, held),
            };
            self.1 = Arc::new(list);
            (held, self.1.len())
        }

        fn looks(&mut self, times: u128) -> bool {
            (0..times).for_each(|_| self.0.tick());
            self.0.is_confirmation_due()
        }
    }

    #[test]
    fn a_tenth_is_lifted_at_once_and_more_after_confirmation() {
        let mut world = World::of(0..100);
        assert_eq!(world.reads(10..100), (0, 90));
        let mut world = World::of(0..100);
        assert_eq!(world.reads(11..100), (11, 100));
        assert!(!world.looks(LOOKS - 1), "not yet");
        assert_eq!(world.reads(11..100), (11, 100), "read again, and the same");
        assert!(world.looks(1));
        assert_eq!(world.reads(11..100), (0, 89));
        assert!(!world.looks(LOOKS), "that was it");
    }

    #[test]
    fn added_keys_count_at_once_and_a_changed_file_begins_anew() {
        let mut world = World::of(0..100);
        assert_eq!(world.reads(0..0), (100, 100), "truncated");
        assert!(!world.looks(LOOKS - 1));
        assert_eq!(world.reads(100..120), (100, 120), "written to");
        assert!(!world.looks(LOOKS - 1));
        assert_eq!(world.reads(0..0), (120, 120), "truncated again");
        assert_eq!(world.reads(0..120), (0, 120), "made whole");
        assert!(!world.looks(LOOKS));
        assert_eq!(world.reads(0..121), (0, 121), "added to");
    }

    #[test]
    fn many_small_steps_are_a_large_one() {
        let mut world = World::of(0..100);
        assert_eq!(world.reads(6..100), (0, 94));
        assert_eq!(world.reads(11..100), (5, 94), "five more");
        assert!(world.looks(LOOKS));
        assert_eq!(world.reads(11..100), (0, 89));
        assert_eq!(world.reads(18..100), (0, 82));
        world.looks(LOOKS + 1);
        assert_eq!(world.reads(26..100), (0, 74), "later");
    }

    #[test]
    fn a_short_list_needs_confirmation_for_each_key_as_does_one_of_other_keys() {
        let mut world = World::of(0..9);
        assert_eq!(world.reads(1..9), (1, 9));
        let mut world = World::of(0..9);
        assert_eq!(world.reads(9..18), (9, 18), "it replaces all of them");
        let mut world = World::of(0..0);
        assert_eq!((world.reads(0..0), world.reads(0..5)), ((0, 0), (0, 5)));
    }
}
