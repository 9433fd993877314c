//! What the product does, one file an operation. Both planes of HTTP and the authz plane come in through here.

pub mod bulkhead;
mod charge;
mod delete;
mod derive;
mod filter;
mod last_used;
mod list;
mod lookup;
mod mint;
mod new_key;
pub mod outstanding;
mod revoke;
mod rotate;
mod update;
pub mod upstream;
pub mod verify;

use std::borrow::Borrow;
use std::sync::Arc;

use arc_swap::ArcSwap;

pub use derive::{DeriveRequest, Derived};
pub use filter::MAX_FILTER;
#[cfg(any(test, feature = "fuzzing"))]
pub use filter::parse as parse_filter;
pub use last_used::{NotedUses, Uses, uses};
pub use list::{DEFAULT_PAGE, ListRequest, Listed, MAX_PAGE};
pub use mint::MintError;
pub use new_key::{ImportRequest, Issued, KeyRequest};
pub use revoke::MAX_DESCRIPTION;
pub use rotate::{RotateRequest, Rotated};
pub use update::{Fixed, Update};

use bulkhead::Bulkhead;
use outstanding::Outstanding;

use crate::audit::{Audit, Failure, Origin};
use crate::cache::flight::Flights;
use crate::cache::freshness::{Freshness, Stamp};
use crate::cache::memory::Memory;
use crate::cache::shared::Shared;
use crate::clock::{Clock, Timestamp};
use crate::error::{ApiError, Reason};
use crate::event::Operation;
use crate::key::deny::DenyList;
use crate::key::{Key, KeyId, KeyKind, NetworkId};
use crate::limit::Limiter;
use crate::rng::Rng;
use crate::settings::{Settings, SettingsHandle};
use crate::store::{Mutation, Store, StoreError};

/// What came of a change that is made and can't get lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged<T> {
    /// What came of it.
    pub value: T,
    /// Its number in the log, when it has one: whoever knows all changes up to there knows this one.
    pub epoch: Option<u64>,
}

/// What a lookup found: the key, if there is one, up to which change that is known to be true, and when it was read.
#[derive(Clone)]
struct Found {
    key: Option<Arc<Key>>,
    stamp: Stamp,
    read: Timestamp,
}

type Fetched = Result<Found, verify::Unavailable>;

/// What is looked up, and whether L2 may answer.
type Lookup = (NetworkId, KeyId, bool);

/// The operations and what they work on.
pub struct Service {
    /// Time.
    pub clock: Clock,
    /// Chance.
    pub rng: Rng,
    /// The settings in force.
    pub settings: SettingsHandle,
    /// The database.
    pub store: Store,
    /// L1.
    pub memory: Memory,
    /// L2, if there is one.
    pub shared: Option<Arc<Shared>>,
    /// How fresh what is cached is.
    pub freshness: Arc<Freshness>,
    /// How often keys are used, as far as their policies bound that.
    pub limiter: Arc<Limiter>,
    /// Where uses of keys are noted.
    pub uses: Uses,
    /// Where it is recorded what was done.
    pub audit: Arc<Audit>,
    /// Keys to refuse whatever the database says.
    pub deny_list: ArcSwap<DenyList>,
    /// Tokens that were derived under settings which have been replaced.
    pub outstanding: Outstanding,
    /// What guesses must pass on their way to the database.
    pub bulkhead: Arc<Bulkhead>,
    lookups: Flights<Lookup, Fetched>,
}

/// What stands between a request and the database.
pub struct Tiers {
    /// L1.
    pub memory: Memory,
    /// L2, if there is one.
    pub shared: Option<Arc<Shared>>,
    /// How fresh both are.
    pub freshness: Arc<Freshness>,
}

/// What is asked beside the tiers.
pub struct Guards {
    /// How often keys are used.
    pub limiter: Arc<Limiter>,
    /// Keys to refuse whatever the database says.
    pub deny_list: DenyList,
}

/// Where it is written down what was done.
pub struct Records {
    /// Uses of keys.
    pub uses: Uses,
    /// Changes, and what was shown.
    pub audit: Arc<Audit>,
}

impl Service {
    /// Puts the parts together.
    pub fn new(
        clock: Clock,
        rng: Rng,
        settings: SettingsHandle,
        store: Store,
        tiers: Tiers,
        guards: Guards,
        records: Records,
    ) -> Self {
        let Records { uses, audit } = records;
        let Tiers { memory, shared, freshness } = tiers;
        let Guards { limiter, deny_list } = guards;
        let bulkhead = Arc::new(Bulkhead::new(store.connections().max));
        let (deny_list, lookups) = (ArcSwap::from_pointee(deny_list), Flights::default());
        Self {
            clock,
            rng,
            settings,
            store,
            memory,
            shared,
            freshness,
            limiter,
            uses,
            audit,
            deny_list,
            outstanding: Outstanding::default(),
            bulkhead,
            lookups,
        }
    }

    /// The settings in force. A request goes on with those of its network ([`Settings::of_host`]) to its end.
    pub fn snapshot(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Makes sure that what is said from here on takes into account all changes up to number `epoch`.
    ///
    /// # Errors
    /// When they can't be known here at present.
    pub async fn require_epoch(&self, epoch: u64) -> Result<(), ApiError> {
        if self.freshness.knows(epoch, &self.store).await.map_err(unavailable)? {
            return Ok(());
        }
        let problem = "the changes up to the number asked for are not known here; try again";
        Err(ApiError::new(Reason::ServiceUnavailable, problem))
    }

    /// Takes in what has just been committed, before it is acknowledged: the very next request here knows, and the
    /// others hear of it.
    async fn committed(&self, mutations: &[Mutation]) {
        for mutation in mutations {
            self.freshness.apply(mutation);
        }
        if let Some(shared) = &self.shared
            && !mutations.is_empty()
        {
            // Instances speak to each other under the main secrets, whichever network it is about.
            shared.announce(&self.snapshot().secrets, mutations).await;
        }
    }

    /// Notes that a credential failed.
    pub fn note_failure(
        &self,
        settings: &Settings,
        refused: &verify::Refused,
        operation: Operation,
        origin: &Origin,
    ) {
        let failure = Failure {
            network: settings.network,
            operation,
            denial: refused.denial,
            key_id: refused.key_id,
            client: origin.client,
            request_id: Some(&origin.request_id).filter(|id| !id.is_empty()).map(String::as_str),
        };
        self.audit.failed(&failure, self.clock.boot_now());
    }

    /// One key, as the database has it.
    ///
    /// # Errors
    /// When there is none of that kind and id, or the database fails.
    pub async fn get(&self, network: NetworkId, kind: KeyKind, id: &str) -> Result<Key, ApiError> {
        let id = KeyId::parse(kind, id).ok_or_else(no_such_key)?;
        let found = self.store.find_key(network, id).await.map_err(unavailable)?;
        found.key.map(Arc::unwrap_or_clone).ok_or_else(no_such_key)
    }
}

fn no_such_key() -> ApiError {
    ApiError::new(Reason::ApiKeyNotFound, "there is no such API key")
}

/// What a caller learns of a failing database: nothing but that it failed.
fn unavailable(error: impl Borrow<StoreError>) -> ApiError {
    let error = error.borrow();
    tracing::error!(%error, "the database failed");
    match error {
        StoreError::Corrupt(_) => ApiError::new(Reason::InternalServerError, "the key's row can't be read"),
        _ => ApiError::new(Reason::ServiceUnavailable, "the database gives no answer; try again"),
    }
}
