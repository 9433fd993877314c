//! Upgrades of keys whose hash was imported, on their first use.
//!
//! Such a key is stored under an id made from its SHA-256 or SHA-512. Its first use shows the key
//! itself, and the upgrade gives its row the id that an imported key has, made from the whole key.
//!
//! Few upgrades run at once, so that many keys that are first used together leave the database's
//! connections to lookups. A Check waits for its upgrade for [`MAX_WAIT`] at most. Then it is
//! answered from the row as it is, and a later use upgrades the key.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::cache::freshness::Freshness;
use crate::store::{HashUpgrade, Store};

/// Upgrades that run at once in this process.
const MAX_UPGRADES: usize = 2;
/// Maximum time for which a Check waits for an upgrade, including its turn: well below the timeout
/// that Envoy has for a Check.
const MAX_WAIT: Duration = Duration::from_millis(50);

/// Runs upgrades, [`MAX_UPGRADES`] at once. Clones share the limit.
#[derive(Clone)]
pub(super) struct HashUpgrades(Arc<Semaphore>);

impl Default for HashUpgrades {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_UPGRADES)))
    }
}

impl HashUpgrades {
    /// Upgrades a key. Returns true if its row must be read again, since its id has changed.
    pub(super) async fn run(&self, store: &Store, freshness: &Arc<Freshness>, upgrade: HashUpgrade) -> bool {
        let (permits, store, freshness) = (Arc::clone(&self.0), store.clone(), Arc::clone(freshness));
        let task = async move {
            let permit = tokio::time::timeout(MAX_WAIT, permits.acquire_owned()).await.ok()?.ok()?;
            // A task of its own: it completes, with its permit, also after the wait has ended.
            let task = tokio::spawn(async move {
                let is_done = upgrade_row(&store, &freshness, upgrade).await;
                drop(permit);
                is_done
            });
            task.await.ok()
        };
        tokio::time::timeout(MAX_WAIT, task).await.ok().flatten().unwrap_or(false)
    }
}

/// Upgrades a row, and applies its log entries to this process. Nothing is announced to other
/// instances: their polls are soon enough, as the key is valid under both ids. Returns true if the
/// row was upgraded, here or before.
async fn upgrade_row(store: &Store, freshness: &Freshness, upgrade: HashUpgrade) -> bool {
    match store.upgrade_hash(upgrade).await {
        Ok(mutations) => {
            for mutation in &mutations {
                freshness.apply(mutation);
            }
            if !mutations.is_empty() {
                let HashUpgrade { network, from, to, .. } = upgrade;
                tracing::info!(%network, key_id = %to, imported_as = %from, "first use of a key whose hash was imported");
            }
            true
        }
        Err(error) => {
            tracing::warn!(%error, key_id = %upgrade.from, "a key whose hash was imported could not be upgraded; a later use tries again");
            false
        }
    }
}
