//! Spending of credits by uses of the keys that have some.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Service, Unavailable, unavailable};
use crate::cache::freshness::Mode;
use crate::key::{CreditBalance, Key, SpentCredits};

impl Service {
    /// Spends what a use of a key costs. Returns `None` if the key has no credits, or the use is
    /// free.
    ///
    /// Called last, once nothing else refuses the use: what is spent stays spent, also if its
    /// caller stops waiting.
    ///
    /// # Errors
    /// Fails with [`Unavailable`] if the database doesn't say that the cost was spent.
    pub async fn spend_credits(&self, key: &Key, cost: u32) -> Result<Option<SpentCredits>, Unavailable> {
        let Some(credits) = key.credits.as_ref().filter(|_| cost > 0) else {
            return Ok(None);
        };
        if self.freshness.mode() != Mode::Fresh {
            // Right after a failed poll, the database would only fail again.
            return Err(self.credits_not_spent());
        }
        let spent = self.store.spend_credits(key.network, credits.account, cost, self.clock.now()).await;
        match spent {
            Ok(Some(spent)) => Ok(Some(spent)),
            Ok(None) => {
                // The credits were removed, or the key was deleted: its row is read again.
                self.freshness.invalidate_unknown(key.network, key.id);
                Err(self.credits_not_spent())
            }
            Err(error) => {
                unavailable(error);
                Err(self.credits_not_spent())
            }
        }
    }

    /// Counts a use that is refused because the database didn't say in time that its cost was
    /// spent.
    pub fn credits_not_spent(&self) -> Unavailable {
        self.credit_failures.fetch_add(1, Ordering::Relaxed);
        Unavailable
    }

    /// Returns how many uses were refused because their cost could not be spent.
    pub fn credit_failures(&self) -> u64 {
        self.credit_failures.load(Ordering::Relaxed)
    }

    /// Reads the balance of a key that has credits; that of its row as it was read before, if the
    /// database can't tell.
    pub async fn credit_balance(&self, key: &Key) -> Option<CreditBalance> {
        let known = key.credits.as_ref()?;
        let found = self.store.find_key(key.network, key.id).await;
        let found = found.ok().and_then(|found| found.key);
        let current = found.map_or_else(|| Some(Arc::clone(known)), |key| key.credits.clone())?;
        Some(current.balance.at(self.clock.now()))
    }
}
