//! Entries of L1 by the digest of their credential, for the module in Envoy, which never sends
//! credentials.

use std::sync::Arc;

use super::super::Service;
use crate::cache::freshness::Mode;
use crate::cache::memory::{CacheKey, Entry};
use crate::clock::Timestamp;
use crate::key::verdict::judge_state;
use crate::settings::Settings;

impl Service {
    /// Returns the entry of a credential by its digest, if a Check with it would be allowed now by
    /// L1 alone, from an address that the key allows, in mode `fresh`.
    pub fn entry_by_index(
        &self,
        settings: &Settings,
        digest: [u8; 32],
        now: Timestamp,
    ) -> Option<Arc<Entry>> {
        if !settings.cache_enabled || self.freshness.mode() != Mode::Fresh {
            return None;
        }
        let entry = self.memory.get(&CacheKey::new(settings.network, digest))?;
        let is_allowed = entry.generation == settings.generation
            && self.is_usable(&entry, now)
            && !self.is_denied(&entry.key)
            && judge_state(&entry.key, now).is_ok()
            && entry.policy_end.is_none_or(|end| now < end);
        is_allowed.then_some(entry)
    }
}
