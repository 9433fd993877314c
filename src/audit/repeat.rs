//! Repetition of changes that a restored database lacks.

use std::sync::Arc;

use super::changes::{ChangeKind, Difference, RecordedChange, Subject};
use super::{Audit, Call, Origin, Outcome};
use crate::caller::Caller;
use crate::clock::Timestamp;
use crate::error::ApiError;
use crate::event::{Event, Occurrence, Operation};
use crate::key::{Actor, ActorId, Key, KeyId, Revocation, RevocationReason, Suspension};
use crate::store::{ActorOutcome, ChangeOutcome, KeyChange, Store, StoreError};

/// HTTP status of a success without content, as the API has for these changes.
const NO_CONTENT: u16 = 204;

/// Name of the caller in the audit log. Whoever can write the database may repeat changes.
const CALLER: &str = "talos audit replay";

/// Error of a repetition.
#[derive(Debug, thiserror::Error)]
pub enum RepeatError {
    /// The audit log can't be written.
    #[error(transparent)]
    Audit(#[from] ApiError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Repeats a change on the database, and records it in the audit log like a call of the API.
/// Returns false if there was nothing left to do.
///
/// # Errors
/// When the log can't be written or the database fails; the change may then be made or not, and
/// repeating it again is safe.
pub async fn repeat(
    audit: &Arc<Audit>,
    store: &Store,
    difference: &Difference,
    request_id: &str,
    now: Timestamp,
) -> Result<bool, RepeatError> {
    let change = difference.change.clone();
    let operation = match (&change.subject, change.kind) {
        (Subject::Actor(_), ChangeKind::Suspended(_)) => Operation::SuspendActor,
        (Subject::Actor(_), ChangeKind::Resumed) => Operation::ResumeActor,
        (Subject::Actor(_) | Subject::ErasedActor, _) => return Ok(false),
        (Subject::Key(_), kind) => match operation_on_key(kind) {
            Some(operation) => operation,
            None => return Ok(false),
        },
    };
    let caller = Caller { name: CALLER.to_owned(), ..Caller::anonymous() };
    let origin = Origin { caller: Some(caller), request_id: request_id.to_owned(), ..Origin::default() };
    let call = Call::new(Arc::clone(audit), operation, origin);
    call.record_intent(change.network, change.key().into_iter().collect()).await?;
    let repeated = match (&change.subject, change.kind) {
        (Subject::Key(key), ChangeKind::Deleted) => delete(store, &change, *key, &call, now).await,
        (Subject::Key(key), _) => change_key(store, &change, *key, &call, now).await,
        (Subject::Actor(actor), _) => change_actor(store, &change, actor, &call, now).await,
        (Subject::ErasedActor, _) => Ok(false),
    };
    let (status, reason) = match &repeated {
        Ok(_) => (NO_CONTENT, None),
        Err(_) => (503, Some(crate::error::Reason::ServiceUnavailable)),
    };
    call.record_outcome(Outcome { status, reason }).await?;
    Ok(repeated?)
}

/// Returns the operation that repeats a change of a key; `None` if the log has too little of it.
const fn operation_on_key(kind: ChangeKind) -> Option<Operation> {
    match kind {
        ChangeKind::Deleted => Some(Operation::Delete),
        ChangeKind::Revoked(_) | ChangeKind::Superseded(None) => Some(Operation::Revoke),
        ChangeKind::Superseded(Some(_)) => Some(Operation::Update),
        ChangeKind::Suspended(_) => Some(Operation::Suspend),
        ChangeKind::Resumed => Some(Operation::Resume),
        ChangeKind::Created | ChangeKind::Updated => None,
    }
}

async fn delete(
    store: &Store,
    change: &RecordedChange,
    key: KeyId,
    call: &Call,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let is_deleted = !store.delete_keys(change.network, vec![key], now, None).await?.is_empty();
    if is_deleted {
        let event = Event::deleted(key.kind());
        call.record_event(Occurrence::new(event, change.network).of_id(key));
    }
    Ok(is_deleted)
}

/// Revokes, suspends or resumes a key, or sets the end that its rotation gave it.
async fn change_key(
    store: &Store,
    change: &RecordedChange,
    key: KeyId,
    call: &Call,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let kind = change.kind;
    let rewrite = move |key: &Key| {
        let mut key = Key { updated: now, ..key.clone() };
        match kind {
            _ if key.revocation.is_some() => return Err(()),
            ChangeKind::Superseded(Some(until)) => {
                key.superseded = Some(key.superseded.map_or(until, |end| end.min(until)));
            }
            ChangeKind::Superseded(None) => key.revocation = Some(revocation(RevocationReason::Superseded)),
            ChangeKind::Revoked(reason) => key.revocation = Some(revocation(reason)),
            ChangeKind::Suspended(until) => {
                key.suspensions.own = Some(suspension(until, now));
            }
            ChangeKind::Resumed => key.suspensions.own = None,
            ChangeKind::Created | ChangeKind::Updated | ChangeKind::Deleted => return Err(()),
        }
        Ok(KeyChange { key, successor: None })
    };
    match store.change_key(change.network, key, now, rewrite).await? {
        ChangeOutcome::Done { rows, .. } => {
            let event = match kind {
                ChangeKind::Suspended(_) => Event::suspended,
                ChangeKind::Resumed => Event::resumed,
                _ if rows.key.revocation.is_some() => Event::revoked,
                _ => Event::updated,
            };
            let event = event(key.kind());
            call.record_event(Occurrence::of_key(event, &rows.key));
            Ok(true)
        }
        ChangeOutcome::Refused { .. }
        | ChangeOutcome::NoSuchKey
        | ChangeOutcome::QuotaExceeded
        | ChangeOutcome::ActorLimitReached(_)
        | ChangeOutcome::RequestConflict => Ok(false),
    }
}

/// Suspends an actor with all its keys, or ends that.
async fn change_actor(
    store: &Store,
    change: &RecordedChange,
    id: &ActorId,
    call: &Call,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let suspended = match change.kind {
        ChangeKind::Suspended(until) => Some(suspension(until, now)),
        _ => None,
    };
    let (event, until) = match &suspended {
        Some(suspension) => (Event::ActorSuspended, suspension.until.map(Timestamp::to_rfc3339)),
        None => (Event::ActorResumed, None),
    };
    let rewrite = move |actor: &Actor| Actor {
        suspension: suspended.clone(),
        updated_by: Some(CALLER.into()),
        ..actor.clone()
    };
    match store.change_actor(change.network, id.clone(), now, rewrite).await? {
        ActorOutcome::Done(_) => {
            let occurrence = Occurrence::new(event, change.network).with("ActorID", Some(id.as_str()));
            call.record_event(occurrence.with("Until", until));
            Ok(true)
        }
        ActorOutcome::Unchanged(_) => Ok(false),
    }
}

fn suspension(until: Option<Timestamp>, now: Timestamp) -> Arc<Suspension> {
    Arc::new(Suspension { reason: None, until, at: now, by: Some(CALLER.into()) })
}

fn revocation(reason: RevocationReason) -> Box<Revocation> {
    Box::new(Revocation { reason, description: None })
}
