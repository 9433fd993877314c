//! Rate limits of key uses.

use super::Service;
use crate::key::Key;
use crate::limit::RateDecision;
use crate::settings::Settings;

impl Service {
    /// Returns whether [`Service::charge`] or [`Service::spend_credits`] needs I/O for this key.
    pub fn charge_needs_io(&self, settings: &Settings, key: &Key, cost: u32) -> bool {
        let is_limited = settings.rate_limited && key.has_rate_policy();
        cost > 0 && (key.credits.is_some() || (is_limited && self.limiter.is_remote()))
    }

    /// Charges a use that costs `cost` to all rate limits of the key, or to none if one of them is
    /// used up. Returns the decision of the limit that is nearest to its end, `None` if the use
    /// isn't counted.
    ///
    /// Called only once the credential is valid and allows the request, so that nobody else can use
    /// up the key's quota.
    pub async fn charge(&self, settings: &Settings, key: &Key, cost: u32) -> Option<RateDecision> {
        if !settings.rate_limited || !key.has_rate_policy() || cost == 0 {
            return None;
        }
        if key.has_named_rate_policies() {
            // Boxed, so that the future of a key with one policy stays small.
            return Box::pin(self.limiter.charge_all(key, cost)).await;
        }
        self.limiter.charge(key.network, key.id, key.rate_policy?, cost).await
    }
}
