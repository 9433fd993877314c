//! Actors: their names, metadata and limits, and the suspension of all their keys at once.

use std::sync::Arc;

use super::suspend::{SuspendRequest, is_repeated};
use super::{Acknowledged, Service, unavailable};
use crate::audit::Call;
use crate::clock::Timestamp;
use crate::error::ApiError;
use crate::event::{Event, Occurrence};
use crate::key::{Actor, ActorId, KeyName, Metadata, NetworkId, RatePolicies};
use crate::store::{ActorDeletion, ActorKeyCounts, ActorOutcome};

/// Number up to which the keys of an actor are counted.
pub const MAX_COUNTED_KEYS: u32 = 1_000;

/// Changes to an actor. `None` leaves an attribute as it is, `Some(None)` removes it.
#[derive(Debug, Clone, Default)]
pub struct ActorUpdate {
    /// Name, for people.
    pub display_name: Option<Option<KeyName>>,
    /// Metadata.
    pub metadata: Option<Option<Metadata>>,
    /// All rate policies. Unset ones remove them all.
    pub rate_policies: Option<RatePolicies>,
}

/// An actor, and the numbers of its keys.
#[derive(Debug)]
pub struct CountedActor {
    /// The actor.
    pub actor: Actor,
    /// Numbers of its keys, of each kind at most one more than [`MAX_COUNTED_KEYS`].
    pub keys: ActorKeyCounts,
}

impl Service {
    /// Returns an actor. Every id is one of an actor: it needs no keys and nothing recorded.
    ///
    /// # Errors
    /// Fails if the database fails.
    pub async fn get_actor(&self, network: NetworkId, id: &ActorId) -> Result<CountedActor, ApiError> {
        let actor = self.store.find_actor(network, id.clone()).await.map_err(unavailable)?;
        self.counted(actor).await
    }

    /// Changes name, metadata and limits of an actor. An update that leaves all as they are writes
    /// nothing.
    ///
    /// # Errors
    /// Fails if the database fails.
    pub async fn update_actor(
        &self,
        network: NetworkId,
        id: &ActorId,
        update: ActorUpdate,
        call: &Call,
    ) -> Result<Acknowledged<CountedActor>, ApiError> {
        let change = move |actor: &Actor| {
            let ActorUpdate { display_name, metadata, rate_policies } = update.clone();
            Actor {
                display_name: display_name.unwrap_or_else(|| actor.display_name.clone()),
                metadata: metadata.unwrap_or_else(|| actor.metadata.clone()),
                rate_policies: rate_policies.unwrap_or_else(|| actor.rate_policies.clone()),
                ..actor.clone()
            }
        };
        self.change_actor(network, id, self.clock.now(), Event::ActorUpdated, change, call).await
    }

    /// Suspends all keys of an actor, those issued later among them, until it is resumed or the
    /// suspension ends by itself. This is one change, however many keys there are.
    ///
    /// # Errors
    /// Fails if reason or end are invalid, or the database fails.
    pub async fn suspend_actor(
        &self,
        network: NetworkId,
        id: &ActorId,
        request: SuspendRequest,
        call: &Call,
    ) -> Result<Acknowledged<CountedActor>, ApiError> {
        let now = self.corrected_now();
        let suspension = Arc::new(request.suspension(now, call)?);
        let change = move |actor: &Actor| match is_repeated(actor.suspension.as_ref(), &suspension) {
            true => actor.clone(),
            false => Actor { suspension: Some(Arc::clone(&suspension)), ..actor.clone() },
        };
        self.change_actor(network, id, now, Event::ActorSuspended, change, call).await
    }

    /// Ends the suspension of an actor. Keys that are suspended themselves stay so.
    ///
    /// # Errors
    /// Fails if the database fails.
    pub async fn resume_actor(
        &self,
        network: NetworkId,
        id: &ActorId,
        call: &Call,
    ) -> Result<Acknowledged<CountedActor>, ApiError> {
        let change = |actor: &Actor| Actor { suspension: None, ..actor.clone() };
        self.change_actor(network, id, self.clock.now(), Event::ActorResumed, change, call).await
    }

    /// Changes what is recorded of an actor, publishes the change and records it as `event`.
    async fn change_actor(
        &self,
        network: NetworkId,
        id: &ActorId,
        now: Timestamp,
        event: Event,
        change: impl Fn(&Actor) -> Actor + Send + Sync + 'static,
        call: &Call,
    ) -> Result<Acknowledged<CountedActor>, ApiError> {
        call.record_intent(network, vec![]).await?;
        let caller = call.origin().verified_caller();
        let change = move |actor: &Actor| Actor { updated_by: caller.clone(), ..change(actor) };
        let changed = self.store.change_actor(network, id.clone(), now, change).await;
        let actor = match changed {
            Ok(ActorOutcome::Done(actor)) => {
                self.publish_actor(network, id, actor.mutation).await;
                let occurrence = Occurrence::new(event, network).with("ActorID", Some(id.as_str()));
                let suspension = actor.suspension.as_ref().filter(|_| event == Event::ActorSuspended);
                let until = suspension.and_then(|one| one.until).map(Timestamp::to_rfc3339);
                call.record_event(occurrence.with("Until", until));
                actor
            }
            // If another instance changed it, this one may not know yet.
            Ok(ActorOutcome::Unchanged(actor)) => {
                self.freshness.apply_to_actor(network, id, actor.mutation);
                if matches!(event, Event::ActorSuspended | Event::ActorResumed) {
                    call.confirm_actor(event, &actor);
                }
                actor
            }
            Err(error) => {
                self.freshness.invalidate_all_unknown();
                return Err(unavailable(error));
            }
        };
        let epoch = Some(actor.mutation).filter(|n| *n > 0);
        Ok(Acknowledged { value: self.counted(*actor).await?, epoch })
    }

    /// Erases what is recorded of an actor itself, unless it has keys.
    pub(super) async fn erase_actor(
        &self,
        network: NetworkId,
        id: &ActorId,
        call: &Call,
    ) -> Result<ActorDeletion, ApiError> {
        let caller = call.origin().verified_caller();
        match self.store.delete_actor(network, id.clone(), self.clock.now(), caller).await {
            Ok(deletion) => {
                if let ActorDeletion::Deleted(n) = deletion {
                    self.publish_actor(network, id, n).await;
                    call.record_event(Occurrence::new(Event::ActorDeleted, network));
                }
                Ok(deletion)
            }
            Err(error) => {
                self.freshness.invalidate_all_unknown();
                Err(unavailable(error))
            }
        }
    }

    /// Applies change number `n` of an actor to this instance and announces it to the others.
    async fn publish_actor(&self, network: NetworkId, id: &ActorId, n: u64) {
        self.freshness.apply_to_actor(network, id, n);
        if let Some(shared) = &self.shared {
            shared.announce_actor(&self.snapshot().secrets, n).await;
        }
    }

    async fn counted(&self, actor: Actor) -> Result<CountedActor, ApiError> {
        let (network, id) = (actor.network, actor.id.clone());
        let keys = self.store.count_actor_keys(network, id, MAX_COUNTED_KEYS + 1).await;
        Ok(CountedActor { actor, keys: keys.map_err(unavailable)? })
    }
}
