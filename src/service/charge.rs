//! Rate limiting of key uses.

use super::Service;
use crate::key::Key;
use crate::limit::RateDecision;
use crate::settings::Settings;

impl Service {
    /// Returns whether [`Service::charge`] needs I/O for this key.
    pub fn charge_needs_io(&self, settings: &Settings, key: &Key) -> bool {
        settings.rate_limited && key.rate_policy.is_some() && self.limiter.is_remote()
    }

    /// Charges one use to the key's rate limit. Returns `None` if the key has none.
    ///
    /// Called only once the credential is valid and allows the request, so that nobody else can use
    /// up the key's quota.
    pub async fn charge(&self, settings: &Settings, key: &Key) -> Option<RateDecision> {
        let policy = key.rate_policy.filter(|_| settings.rate_limited)?;
        self.limiter.charge((key.network, key.id), policy).await
    }
}
