//! Erasure of keys, and of an actor with all its keys.

use super::{Acknowledged, Service, no_such_key, unavailable};
use crate::audit::Call;
use crate::error::{ApiError, Reason};
use crate::event::{Event, Occurrence};
use crate::key::{ActorId, KeyId, KeyKind, NetworkId, Status};
use crate::store::{ActorDeletion, Filter, Mutation, PageRequest};

/// Maximum number of keys that one call erases.
pub const MAX_ERASED: usize = 1_000;
/// Maximum number of keys that one transaction erases: other changes wait for it.
const ERASE_BATCH: usize = 100;

/// Result of erasing an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ErasedActor {
    /// Number of issued keys that were erased.
    pub issued: usize,
    /// Number of imported keys that were erased.
    pub imported: usize,
    /// True if the actor has further keys, as one call erases at most [`MAX_ERASED`].
    pub has_more: bool,
}

impl Service {
    /// Deletes a key and all its data. The same imported key may be imported again afterwards.
    ///
    /// # Errors
    /// Fails if there is no such key, or the database fails.
    pub async fn delete(
        &self,
        network: NetworkId,
        kind: KeyKind,
        id: &str,
        call: &Call,
    ) -> Result<Acknowledged<()>, ApiError> {
        let id = KeyId::parse(kind, id).ok_or_else(no_such_key)?;
        call.record_intent(network, vec![id]).await?;
        match self.delete_ids(network, &[id], call).await?.first() {
            Some(mutation) => Ok(Acknowledged { value: (), epoch: Some(mutation.n) }),
            // An earlier call may have deleted it, whose response was lost.
            None => {
                call.confirm_id(Event::deleted(kind), network, id);
                Err(no_such_key())
            }
        }
    }

    /// Deletes all keys of an actor, issued and imported, at most [`MAX_ERASED`], and in the end
    /// what is recorded of the actor itself. Keys that are still active are deleted only if `force`
    /// is set.
    ///
    /// # Errors
    /// Fails if the actor has no key and nothing is recorded of it, it has active keys and `force`
    /// isn't set, or the database fails, after which some keys may be deleted.
    pub async fn delete_actor(
        &self,
        network: NetworkId,
        actor: &ActorId,
        force: bool,
        call: &Call,
    ) -> Result<Acknowledged<ErasedActor>, ApiError> {
        let (mut ids, mut has_more) = (vec![], false);
        for kind in [KeyKind::Issued, KeyKind::Imported] {
            let active = Filter { status: Some(Status::Active), ..of_actor(actor) };
            if !force && !self.ids(network, kind, active, 1).await?.0.is_empty() {
                let problem = "the actor has active keys; revoke them, or erase them with force=true";
                return Err(ApiError::new(Reason::FailedPrecondition, problem));
            }
            let room = MAX_ERASED - ids.len();
            // One key more is enough to know of further ones when there is no room.
            let (found, more) = self.ids(network, kind, of_actor(actor), room.max(1)).await?;
            has_more |= more || found.len() > room;
            ids.extend(found.into_iter().take(room));
        }
        let recorded = self.store.find_actor(network, actor.clone()).await.map_err(unavailable)?.recorded;
        if ids.is_empty() && recorded.is_none() {
            return Err(ApiError::new(Reason::ApiKeyNotFound, "the actor has no API key"));
        }
        call.record_intent(network, ids.clone()).await?;
        let mut erased = ErasedActor { has_more, ..ErasedActor::default() };
        let mut epoch = None;
        for batch in ids.chunks(ERASE_BATCH) {
            let deleted = self.delete_ids(network, batch, call).await?;
            epoch = deleted.iter().map(|mutation| mutation.n).max().max(epoch);
            let issued = deleted.iter().filter(|mutation| mutation.key_id.kind() == KeyKind::Issued).count();
            erased.issued += issued;
            erased.imported += deleted.len() - issued;
        }
        // The actor's suspension stays as long as any of its keys does.
        if !has_more {
            match self.erase_actor(network, actor, call).await? {
                ActorDeletion::Deleted(n) => epoch = epoch.max(Some(n)),
                ActorDeletion::NotRecorded => {}
                // Issued meanwhile.
                ActorDeletion::HasKeys => erased.has_more = true,
            }
        }
        Ok(Acknowledged { value: erased, epoch })
    }

    /// Returns the ids of at most `most` keys, and whether there are more.
    async fn ids(
        &self,
        network: NetworkId,
        kind: KeyKind,
        filter: Filter,
        most: usize,
    ) -> Result<(Vec<KeyId>, bool), ApiError> {
        let size = u32::try_from(most).unwrap_or(u32::MAX);
        let request = PageRequest { filter, size, ..PageRequest::default() };
        let page = self.store.list_keys(network, kind, request, self.corrected_now()).await;
        let page = page.map_err(unavailable)?;
        Ok((page.keys.iter().map(|key| key.id).collect(), page.next.is_some()))
    }

    /// Deletes keys whose intent is recorded, in one transaction.
    async fn delete_ids(
        &self,
        network: NetworkId,
        ids: &[KeyId],
        call: &Call,
    ) -> Result<Vec<Mutation>, ApiError> {
        let caller = call.origin().verified_caller();
        match self.store.delete_keys(network, ids.to_vec(), self.clock.now(), caller).await {
            Ok(mutations) => {
                self.publish(&mutations).await;
                for mutation in &mutations {
                    let event = Event::deleted(mutation.key_id.kind());
                    call.record_event(Occurrence::new(event, network).of_id(mutation.key_id));
                }
                Ok(mutations)
            }
            Err(error) => {
                for id in ids {
                    self.freshness.invalidate_unknown(network, *id);
                }
                Err(unavailable(error))
            }
        }
    }
}

fn of_actor(actor: &ActorId) -> Filter {
    Filter { actor: Some(actor.as_str().to_owned()), ..Filter::default() }
}
