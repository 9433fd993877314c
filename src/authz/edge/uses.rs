//! Uses of keys that a module allowed: counted as Checks are.

use talos_proto::edge::{CountedAs, Use};
use uuid::Uuid;

use super::super::server::AuthorizationService;
use crate::cache::memory::CacheKey;
use crate::clock::Timestamp;
use crate::key::{KeyId, NetworkId};
use crate::service::usage::{ALLOW, CountedCheck};

/// Most requests of one row.
const MAX_COUNT: u64 = 10_000_000;

impl AuthorizationService {
    /// Counts uses of one key. What can't be read is left out.
    pub(super) fn count_use(&self, one: &Use) {
        let Some((check, index)) = one.counted_as.as_ref().and_then(counted) else {
            return;
        };
        let count = one.count.min(MAX_COUNT);
        if count == 0 {
            return;
        }
        let check = CountedCheck { client: one.client.parse().ok(), ..check };
        self.metrics.edge.uses.inc_by(count);
        self.service.usage.count_many(&check, ALLOW, count);
        let (Some(network), Some(index)) = (check.network, index) else {
            return;
        };
        let now = self.service.clock.now();
        // A key that isn't cached any more is looked up again by a Check, which notes its use.
        if let Some(entry) = self.service.memory.get(&CacheKey::new(network, index))
            && Some(entry.key.id) == check.key
        {
            self.service.record_use(&entry, Timestamp::from_micros(one.last_micros).min(now));
        }
    }
}

fn counted(row: &CountedAs) -> Option<(CountedCheck, Option<[u8; 32]>)> {
    let network = NetworkId::new(Uuid::from_slice(&row.network).ok()?);
    let check = CountedCheck {
        network: Some(network),
        key: Some(KeyId::parse_any(&row.key)?),
        route: row.route.parse().unwrap_or_default(),
        client: None,
    };
    Some((check, row.index[..].try_into().ok()))
}
