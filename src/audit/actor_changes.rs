//! Suspensions of actors that an audit log records, and what a database lacks of them.

use std::collections::HashMap;

use super::recorded::{Difference, RecordedChange, Subject};
use crate::clock::Timestamp;
use crate::key::{ActorId, NetworkId};
use crate::store::{Store, StoreError};

/// Returns the suspensions and ends of suspensions that the database lacks at `now`, of changes in
/// the order of time.
///
/// # Errors
/// When the database fails.
pub(super) async fn find_lacking_of_actors(
    store: &Store,
    changes: Vec<RecordedChange>,
    now: Timestamp,
) -> Result<Vec<Difference>, StoreError> {
    let mut last: HashMap<(NetworkId, ActorId), RecordedChange> = HashMap::new();
    let mut erased: HashMap<NetworkId, Timestamp> = HashMap::new();
    for change in changes {
        match &change.subject {
            Subject::Actor(actor) => drop(last.insert((change.network, actor.clone()), change)),
            Subject::ErasedActor => drop(erased.insert(change.network, change.at)),
            Subject::Key(_) => {}
        }
    }
    let mut lacking = vec![];
    for ((network, id), change) in last {
        let actor = store.find_actor(network, id.clone()).await?;
        if !change.is_lacking(actor.suspension.as_deref(), now) {
            continue;
        }
        // It may be the one that was erased since; then it has no key either.
        let may_be_erased = erased.get(&network).is_some_and(|at| *at >= change.at);
        if may_be_erased && actor.recorded.is_none() {
            let keys = store.count_actor_keys(network, id, 1).await?;
            if keys.issued + keys.imported == 0 {
                continue;
            }
        }
        lacking.push(Difference { change, is_lost: false });
    }
    Ok(lacking)
}
