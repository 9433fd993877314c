//! Looking a key up where L1 doesn't know it: in L2, then in the database; one lookup a key at a time.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::verify::Unavailable;
use super::{Fetched, Found, Service, unavailable};
use crate::cache::freshness::{Freshness, Mode, Slot, Stamp};
use crate::cache::memory::{Answers, Entry, Index, LastUse, Memory, Unknown};
use crate::cache::shared::{Shared, SharedEntry};
use crate::clock::Timestamp;
use crate::credential::secrets::HmacSecrets;
use crate::key::{Key, KeyId, NetworkId};
use crate::settings::Settings;
use crate::store::Store;
use crate::trace;

/// What the caches have to do with a lookup.
#[derive(Clone, Copy)]
pub(super) struct CacheAccess {
    /// They may answer.
    pub reads: bool,
    /// They may learn the answer.
    pub writes: bool,
}

/// Where in L1 a lookup's answer belongs, and what makes an entry of it.
#[derive(Clone)]
pub(super) struct Place {
    pub memory: Memory,
    pub index: Index,
    pub key_id: KeyId,
    /// Whether nothing but the database can say that there is such a key.
    pub is_guess: bool,
    pub slot: Slot,
    /// Of the settings under which possession was proven.
    pub generation: u64,
    /// When that proof ends.
    pub proof_ends: Option<Timestamp>,
    pub cache_ttl: Duration,
    pub negative_ttl: Duration,
}

impl Place {
    /// An entry for a key.
    pub fn entry(&self, key: Arc<Key>, stamp: Stamp, read: Timestamp) -> Arc<Entry> {
        Arc::new(Entry {
            stamp,
            slot: self.slot,
            generation: self.generation,
            soft_expiry: read.plus(self.cache_ttl),
            hard_expiry: self.proof_ends.into_iter().chain(key.ends()).min(),
            last_use: LastUse::new(key.last_used),
            answers: Answers::default(),
            holder: OnceLock::new(),
            key,
        })
    }

    fn remember(&self, found: &Found) {
        match &found.key {
            Some(key) => {
                let entry = self.entry(Arc::clone(key), found.stamp, found.read);
                self.memory.insert(self.index, entry);
            }
            None => {
                let expires = found.read.plus(self.negative_ttl);
                let Self { key_id, slot, generation, .. } = *self;
                let unknown = Unknown { key_id, stamp: found.stamp, slot, generation, expires };
                self.memory.insert_unknown(self.index, unknown);
            }
        }
    }

    /// What a lookup that has just ended left there.
    fn recall(&self, freshness: &Freshness, now: Timestamp) -> Option<Found> {
        let found = match self.memory.get(&self.index) {
            Some(entry) if now < entry.soft_expiry => {
                Found { key: Some(Arc::clone(&entry.key)), stamp: entry.stamp, read: now }
            }
            Some(_) => return None,
            None => {
                let unknown = self.memory.unknown(&self.index).filter(|unknown| now < unknown.expires)?;
                Found { key: None, stamp: unknown.stamp, read: now }
            }
        };
        freshness.allows(self.slot, found.stamp).then_some(found)
    }
}

/// L2 and what is needed to believe it.
struct Sharing {
    shared: Arc<Shared>,
    store: Store,
    secrets: HmacSecrets,
    freshness: Arc<Freshness>,
}

impl Service {
    /// Looks a key up, sharing the lookup with whoever wants the same and may be told what is cached.
    pub(super) async fn fetch(
        &self,
        settings: &Settings,
        key_id: KeyId,
        place: &Place,
        access: CacheAccess,
    ) -> Fetched {
        let (network, slot) = (settings.network, place.slot);
        // A lookup that was under way when the key changed may have missed it: it is repeated once, by the database.
        for reads in [access.reads, false] {
            let reads_shared = reads && self.shared.is_some();
            // When a poll has just failed, asking the database would only wait for the same failure.
            let asks_database = self.freshness.mode() == Mode::Fresh;
            if !asks_database && !reads_shared {
                break;
            }
            let look_up = || {
                let sharing = self.sharing(settings);
                let pending = self.freshness.begin(slot);
                let (store, clock, ttl) = (self.store.clone(), self.clock.clone(), settings.cache_ttl);
                let (freshness, place) = (Arc::clone(&self.freshness), place.clone());
                let bulkhead = Arc::clone(&self.bulkhead);
                trace::with_current_span(async move {
                    // Somebody's lookup may have ended between our look into L1 and this.
                    if let Some(found) =
                        Some(&place).filter(|_| reads).and_then(|place| place.recall(&freshness, clock.now()))
                    {
                        return Ok(found);
                    }
                    if let Some(sharing) = sharing.as_ref().filter(|_| reads_shared)
                        && let Some(found) = trace::in_child_span(
                            "redis",
                            sharing.find(network, key_id, slot, clock.now(), ttl),
                        )
                        .await
                    {
                        if access.writes {
                            place.remember(&found);
                        }
                        return Ok(found);
                    }
                    if !asks_database {
                        return Err(Unavailable);
                    }
                    let _inside = match place.is_guess {
                        true => Some(bulkhead.enter().await.ok_or(Unavailable)?),
                        false => None,
                    };
                    let read = clock.now();
                    let found = trace::in_child_span("database", store.find_key(network, key_id))
                        .await
                        .map_err(|error| {
                            unavailable(error);
                            Unavailable
                        })?;
                    let key = found.key;
                    if let (Some(key), Some(sharing), true) = (&key, &sharing, access.writes) {
                        let (counter, tag) = (found.counter, found.tag);
                        let entry = SharedEntry { key: (**key).clone(), counter, tag, filled: read };
                        sharing.shared.put(&sharing.secrets, &entry, ttl);
                    }
                    let found =
                        Found { key, stamp: freshness.stamp(pending, found.counter, found.tag), read };
                    // Before the flight ends: whoever finds it gone finds this.
                    if access.writes {
                        place.remember(&found);
                    }
                    Ok(found)
                })
            };
            let fetched = match access.reads {
                true => self.lookups.join((network, key_id, reads), look_up).await,
                // Who wants the database's word wants it as of now: a lookup under way may have read already.
                false => tokio::spawn(look_up()).await.ok(),
            };
            let found = fetched.unwrap_or(Err(Unavailable))?;
            if self.freshness.allows(slot, found.stamp) {
                return Ok(found);
            }
        }
        Err(Unavailable)
    }

    fn sharing(&self, settings: &Settings) -> Option<Sharing> {
        let shared = Arc::clone(self.shared.as_ref()?);
        Some(Sharing {
            shared,
            store: self.store.clone(),
            secrets: settings.secrets.clone(),
            freshness: Arc::clone(&self.freshness),
        })
    }
}

impl Sharing {
    /// What L2 knows, if that may still be used.
    async fn find(
        &self,
        network: NetworkId,
        key_id: KeyId,
        slot: Slot,
        now: Timestamp,
        ttl: Duration,
    ) -> Option<Found> {
        let entry = self.shared.get(&self.secrets, network, key_id).await?;
        if entry.counter > self.freshness.polled() && self.freshness.mode() == Mode::Fresh {
            // Read by somebody who knew more. One poll, shared by all who wait here, is less than their reads.
            let _ = self.freshness.knows(entry.counter, &self.store).await;
        }
        let stamp = self.freshness.shared_stamp(entry.counter, entry.tag)?;
        // Read no later than now, whatever the clock of whoever read it says.
        let read = entry.filled.min(now);
        // `cache.ttl` may be shorter than when it was written. In an outage of the database it isn't asked for.
        if read.plus(ttl) <= now && self.freshness.mode() == Mode::Fresh {
            return None;
        }
        self.freshness.allows(slot, stamp).then(|| Found { key: Some(Arc::new(entry.key)), stamp, read })
    }
}
