//! The operations of the product, one file each. The HTTP planes and the authz plane both call
//! them.

mod actors;
pub mod bulkhead;
mod change;
mod charge;
mod credits;
mod delete;
mod derive;
mod events;
pub mod explain;
mod filter;
mod fresh_until;
mod hash_upgrades;
mod issuance;
mod last_used;
mod list;
mod lookup;
mod mint;
mod new_key;
pub mod outstanding;
mod policy_check;
mod retry;
mod revoke;
mod rotate;
mod scopes_preview;
mod signers;
mod suspend;
mod update;
mod upstream;
pub mod usage;
pub mod verify;

use std::borrow::Borrow;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;

pub use actors::{ActorUpdate, CountedActor, MAX_COUNTED_KEYS};
pub use delete::{ErasedActor, MAX_ERASED};
pub use derive::{DeriveRequest, Derived};
pub use events::{
    DEFAULT_EVENTS, EventFilter, EventKind, FeedPosition, FeedStart, FollowRequest, Followed, LoggedEvent,
    MAX_EVENTS, MAX_WAIT,
};
pub use filter::MAX_FILTER;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use filter::parse as parse_filter;
pub use last_used::{UseQueue, UseWriter, use_queue};
pub use list::{DEFAULT_PAGE, ListRequest, Listed, MAX_PAGE};
pub use mint::{MintError, Minted};
pub use new_key::{ImportRequest, Issued, KeyMaterial, KeyRequest};
pub use policy_check::{BreakingKey, BreakingKeys, PolicyCheckRequest};
pub use revoke::{MAX_DESCRIPTION, Revoked};
pub use rotate::{RotateRequest, Rotated};
pub use scopes_preview::{
    MAX_PREVIEWED_ROUTES, PreviewRow, PreviewVerdict, ScopesPreview, ScopesPreviewRequest, UntoldRow,
};
pub use signers::{SignerCount, SignerCounts, SignerState, Signers};
pub use suspend::SuspendRequest;
pub use update::{Expiry, Fixed, Update};

use bulkhead::Bulkhead;
use events::Followers;
use fresh_until::LeaseEnd;
use hash_upgrades::HashUpgrades;
use lookup::{LookupKey, LookupResult};
use outstanding::Outstanding;
use usage::UsageCounter;

use crate::audit::{Audit, Failure, Origin};
use crate::cache::freshness::Freshness;
use crate::cache::memory::MemoryCache;
use crate::cache::redis::RedisCache;
use crate::cache::single_flight::SingleFlight;
use crate::clock::{Clock, Timestamp};
use crate::error::{ApiError, Reason};
use crate::event::Operation;
use crate::key::deny::DenyList;
use crate::key::{Key, KeyId, KeyKind, NetworkId};
use crate::limit::Limiter;
use crate::mutants::{self, Mutant};
use crate::rng::Rng;
use crate::settings::{Settings, SettingsHandle};
use crate::store::{Mutation, Store, StoreError};

/// Result of a committed change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged<T> {
    /// The operation's result.
    pub value: T,
    /// Number of the change in the mutation log, if it has one. An instance that has read the log
    /// up to this number knows the change.
    pub epoch: Option<u64>,
}

/// Neither the caches nor the database can answer. Never a denial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither the cache nor the database can verify the credential at present; try again")]
pub struct Unavailable;

/// Returns the length of the header lines that the edge sends upstream for a key, in bytes.
///
/// The second argument is the length of the minted token, `None` if there is none. The service
/// refuses keys whose headers are too large, but only the edge knows the headers.
pub type UpstreamHeadersLen = fn(&Settings, &Key, Option<usize>) -> usize;

/// The parts of a [`Service`].
pub struct ServiceBuilder {
    /// Wall clock and boot clock.
    pub clock: Clock,
    /// Random number generator.
    pub rng: Rng,
    /// Settings in force.
    pub settings: SettingsHandle,
    /// Database.
    pub store: Store,
    /// L1 cache, in process.
    pub memory: MemoryCache,
    /// L2 cache in Redis, if configured.
    pub shared: Option<Arc<RedisCache>>,
    /// Freshness of both caches.
    pub freshness: Arc<Freshness>,
    /// Rate limiter.
    pub limiter: Arc<Limiter>,
    /// Keys that are refused whatever the database says.
    pub deny_list: DenyList,
    /// Queue of key uses, for `last_used`.
    pub uses: UseQueue,
    /// Counter of Checks.
    pub usage: Arc<UsageCounter>,
    /// Audit log.
    pub audit: Arc<Audit>,
    /// Length of a key's upstream headers.
    pub upstream_headers_len: UpstreamHeadersLen,
}

impl ServiceBuilder {
    /// Builds the service.
    pub fn build(self) -> Service {
        let bulkhead = Arc::new(Bulkhead::new(self.store.pool_stats().max));
        Service {
            clock: self.clock,
            rng: self.rng,
            settings: self.settings,
            store: self.store,
            memory: self.memory,
            shared: self.shared,
            freshness: self.freshness,
            limiter: self.limiter,
            uses: self.uses,
            usage: self.usage,
            audit: self.audit,
            deny_list: ArcSwap::from_pointee(self.deny_list),
            outstanding: Outstanding::default(),
            bulkhead,
            upgrades: HashUpgrades::default(),
            upstream_headers_len: self.upstream_headers_len,
            signers: Signers::default(),
            followers: Followers::default(),
            credit_failures: AtomicU64::new(0),
            lease_end: LeaseEnd::default(),
            lookups: SingleFlight::default(),
        }
    }
}

/// The operations, with what they work on.
pub struct Service {
    /// Wall clock and boot clock.
    pub clock: Clock,
    /// Random number generator.
    pub rng: Rng,
    /// Settings in force.
    pub settings: SettingsHandle,
    /// Database.
    pub store: Store,
    /// L1 cache, in process.
    pub memory: MemoryCache,
    /// L2 cache in Redis, if configured.
    pub shared: Option<Arc<RedisCache>>,
    /// Freshness of both caches.
    pub freshness: Arc<Freshness>,
    /// Rate limiter for keys that have a rate policy.
    pub limiter: Arc<Limiter>,
    /// Queue of key uses, for `last_used`.
    pub uses: UseQueue,
    /// Counter of Checks.
    pub usage: Arc<UsageCounter>,
    /// Audit log.
    pub audit: Arc<Audit>,
    /// Keys that are refused whatever the database says.
    pub deny_list: ArcSwap<DenyList>,
    /// Expiry of tokens derived under settings that have since been replaced.
    pub outstanding: Outstanding,
    /// Limit on database lookups of credentials that may be made up.
    pub bulkhead: Arc<Bulkhead>,
    /// Numbers of keys by their secret and prefix.
    pub signers: Signers,
    upgrades: HashUpgrades,
    credit_failures: AtomicU64,
    lease_end: LeaseEnd,
    upstream_headers_len: UpstreamHeadersLen,
    followers: Followers,
    lookups: SingleFlight<LookupKey, LookupResult>,
}

impl Service {
    /// Returns the settings in force.
    ///
    /// A request takes one snapshot and uses its network's part ([`Settings::for_host`])
    /// throughout.
    pub fn snapshot(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Reads the mutation log up to number `epoch`, so that later answers include all changes up to
    /// there.
    ///
    /// # Errors
    /// Fails if the log can't be read that far at present.
    pub async fn require_epoch(&self, epoch: u64) -> Result<(), ApiError> {
        if self.freshness.ensure_polled(epoch, &self.store).await.map_err(unavailable)? {
            return Ok(());
        }
        let problem = "the changes up to the number asked for are not known here; try again";
        Err(ApiError::new(Reason::ServiceUnavailable, problem))
    }

    /// Applies committed mutations to this instance and announces them to the others.
    ///
    /// Runs before the change is acknowledged, so that the next request here already sees it.
    async fn publish(&self, mutations: &[Mutation]) {
        for mutation in mutations.iter().filter(|_| !mutants::is_on(Mutant::NotPublished)) {
            self.freshness.apply(mutation);
        }
        if let Some(shared) = &self.shared
            && !mutations.is_empty()
        {
            // Announcements are signed with the main secrets, whichever network they concern.
            shared.announce(&self.snapshot().secrets, mutations).await;
        }
    }

    /// Records a failed verification in the audit log.
    pub fn record_failure(
        &self,
        settings: &Settings,
        rejection: &verify::Rejection,
        operation: Operation,
        origin: &Origin,
    ) {
        let failure = Failure {
            network: settings.network,
            operation,
            denial: rejection.denial,
            key_id: rejection.key_id,
            client: origin.client,
            request_id: Some(&origin.request_id).filter(|id| !id.is_empty()).map(String::as_str),
        };
        self.audit.record_failure(&failure, self.clock.boot_now());
    }

    /// Checks that this process's clock may date what it signs.
    ///
    /// # Errors
    /// Fails if the clock is too far from the database's.
    fn check_clock(&self) -> Result<(), ApiError> {
        match self.store.clock_skew() {
            Some(skew) => skew.check().map_err(|skew| clock_skew(&skew)),
            None => Ok(()),
        }
    }

    /// Returns the time by which keys that change are judged: the database's, if this process's
    /// clock is off. Otherwise, a key that others take for valid could count as ended here, and a
    /// revocation as done.
    fn corrected_now(&self) -> Timestamp {
        self.store.corrected(self.clock.now())
    }

    /// Reads one key from the database.
    ///
    /// # Errors
    /// Fails if there is no key of that kind and id, or the database fails.
    pub async fn get(&self, network: NetworkId, kind: KeyKind, id: &str) -> Result<Key, ApiError> {
        let id = KeyId::parse(kind, id).ok_or_else(no_such_key)?;
        let mut found = self.store.find_key(network, id).await.map_err(unavailable)?;
        if found.key.is_none()
            && let Some(current) = self.store.current_id(network, id).await.map_err(unavailable)?
        {
            found = self.store.find_key(network, current).await.map_err(unavailable)?;
        }
        let key = found.key.map(Arc::unwrap_or_clone).ok_or_else(no_such_key)?;
        Ok(key.with_last_use_until(self.clock.now()))
    }
}

/// Returns the error for a request that the clock would falsify.
fn clock_skew(skew: &StoreError) -> ApiError {
    let problem = format!("nothing was done: {skew}; set the clock (NTP), or use another server");
    ApiError::new(Reason::ServiceUnavailable, problem)
}

fn no_such_key() -> ApiError {
    ApiError::new(Reason::ApiKeyNotFound, "there is no such API key")
}

/// Logs a database error and returns the error that callers see, which has no details.
fn unavailable(error: impl Borrow<StoreError>) -> ApiError {
    let error = error.borrow();
    tracing::error!(%error, "database request failed");
    match error {
        StoreError::ClockSkew { .. } => clock_skew(error),
        StoreError::Corrupt(_) => ApiError::new(Reason::InternalServerError, "the key's row can't be read"),
        _ => ApiError::new(Reason::ServiceUnavailable, "the database gives no answer; try again"),
    }
}
