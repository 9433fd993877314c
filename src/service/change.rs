//! Changes of one key that leave its secret as it is.

use super::issuance::limit_reached;
use super::{Acknowledged, Service, no_such_key, unavailable};
use crate::audit::Call;
use crate::clock::Timestamp;
use crate::error::{ApiError, Reason};
use crate::event::{Event, Occurrence};
use crate::key::{Key, KeyId, NetworkId};
use crate::store::{ActorLimit, ChangeOutcome, KeyChange, Mutation};

/// Reason for which a change writes nothing.
pub(super) enum Refusal {
    /// The change is not allowed.
    Error(ApiError),
    /// The key is like that already.
    Unchanged,
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self::Error(error)
    }
}

impl Service {
    /// Changes a key to the result of `rewrite`, publishes the change and records it as `event`.
    /// Returns the key after the change.
    ///
    /// # Errors
    /// Fails if there is no such key, `rewrite` refuses, or the database fails.
    pub(super) async fn change(
        &self,
        network: NetworkId,
        id: KeyId,
        now: Timestamp,
        event: Event,
        rewrite: impl Fn(&Key) -> Result<Key, Refusal> + Send + Sync + 'static,
        call: &Call,
    ) -> Result<Acknowledged<Key>, ApiError> {
        self.change_within((network, id), now, event, |_| vec![], rewrite, call).await
    }

    /// Changes a key as [`Service::change`] does, within `limits` on the keys of its actor.
    ///
    /// # Errors
    /// Those of [`Service::change`].
    pub(super) async fn change_within(
        &self,
        (network, id): (NetworkId, KeyId),
        now: Timestamp,
        event: Event,
        limits: impl Fn(&Key) -> Vec<ActorLimit> + Send + Sync + 'static,
        rewrite: impl Fn(&Key) -> Result<Key, Refusal> + Send + Sync + 'static,
        call: &Call,
    ) -> Result<Acknowledged<Key>, ApiError> {
        call.record_intent(network, vec![id]).await?;
        let rewrite = move |key: &Key| rewrite(key).map(|key| KeyChange { key, successor: None });
        match self.store.change_key_within(network, id, now, limits, rewrite).await {
            Ok(ChangeOutcome::Done { rows, mutation }) => {
                self.publish(&[mutation]).await;
                call.record_event(Occurrence::of_key(event, &rows.key));
                Ok(Acknowledged { value: rows.key.with_last_use_until(now), epoch: Some(mutation.n) })
            }
            // If another instance changed it, this one may not know yet.
            Ok(ChangeOutcome::Refused { key, reason: Refusal::Unchanged }) => {
                let n = key.mutation;
                self.freshness.apply(&Mutation { n, network, key_id: key.id });
                match event == Event::revoked(key.id.kind()) {
                    true => call.confirm_end(&key),
                    false => call.confirm_key(event, &key),
                }
                Ok(Acknowledged { value: key.with_last_use_until(now), epoch: Some(n) })
            }
            Ok(ChangeOutcome::Refused { reason: Refusal::Error(error), .. }) => Err(error),
            Ok(ChangeOutcome::NoSuchKey) => Err(no_such_key()),
            Ok(ChangeOutcome::ActorLimitReached(limits)) => Err(limit_reached(&limits)),
            Ok(ChangeOutcome::QuotaExceeded | ChangeOutcome::RequestConflict) => Err(ApiError::new(
                Reason::InternalServerError,
                "the database reported a full quota or a repeated request for a change, which adds no key",
            )),
            Err(error) => {
                self.freshness.invalidate_unknown(network, id);
                Err(unavailable(error))
            }
        }
    }
}
