//! Suspensions of actors that an audit log records, and what a database lacks of them.

use std::collections::HashMap;

use super::recorded::{Difference, RecordedChange, Subject};
use crate::clock::Timestamp;
use crate::key::{ActorId, NetworkId};
use crate::store::{Store, StoreError};

/// Returns the suspensions and ends of suspensions that the database lacks at `now`. The changes
/// stand in the order in which they were made.
///
/// # Errors
/// When the database fails.
pub(super) async fn find_lacking_of_actors(
    store: &Store,
    changes: Vec<RecordedChange>,
    now: Timestamp,
) -> Result<Vec<Difference>, StoreError> {
    let mut last: HashMap<(NetworkId, ActorId), (usize, RecordedChange)> = HashMap::new();
    let mut erased: HashMap<NetworkId, usize> = HashMap::new();
    for (place, change) in changes.into_iter().enumerate() {
        match &change.subject {
            Subject::Actor(actor) => drop(last.insert((change.network, actor.clone()), (place, change))),
            Subject::ErasedActor => drop(erased.insert(change.network, place)),
            Subject::Key(_) => {}
        }
    }
    let mut lacking = vec![];
    for ((network, id), (place, change)) in last {
        let actor = store.find_actor(network, id.clone()).await?;
        if !change.is_lacking(actor.suspension.as_deref(), now) {
            continue;
        }
        // It may be the one that was erased since, which has no key either; only people know.
        let mut is_lost = false;
        if erased.get(&network).is_some_and(|erased| *erased > place) && actor.recorded.is_none() {
            let keys = store.count_actor_keys(network, id, 1).await?;
            is_lost = keys.issued + keys.imported == 0;
        }
        lacking.push(Difference { change, is_lost });
    }
    Ok(lacking)
}
