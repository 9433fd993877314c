//! Looking a key up where L1 doesn't know it: in L2, then in the database; one lookup a key at a time.

use std::sync::Arc;

use super::verify::Unavailable;
use super::{Fetched, Found, Service, unavailable};
use crate::cache::freshness::{Freshness, Mode, Slot};
use crate::cache::shared::{Shared, SharedEntry};
use crate::clock::Timestamp;
use crate::credential::secrets::HmacSecrets;
use crate::key::{KeyId, NetworkId};
use crate::settings::Settings;

/// What L2 has to do with a lookup.
#[derive(Debug, Clone, Copy)]
pub(super) struct SharedUse {
    /// It may answer.
    pub reads: bool,
    /// It may learn the answer.
    pub writes: bool,
}

/// L2 and what is needed to believe it.
struct Sharing {
    shared: Arc<Shared>,
    secrets: HmacSecrets,
    freshness: Arc<Freshness>,
}

impl Service {
    /// Looks a key up, sharing the lookup with whoever wants the same and may be told what is cached.
    pub(super) async fn fetch(
        &self,
        settings: &Settings,
        network: NetworkId,
        key_id: KeyId,
        shared: SharedUse,
    ) -> Fetched {
        let slot = Slot::of(network, key_id);
        // A lookup that was under way when the key changed may have missed it: it is repeated once, by the database.
        for reads_shared in [shared.reads && self.shared.is_some(), false] {
            // When a poll has just failed, asking the database would only wait for the same failure.
            let asks_database = self.freshness.mode() == Mode::Fresh;
            if !asks_database && !reads_shared {
                break;
            }
            let look_up = || {
                let sharing = self.sharing(settings);
                let pending = self.freshness.begin(slot);
                let (store, clock, ttl) = (self.store.clone(), self.clock.clone(), settings.cache_ttl);
                async move {
                    if let Some(sharing) = sharing.as_ref().filter(|_| reads_shared)
                        && let Some(found) = sharing.find(network, key_id, slot, clock.now()).await
                    {
                        return Ok(found);
                    }
                    if !asks_database {
                        return Err(Unavailable);
                    }
                    let read = clock.now();
                    let found = store.find_key(network, key_id).await.map_err(|error| {
                        unavailable(error);
                        Unavailable
                    })?;
                    let key = found.key.map(Arc::new);
                    if let (Some(key), Some(sharing), true) = (&key, &sharing, shared.writes) {
                        let (counter, tag) = (found.counter, found.tag);
                        let entry = SharedEntry { key: (**key).clone(), counter, tag, filled: read };
                        sharing.shared.put(&sharing.secrets, &entry, ttl);
                    }
                    Ok(Found { key, stamp: pending.stamp(found.counter), read })
                }
            };
            let fetched = match shared.reads {
                true => self.lookups.join((network, key_id, reads_shared), look_up).await,
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
        Some(Sharing { shared, secrets: settings.secrets.clone(), freshness: Arc::clone(&self.freshness) })
    }
}

impl Sharing {
    /// What L2 knows, if that may still be used.
    async fn find(&self, network: NetworkId, key_id: KeyId, slot: Slot, now: Timestamp) -> Option<Found> {
        let entry = self.shared.get(&self.secrets, network, key_id).await?;
        let stamp = self.freshness.shared_stamp(entry.counter, entry.tag)?;
        // Read no later than now, whatever the clock of whoever read it says.
        let read = entry.filled.min(now);
        self.freshness.allows(slot, stamp).then(|| Found { key: Some(Arc::new(entry.key)), stamp, read })
    }
}
