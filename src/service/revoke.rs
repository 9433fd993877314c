//! Revocation by an operator or by the holder of a key.

use super::verify::{CacheUse, Identity, VerifyRequest};
use super::{Acknowledged, Service, Unavailable, no_such_key, unavailable};
use crate::audit::Call;
use crate::credential::Presented;
use crate::error::{ApiError, Reason};
use crate::event::{Event, Occurrence, Operation};
use crate::key::verdict::Denial;
use crate::key::{Key, KeyId, KeyKind, NetworkId, Provenance, Revocation, RevocationReason};
use crate::settings::Settings;
use crate::store::{ChangeOutcome, KeyChange, Mutation};

/// Maximum length of a revocation's description, in characters.
pub const MAX_DESCRIPTION: usize = 1_024;

impl Service {
    /// Revokes a key for good. Revoking it again succeeds and changes nothing; the result says
    /// which revocation stays. That is so for a key whose grace period is over, too, but its end is
    /// recorded: clocks that are behind would let the key pass for some time.
    ///
    /// # Errors
    /// Fails if there is no such key, a description stands beside a reason that takes none, or the
    /// database fails.
    pub async fn revoke(
        &self,
        network: NetworkId,
        kind: Option<KeyKind>,
        id: &str,
        revocation: Revocation,
        call: &Call,
    ) -> Result<Acknowledged<Revoked>, ApiError> {
        if revocation.description.is_some() && revocation.reason != RevocationReason::PrivilegeWithdrawn {
            let problem = "is allowed only beside REVOCATION_REASON_PRIVILEGE_WITHDRAWN";
            return Err(ApiError::field("description", problem));
        }
        // Not every database can hold a NUL.
        let bad = |char: char| char.is_control() && !matches!(char, '\t' | '\n' | '\r');
        let bad = |text: &String| text.chars().count() > MAX_DESCRIPTION || text.chars().any(bad);
        if revocation.description.as_ref().is_some_and(bad) {
            let problem =
                "must be 1024 characters at most, none of them a control character but tabs and line breaks";
            return Err(ApiError::field("description", problem));
        }
        let id = match kind {
            Some(kind) => KeyId::parse(kind, id),
            None => KeyId::parse_any(id),
        };
        self.revoke_id(network, id.ok_or_else(no_such_key)?, revocation, call).await
    }

    /// Revokes the key whose credential is presented.
    ///
    /// # Errors
    /// Fails for a derived token, for a reason that only admins may give, if the database fails,
    /// and, always with the same error, for all but the credential of an active or revoked key.
    pub async fn self_revoke(
        &self,
        settings: &Settings,
        credential: &str,
        reason: RevocationReason,
        call: &Call,
    ) -> Result<Acknowledged<Revoked>, ApiError> {
        if reason == RevocationReason::PrivilegeWithdrawn {
            return Err(ApiError::field(
                "reason",
                "REVOCATION_REASON_PRIVILEGE_WITHDRAWN is for admins only",
            ));
        }
        let credential = Presented::new(credential).ok_or_else(unknown_credential)?;
        if settings.form(credential).is_derived() {
            let problem = "a derived token can't be revoked; revoke the key that it was derived from";
            let error = ApiError::field("credential", problem);
            return Err(ApiError { reason: Reason::DerivedTokenNotRevocable, ..error });
        }
        let verify_request =
            VerifyRequest { credential, client: None, audiences: &[], cache: CacheUse::None };
        let verification = self.verify(settings, &verify_request).await.map_err(|Unavailable| {
            ApiError::new(Reason::ServiceUnavailable, "the database gives no answer; try again")
        })?;
        let id = match verification.verdict {
            Ok(Identity::Key(entry)) => entry.key.id,
            // Whoever holds the key may end it from anywhere, also while it is refused.
            Err(rejection)
                if matches!(
                    rejection.denial,
                    Denial::AddressNotAllowed | Denial::Revoked | Denial::Suspended | Denial::Policy
                ) =>
            {
                rejection.key_id.ok_or_else(unknown_credential)?
            }
            Err(rejection) => {
                self.record_failure(settings, &rejection, call.operation(), call.origin());
                return Err(unknown_credential());
            }
            Ok(Identity::Token(_)) => return Err(unknown_credential()),
        };
        let revocation = Revocation { reason, description: None };
        self.revoke_id(settings.network, id, revocation, call).await.map_err(|error| match error.reason {
            Reason::ApiKeyNotFound => unknown_credential(),
            _ => error,
        })
    }

    /// Revokes a key in the database, publishes the change and records it.
    async fn revoke_id(
        &self,
        network: NetworkId,
        id: KeyId,
        revocation: Revocation,
        call: &Call,
    ) -> Result<Acknowledged<Revoked>, ApiError> {
        call.record_intent(network, vec![id]).await?;
        let (now, judged_at) = (self.clock.now(), self.corrected_now());
        let (caller, requested) = (call.origin().verified_caller(), revocation.clone());
        let revoked = self
            .store
            .change_key(network, id, now, move |key| {
                let revocation = match (&key.revocation, key.is_revoked_for_good(judged_at)) {
                    (Some(_), _) => return Err(AlreadyRevoked),
                    (None, true) => Revocation::SUPERSEDED,
                    (None, false) => revocation.clone(),
                };
                let provenance = Provenance {
                    updated_by: caller.clone(),
                    revoked_by: caller.clone(),
                    ..Provenance::clone(&key.provenance)
                };
                let revocation = Some(Box::new(revocation));
                let key = Key { revocation, updated: now, provenance: provenance.into(), ..key.clone() };
                Ok(KeyChange { key, successor: None })
            })
            .await;
        let (epoch, value) = match revoked {
            // Published before it is acknowledged: the next request here is already rejected.
            Ok(ChangeOutcome::Done { rows, mutation }) => {
                self.publish(&[mutation]).await;
                let by_holder = (call.operation() == Operation::SelfRevoke).then_some("self");
                let occurrence = Occurrence::of_key(Event::revoked(id.kind()), &rows.key);
                call.record_event(occurrence.with("metadata.initiated_by", by_holder));
                let value = match rows.key.revocation.as_deref() {
                    Some(recorded) if *recorded != requested => Revoked::Otherwise(recorded.reason),
                    _ => Revoked::Now,
                };
                (mutation.n, value)
            }
            // If another instance revoked it, this one may not know yet.
            Ok(ChangeOutcome::Refused { key, reason: AlreadyRevoked }) => {
                self.freshness.apply(&Mutation { n: key.mutation, network, key_id: key.id });
                call.confirm_end(&key);
                let earlier = key.revocation.as_deref().cloned().unwrap_or(Revocation::SUPERSEDED);
                let value = match earlier == requested {
                    true => Revoked::Likewise,
                    false => Revoked::Otherwise(earlier.reason),
                };
                (key.mutation, value)
            }
            Ok(
                ChangeOutcome::NoSuchKey
                | ChangeOutcome::QuotaExceeded
                | ChangeOutcome::ActorLimitReached(_)
                | ChangeOutcome::RequestConflict,
            ) => {
                return Err(no_such_key());
            }
            Err(error) => {
                self.freshness.invalidate_unknown(network, id);
                return Err(unavailable(error));
            }
        };
        Ok(Acknowledged { value, epoch: Some(epoch) })
    }
}

/// Outcome of a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// This call revoked the key.
    Now,
    /// The key was revoked before, for the same reason.
    Likewise,
    /// The key was revoked before, for this reason or with another description, which stays.
    Otherwise(RevocationReason),
}

/// Reason for which a revocation changes nothing.
struct AlreadyRevoked;

fn unknown_credential() -> ApiError {
    ApiError::new(Reason::UnknownCredential, "credential: is not that of a key which can be revoked here")
}
