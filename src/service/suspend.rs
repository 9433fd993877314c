//! Suspension of keys, their resumption, and the early end of a grace period.

use std::sync::Arc;

use super::change::Refusal;
use super::{Acknowledged, Service, no_such_key};
use crate::audit::Call;
use crate::clock::Timestamp;
use crate::error::{ApiError, Reason};
use crate::event::Event;
use crate::key::{
    Key, KeyId, KeyKind, NetworkId, Provenance, Revocation, RevocationReason, Status, Suspension,
    Suspensions, TEN_YEARS,
};

/// Request to suspend a key or an actor.
#[derive(Debug, Clone, Default)]
pub struct SuspendRequest {
    /// Reason, for people.
    pub reason: Option<String>,
    /// Time at which the suspension ends by itself.
    pub until: Option<Timestamp>,
}

impl SuspendRequest {
    /// Makes the suspension.
    ///
    /// # Errors
    /// Fails if the reason is invalid, or the end isn't in the next ten years.
    pub(super) fn suspension(self, now: Timestamp, call: &Call) -> Result<Suspension, ApiError> {
        let Self { reason, until } = self;
        if let Some(reason) = &reason {
            Suspension::check_reason(reason).map_err(|error| ApiError::field("reason", error.0))?;
        }
        if until.is_some_and(|until| until <= now || until > now.plus(TEN_YEARS)) {
            let problem = "must be a time in the future, at most ten years from now";
            return Err(ApiError::field("until", problem));
        }
        let by = call.origin().verified_caller();
        Ok(Suspension { reason: reason.map(Into::into), until, at: now, by })
    }
}

/// Returns true if a suspension of the same reason and end is in force already.
pub(super) fn is_repeated(current: Option<&Arc<Suspension>>, new: &Suspension) -> bool {
    current.is_some_and(|one| one.is_in_force(new.at) && (&one.reason, one.until) == (&new.reason, new.until))
}

impl Service {
    /// Suspends a key until it is resumed, or the suspension ends by itself. Suspending it again
    /// replaces reason and end.
    ///
    /// # Errors
    /// Fails if there is no such key, it is revoked, reason or end are invalid, or the database
    /// fails.
    pub async fn suspend(
        &self,
        network: NetworkId,
        kind: KeyKind,
        id: &str,
        request: SuspendRequest,
        call: &Call,
    ) -> Result<Acknowledged<Key>, ApiError> {
        let id = KeyId::parse(kind, id).ok_or_else(no_such_key)?;
        let now = self.corrected_now();
        let suspension = Arc::new(request.suspension(now, call)?);
        let rewrite = move |key: &Key| -> Result<Key, Refusal> {
            if key.status(now) == Status::Revoked {
                let problem = "the key is revoked for good, so it can't be suspended";
                return Err(ApiError::new(Reason::FailedPrecondition, problem).into());
            }
            if is_repeated(key.suspensions.own.as_ref(), &suspension) {
                return Err(Refusal::Unchanged);
            }
            let own = Some(Arc::clone(&suspension));
            let updated_by = suspension.by.clone();
            Ok(Key {
                suspensions: Suspensions { own, ..key.suspensions.clone() },
                updated: now,
                provenance: Provenance { updated_by, ..Provenance::clone(&key.provenance) }.into(),
                ..key.clone()
            })
        };
        self.change(network, id, now, Event::suspended(kind), rewrite, call).await
    }

    /// Resumes a suspended key. A suspension of its actor stays. Resuming a key that isn't
    /// suspended changes nothing.
    ///
    /// # Errors
    /// Fails if there is no such key or the database fails.
    pub async fn resume(
        &self,
        network: NetworkId,
        kind: KeyKind,
        id: &str,
        call: &Call,
    ) -> Result<Acknowledged<Key>, ApiError> {
        let id = KeyId::parse(kind, id).ok_or_else(no_such_key)?;
        let (now, caller) = (self.clock.now(), call.origin().verified_caller());
        let rewrite = move |key: &Key| match key.suspensions.own {
            None => Err(Refusal::Unchanged),
            Some(_) => Ok(Key {
                suspensions: Suspensions { own: None, ..key.suspensions.clone() },
                updated: now,
                provenance: Provenance { updated_by: caller.clone(), ..Provenance::clone(&key.provenance) }
                    .into(),
                ..key.clone()
            }),
        };
        self.change(network, id, now, Event::resumed(kind), rewrite, call).await
    }

    /// Ends the grace period of a rotated key now, and records an end that has come by itself:
    /// clocks that are behind would let the key pass for some time.
    ///
    /// # Errors
    /// Fails if there is no such key, it has no grace period, or the database fails.
    pub async fn finish(
        &self,
        network: NetworkId,
        id: &str,
        call: &Call,
    ) -> Result<Acknowledged<Key>, ApiError> {
        let id = KeyId::parse(KeyKind::Issued, id).ok_or_else(no_such_key)?;
        let (now, caller) = (self.corrected_now(), call.origin().verified_caller());
        let rewrite = move |key: &Key| -> Result<Key, Refusal> {
            let is_superseded = key.superseded.is_some()
                || key.revocation.as_ref().is_some_and(|of| of.reason == RevocationReason::Superseded);
            match (key.revocation.is_some(), is_superseded) {
                (true, true) => Err(Refusal::Unchanged),
                (_, false) => {
                    let problem = "the key has no grace period: it hasn't been rotated; revoke it to end it";
                    Err(ApiError::new(Reason::FailedPrecondition, problem).into())
                }
                (false, true) => Ok(Key {
                    revocation: Some(Box::new(Revocation::SUPERSEDED)),
                    superseded: key.superseded.map(|end| end.min(now)),
                    updated: now,
                    provenance: Provenance {
                        updated_by: caller.clone(),
                        revoked_by: caller.clone(),
                        ..Provenance::clone(&key.provenance)
                    }
                    .into(),
                    ..key.clone()
                }),
            }
        };
        self.change(network, id, now, Event::IssuedKeyRevoked, rewrite, call).await
    }
}
