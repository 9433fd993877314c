//! Lookup of a key that L1 doesn't have: L2, then the database. Concurrent lookups of one key are
//! joined into one.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::bulkhead::{Bulkhead, BulkheadPermit};
use super::hash_upgrades::HashUpgrades;
use super::{Service, Unavailable, unavailable};
use crate::cache::freshness::{Freshness, Mode, PendingStamp, Slot, Stamp};
use crate::cache::memory::{CacheKey, Entry, LastUse, MemoryCache, NegativeEntry, ResponseCache, Weight};
use crate::cache::redis::{RedisCache, RedisEntry};
use crate::clock::{Clock, Timestamp};
use crate::credential::imported_hash::DigestIds;
use crate::credential::secrets::HmacSecrets;
use crate::key::{Key, KeyId, NetworkId};
use crate::mutants::{self, Mutant};
use crate::settings::Settings;
use crate::settings::issuance::IssuancePolicies;
use crate::store::{self, HashUpgrade, MAX_CLOCK_SKEW, Store};
use crate::trace;

/// Cache access of a lookup.
#[derive(Clone, Copy)]
pub(super) struct CacheAccess {
    /// The caches may answer.
    pub reads: bool,
    /// The caches may store the answer.
    pub writes: bool,
}

/// Result of a lookup: the key, if it exists.
#[derive(Clone)]
pub(super) struct FoundKey {
    pub key: Option<Arc<Key>>,
    /// The change up to which the answer is known to be true.
    pub stamp: Stamp,
    /// [`Freshness::servers`] before the read.
    pub servers: u64,
    /// Time of the read.
    pub read_at: Timestamp,
    /// True if the database gave the row.
    pub is_row: bool,
}

pub(super) type LookupResult = Result<FoundKey, Unavailable>;

/// Identifies lookups that may be joined. The flag says whether L2 may answer.
pub(super) type LookupKey = (NetworkId, KeyId, bool);

/// The L1 entry that a lookup fills.
#[derive(Clone)]
pub(super) struct FillTarget {
    pub memory: MemoryCache,
    pub index: CacheKey,
    pub network: NetworkId,
    pub key_id: KeyId,
    /// True if only the database can say that this key exists.
    pub is_guess: bool,
    /// Ids that the key may have instead, while only a hash of it is known.
    pub digests: Option<DigestIds>,
    /// Slots of the key's id and of those; the first is that of its id.
    pub slots: [Slot; 3],
    /// Generation of the settings under which possession was proven.
    pub generation: u64,
    /// End of that proof.
    pub proof_expires: Option<Timestamp>,
    pub cache_ttl: Duration,
    pub negative_ttl: Duration,
    /// Issuance policies of that generation.
    pub issuance: IssuancePolicies,
}

impl Service {
    /// Looks up a key in L2, then in the database.
    ///
    /// Joins a lookup of the same key in flight, unless the caller must not read from caches.
    pub(super) async fn load(
        &self,
        settings: &Settings,
        target: &FillTarget,
        access: CacheAccess,
    ) -> LookupResult {
        // A lookup that was in flight when the key changed may have read the old row. It is
        // repeated once, and then only the database may answer.
        for reads in [access.reads, false] {
            let reads_shared = reads && self.shared.is_some();
            // Right after a failed poll, the database would only fail again.
            let reads_database = self.freshness.mode() == Mode::Fresh;
            if !reads_database && !reads_shared {
                break;
            }
            let start = || {
                let lookup = Lookup {
                    target: target.clone(),
                    shared: self.shared_tier(settings),
                    store: self.store.clone(),
                    clock: self.clock.clone(),
                    freshness: Arc::clone(&self.freshness),
                    bulkhead: Arc::clone(&self.bulkhead),
                    upgrades: self.upgrades.clone(),
                    pending: self.freshness.before_read_of(&target.slots),
                    servers: self.freshness.servers(),
                    reads_memory: reads,
                    reads_shared,
                    reads_database,
                    writes: access.writes,
                };
                trace::with_current_span(lookup.run())
            };
            let joined = match access.reads {
                true => self.lookups.run((target.network, target.key_id, reads), start).await,
                // `no-cache` asks for the row as of now. A lookup in flight may have read it
                // already.
                false => tokio::spawn(start()).await.ok(),
            };
            let found = joined.unwrap_or(Err(Unavailable))?;
            if target.is_fresh(&self.freshness, &found) {
                return Ok(found);
            }
        }
        Err(Unavailable)
    }

    fn shared_tier(&self, settings: &Settings) -> Option<SharedTier> {
        let shared = Arc::clone(self.shared.as_ref()?);
        Some(SharedTier { shared, secrets: settings.secrets.clone() })
    }
}

/// One lookup in flight. Owns its parts, since it goes on when its callers are cancelled.
struct Lookup {
    target: FillTarget,
    shared: Option<SharedTier>,
    store: Store,
    clock: Clock,
    freshness: Arc<Freshness>,
    bulkhead: Arc<Bulkhead>,
    upgrades: HashUpgrades,
    /// State of the mutation log before the lookup began.
    pending: PendingStamp,
    /// [`Freshness::servers`] at that time.
    servers: u64,
    reads_memory: bool,
    reads_shared: bool,
    reads_database: bool,
    writes: bool,
}

/// L2, with the secrets that verify its entries.
struct SharedTier {
    shared: Arc<RedisCache>,
    secrets: HmacSecrets,
}

impl Lookup {
    /// Looks a key up in memory, in Redis, and in the database, as far as the lookup may read them.
    async fn run(self) -> LookupResult {
        // Another lookup may have ended after the caller looked into L1.
        if self.reads_memory
            && let Some(found) = self.get_cached()
        {
            return Ok(found);
        }
        if self.reads_shared
            && let Some(shared) = &self.shared
            && let Some(found) = trace::in_child_span("redis", self.get_shared(shared)).await
        {
            self.fill(&found);
            return Ok(found);
        }
        if !self.reads_database {
            return Err(Unavailable);
        }
        let permit = match self.target.is_guess {
            true => Some(self.bulkhead.enter().await.ok_or(Unavailable)?),
            false => None,
        };
        self.load(permit).await
    }

    /// Reads L1.
    fn get_cached(&self) -> Option<FoundKey> {
        let (memory, index) = (&self.target.memory, &self.target.index);
        let now = self.clock.now();
        let found = match memory.get(index) {
            Some(entry) if now < entry.soft_expiry && entry.hard_expiry.is_none_or(|at| now < at) => {
                FoundKey {
                    key: Some(Arc::clone(&entry.key)),
                    stamp: entry.stamp,
                    servers: self.servers,
                    read_at: now,
                    is_row: false,
                }
            }
            Some(_) => return None,
            None => {
                let unknown = memory.get_negative(index).filter(|unknown| now < unknown.expires)?;
                let (stamp, servers) = (unknown.stamp, unknown.servers);
                FoundKey { key: None, stamp, servers, read_at: now, is_row: false }
            }
        };
        self.target.is_fresh(&self.freshness, &found).then_some(found)
    }

    /// Reads L2. Returns `None` unless the entry may still be used.
    async fn get_shared(&self, tier: &SharedTier) -> Option<FoundKey> {
        let FillTarget { network, key_id, cache_ttl, .. } = self.target;
        let now = self.clock.now();
        let entry = tier.shared.get(&tier.secrets, network, key_id).await?;
        if entry.counter > self.freshness.polled_to() && self.freshness.mode() == Mode::Fresh {
            // The writer knew more of the log. One poll, shared by all who wait here, costs less
            // than a database read for each.
            let _ = self.freshness.ensure_polled(entry.counter, &self.store).await;
        }
        if entry.key.unused_grace.is_some() && entry.key.superseded.is_some_and(|end| end <= now) {
            // Uses may have put the end off since.
            return None;
        }
        let stamp = self.freshness.shared_stamp(entry.counter, entry.tag)?;
        // The writer's clock may be ahead of ours.
        let read_at = entry.filled.min(now);
        // `cache.ttl` may have been longer when the entry was written. While the database is down,
        // the entry is used nevertheless.
        if read_at.plus(cache_ttl) <= now && self.freshness.mode() == Mode::Fresh {
            return None;
        }
        let (key, servers) = (Some(Arc::new(entry.key)), self.servers);
        let found = FoundKey { key, stamp, servers, read_at, is_row: false };
        self.target.is_fresh(&self.freshness, &found).then_some(found)
    }

    /// Reads the database and fills L2 and L1.
    async fn load(&self, permit: Option<BulkheadPermit<'_>>) -> LookupResult {
        let FillTarget { key_id, cache_ttl, .. } = self.target;
        let read_at = self.clock.now();
        let mut row = self.find().await?;
        // The credential isn't made up, or nobody has it any more.
        drop(permit);
        if let Some(from) = row.key.as_ref().map(|key| key.id).filter(|id| *id != key_id)
            && self.upgrade(from).await
        {
            row = self.find().await?;
        }
        let native = row.key.as_ref().filter(|key| key.id == key_id);
        if let (Some(key), Some(tier), true) = (native, &self.shared, self.writes) {
            let (counter, tag) = (row.counter, row.tag);
            let entry = RedisEntry { key: (**key).clone(), counter, tag, filled: read_at };
            tier.shared.put(&tier.secrets, &entry, cache_ttl);
        }
        let stamp = match mutants::is_on(Mutant::NumberAfterTheRow) {
            false => self.freshness.stamp(self.pending, row.counter, row.tag),
            true => self.pending.stamp(self.store.newest_number().await.unwrap_or(row.counter)),
        };
        let found = FoundKey { key: row.key, stamp, servers: self.servers, read_at, is_row: true };
        // Filled before the flight ends: a caller that no longer finds the flight finds the entry.
        self.fill(&found);
        Ok(found)
    }

    /// Reads the row in the database.
    async fn find(&self) -> Result<store::Lookup, Unavailable> {
        let FillTarget { network, key_id, digests, .. } = self.target;
        let find = self.store.find_presented(network, key_id, digests);
        trace::in_child_span("database", find).await.map_err(|error| {
            unavailable(error);
            Unavailable
        })
    }

    /// Gives the key, of which only a hash was known, the id of the credential. Returns true if the
    /// row is to be read again.
    async fn upgrade(&self, from: KeyId) -> bool {
        let FillTarget { network, key_id: to, digests: Some(digests), .. } = self.target else {
            return false;
        };
        let upgrade = HashUpgrade { network, from, to, digests, now: self.clock.now() };
        self.upgrades.run(&self.store, &self.freshness, upgrade).await
    }

    /// Fills L1.
    fn fill(&self, found: &FoundKey) {
        if self.writes {
            self.target.fill(found);
        }
    }
}

/// Returns the slots that the row of a key depends on.
fn slot_of(key: &Key) -> Slot {
    Slot::for_key(key.network, key.id).with_actor(key.network, &key.actor)
}

impl FillTarget {
    /// Returns true if nothing that the answer depends on is known to have changed since.
    fn is_fresh(&self, freshness: &Freshness, found: &FoundKey) -> bool {
        match &found.key {
            Some(key) => freshness.is_fresh(slot_of(key), found.stamp),
            None => freshness.are_unknown(&self.slots, found.stamp, found.servers),
        }
    }

    /// Makes the L1 entry for a key.
    pub(super) fn entry(&self, key: Arc<Key>, stamp: Stamp, read_at: Timestamp) -> Arc<Entry> {
        // A key that couldn't be upgraded yet is looked up again soon.
        let ttl = if key.id == self.key_id { self.cache_ttl } else { self.negative_ttl };
        Arc::new(Entry {
            digest: self.index.digest(),
            stamp,
            slot: slot_of(&key),
            generation: self.generation,
            soft_expiry: read_at.plus(ttl),
            hard_expiry: self.proof_expires.into_iter().chain(key.ends()).min(),
            policy_end: self.issuance.end_of(&key).map(|end| end.at),
            // A time that hasn't come yet was written by a wrong clock.
            last_use: LastUse::new(key.last_used.filter(|at| *at <= read_at.plus(MAX_CLOCK_SKEW))),
            responses: ResponseCache::default(),
            denied_metadata: OnceLock::new(),
            weight: Weight::default(),
            key,
        })
    }

    fn fill(&self, found: &FoundKey) {
        match &found.key {
            Some(key) => {
                let entry = self.entry(Arc::clone(key), found.stamp, found.read_at);
                self.memory.insert(entry);
            }
            None => {
                // The data of a key that was erased doesn't stay in memory.
                self.memory.remove(&self.index);
                let expires = found.read_at.plus(self.negative_ttl);
                let Self { key_id, slots, generation, .. } = *self;
                let (stamp, servers) = (found.stamp, found.servers);
                let unknown = NegativeEntry { key_id, stamp, servers, slots, generation, expires };
                self.memory.insert_negative(self.index, unknown);
            }
        }
    }
}
