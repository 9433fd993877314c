//! Changes that this process knows of, applied to what is cached.

use std::sync::atomic::Ordering;

use tokio::sync::watch;

use super::{Freshness, SLOTS, Slot};
use crate::key::{ActorId, KeyId, NetworkId};
use crate::mutants::{self, Mutant};
use crate::store::Mutation;

impl Freshness {
    /// Applies a change: older rows of its key aren't fresh any more.
    pub fn apply(&self, mutation: &Mutation) {
        let slot = Slot::for_key(mutation.network, mutation.key_id);
        self.ledger.raise(slot.key_index(), self.ledger.lineage(), mutation.n * 2);
        self.record_written(mutation.n);
    }

    /// Applies change number `n` of an actor: older rows of all its keys aren't fresh any more.
    pub fn apply_to_actor(&self, network: NetworkId, actor: &ActorId, n: u64) {
        let slot = Slot { key: 0, actor: 0 }.with_actor(network, actor);
        if !mutants::is_on(Mutant::ActorsIgnored) {
            self.ledger.raise(slot.actor_index(), self.ledger.lineage(), n * 2);
        }
        self.record_written(n);
    }

    /// Invalidates the rows of all keys after a change of an actor with unknown outcome, as
    /// [`Freshness::invalidate_unknown`] does for one key. Which keys an actor has isn't known
    /// before their rows are read; and this happens only when the database fails.
    pub fn invalidate_all_unknown(&self) {
        (0..SLOTS).for_each(|slot| self.raise_unknown(slot));
    }

    /// Records that this process wrote number `n` of the log: a log without it is rewritten.
    pub fn record_written(&self, n: u64) {
        if self.newest.fetch_max(n, Ordering::AcqRel) < n {
            self.progress.send_replace(());
        }
    }

    /// Returns a receiver that is told each time when a newer number of the log becomes known here,
    /// or that the log was rewritten.
    pub fn progress(&self) -> watch::Receiver<()> {
        self.progress.subscribe()
    }

    /// Invalidates a key's rows after a change with unknown outcome: rows that were read before now
    /// aren't fresh, those that are read from now on are. If the change was committed after all, a
    /// poll applies it.
    pub fn invalidate_unknown(&self, network: NetworkId, key_id: KeyId) {
        self.raise_unknown(Slot::for_key(network, key_id).key_index());
    }

    fn raise_unknown(&self, slot: usize) {
        loop {
            // The lineage is read first, so that the number belongs to it or to a later one.
            let lineage = self.ledger.lineage();
            self.ledger.raise(slot, lineage, self.newest() * 2 + 1);
            if self.ledger.lineage() == lineage {
                return;
            }
        }
    }
}
