//! Changes for another process that keeps entries of its own: the values of slots that it wasn't
//! sent yet, and the age of the lease by which they are complete.
//!
//! The slots themselves are compared, not the log: they include changes with unknown outcome, and
//! no entry of the log can be missed.

use std::time::Duration;

use super::ledger::pack;
use super::{Freshness, Slot, Stamp};

/// Values of slots that one follower was sent.
pub struct Follower {
    sent: Box<[u64]>,
    lineage: u64,
}

/// New value of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotChange {
    /// Position of the slot.
    pub slot: u32,
    /// Least stamp of a fresh row, as [`Freshness::position`] gives it.
    pub value: u64,
}

/// Everything that is new to a follower.
#[derive(Debug)]
pub struct FollowerUpdate {
    /// Age of the lease whose changes are complete with these; `None` unless it is valid.
    pub age: Option<Duration>,
    /// Slots with other values than before.
    pub changes: Vec<SlotChange>,
}

/// The log was rewritten: everything that a follower has is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log was rewritten; everything that was cached is stale")]
pub struct LineageEnded;

impl Freshness {
    /// Begins to follow: the follower has no entries, so that only later changes matter to it.
    pub fn follower(&self) -> Follower {
        // The lineage first: if another one begins meanwhile, the first update says so.
        let lineage = self.ledger.lineage();
        Follower { sent: (0..self.ledger.len()).map(|slot| self.ledger.value(slot)).collect(), lineage }
    }

    /// Returns what is new to a follower, and notes that it is sent.
    ///
    /// # Errors
    /// Fails if another lineage has begun.
    pub fn update(&self, follower: &mut Follower) -> Result<FollowerUpdate, LineageEnded> {
        // The lease before any slot: its changes are there to be seen then.
        let age = self.age().filter(|age| *age <= self.config.lease);
        let mut changes = vec![];
        for (slot, sent) in follower.sent.iter_mut().enumerate() {
            let value = self.ledger.value(slot);
            if value != *sent {
                *sent = value;
                changes.push(SlotChange { slot: u32::try_from(slot).unwrap_or(u32::MAX), value });
            }
        }
        match self.ledger.lineage() == follower.lineage {
            true => Ok(FollowerUpdate { age, changes }),
            false => Err(LineageEnded),
        }
    }

    /// Returns a stamp in the form in which it compares with values of slots, and the positions of
    /// the slots.
    pub fn position(slot: Slot, stamp: Stamp) -> (u64, [u32; 2]) {
        let indices = slot.indices().map(|index| u32::try_from(index).unwrap_or(u32::MAX));
        (pack(stamp.lineage, stamp.at), indices)
    }
}

#[cfg(test)]
mod tests {
    use super::super::poll::lease_from;
    use super::super::{ACTOR_SLOTS, LeaseConfig, SLOTS};
    use super::*;
    use crate::clock::{Clock, Timestamp};
    use crate::key::{ActorId, KeyId, NetworkId};
    use crate::store::Mutation;

    const LEASE: Duration = Duration::from_secs(5);
    const NETWORK: NetworkId = NetworkId::SINGLE;
    const KEY: KeyId = KeyId::Imported([7; 32]);

    fn freshness(clock: &Clock) -> Freshness {
        let zero = Duration::ZERO;
        let config = LeaseConfig { lease: LEASE, poll: LEASE, relay: zero, grace: zero };
        Freshness::new(clock.clone(), config, zero)
    }

    #[test]
    fn a_follower_is_sent_each_change_once_and_the_age_of_a_valid_lease() {
        let clock = Clock::manual(Timestamp::from_secs(1_000));
        let freshness = freshness(&clock);
        let mut follower = freshness.follower();
        assert_eq!(freshness.update(&mut follower).unwrap().age, None);
        freshness.ledger.extend(lease_from(clock.moment()));
        clock.advance(LEASE / 2);
        let update = freshness.update(&mut follower).unwrap();
        assert_eq!((update.age, update.changes.len()), (Some(LEASE / 2), 0));

        let actor = ActorId::parse("team-a").unwrap();
        let slot = Slot::for_key(NETWORK, KEY).with_actor(NETWORK, &actor);
        let stamp = freshness.before_read(slot).stamp(3);
        let (value, [key, actor_slot]) = Freshness::position(slot, stamp);
        assert!(
            (key as usize) < SLOTS
                && (SLOTS..SLOTS + usize::from(ACTOR_SLOTS)).contains(&(actor_slot as usize))
        );
        freshness.apply(&Mutation { n: 4, network: NETWORK, key_id: KEY });
        freshness.apply_to_actor(NETWORK, &actor, 5);
        let changes = freshness.update(&mut follower).unwrap().changes;
        let slots: Vec<u32> = changes.iter().map(|change| change.slot).collect();
        assert_eq!(slots, [key, actor_slot]);
        assert!(changes.iter().all(|change| change.value > value));
        assert_eq!(freshness.update(&mut follower).unwrap().changes, []);
        let later = freshness.before_read(slot).stamp(5);
        assert!(changes.iter().all(|change| change.value <= Freshness::position(slot, later).0));

        freshness.invalidate_unknown(NETWORK, KEY);
        assert_eq!(freshness.update(&mut follower).unwrap().changes.len(), 1);
        clock.advance(LEASE);
        assert_eq!(freshness.update(&mut follower).unwrap().age, None);
    }

    #[test]
    fn another_lineage_ends_it() {
        let freshness = freshness(&Clock::manual(Timestamp::from_secs(1_000)));
        let mut follower = freshness.follower();
        freshness.ledger.next_lineage();
        assert_eq!(freshness.update(&mut follower).unwrap_err(), LineageEnded);
        assert!(freshness.update(&mut freshness.follower()).is_ok());
    }
}
