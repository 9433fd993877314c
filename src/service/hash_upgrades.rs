//! Upgrades of keys whose hash was imported, on their first use.
//!
//! A first use pays for its upgrade, but not for that of others: few upgrades run at once, so that
//! a fleet which moves in at once leaves the database's connections to lookups, and nobody waits
//! long. Who doesn't get an upgrade is answered from the row as it is, and upgraded later.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::cache::freshness::Freshness;
use crate::store::{HashUpgrade, Store};

/// Upgrades at once.
const MAX_UPGRADES: usize = 2;
/// Maximum wait for an upgrade, including the wait for others: little of what a Check may take.
const MAX_WAIT: Duration = Duration::from_millis(50);

/// Limit on upgrades.
#[derive(Clone)]
pub(super) struct HashUpgrades(Arc<Semaphore>);

impl Default for HashUpgrades {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_UPGRADES)))
    }
}

impl HashUpgrades {
    /// Upgrades a key. Returns true if its row is to be read again, as it has another id by now.
    pub(super) async fn run(&self, store: &Store, freshness: &Arc<Freshness>, upgrade: HashUpgrade) -> bool {
        let (permits, store, freshness) = (Arc::clone(&self.0), store.clone(), Arc::clone(freshness));
        let task = async move {
            let permit = tokio::time::timeout(MAX_WAIT, permits.acquire_owned()).await.ok()?.ok()?;
            // Goes on when nobody waits any more, and keeps its permit.
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

/// Others needn't be told at once: a key that was valid under its old id is so under its new one.
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
            tracing::warn!(%error, key_id = %upgrade.from, "a key whose hash was imported keeps its id for now");
            false
        }
    }
}
