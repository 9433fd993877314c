//! Counting the use of a key against its rate policy.

use super::Service;
use crate::key::Key;
use crate::limit::Charge;
use crate::settings::Settings;

impl Service {
    /// Whether [`Service::charge`] has to wait for anything.
    pub fn charging_waits(&self, settings: &Settings, key: &Key) -> bool {
        settings.rate_limited && key.rate_policy.is_some() && self.limiter.waits()
    }

    /// Counts one use of `key`, whose credential was good and may do what it is used for: nobody else spends what the
    /// key has. None when its uses aren't counted.
    pub async fn charge(&self, settings: &Settings, key: &Key) -> Option<Charge> {
        let policy = key.rate_policy.filter(|_| settings.rate_limited)?;
        self.limiter.charge((key.network, key.id), policy).await
    }
}
