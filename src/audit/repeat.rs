//! Repetition of changes that a restored database lacks.

use std::sync::Arc;

use super::changes::{ChangeKind, Difference, RecordedChange};
use super::{Audit, Call, Origin, Outcome};
use crate::caller::Caller;
use crate::clock::Timestamp;
use crate::error::ApiError;
use crate::event::{Event, Occurrence, Operation};
use crate::key::{Key, Revocation, RevocationReason, Suspension};
use crate::store::{ChangeOutcome, KeyChange, Store, StoreError};

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
    let operation = match change.kind {
        ChangeKind::Deleted => Operation::Delete,
        ChangeKind::Revoked(_) | ChangeKind::Superseded(None) => Operation::Revoke,
        ChangeKind::Superseded(Some(_)) => Operation::Update,
        ChangeKind::Suspended(_) => Operation::Suspend,
        ChangeKind::Resumed => Operation::Resume,
        ChangeKind::Created | ChangeKind::Updated => return Ok(false),
    };
    let caller = Caller { name: CALLER.to_owned(), ..Caller::anonymous() };
    let origin = Origin { caller: Some(caller), request_id: request_id.to_owned(), ..Origin::default() };
    let call = Call::new(Arc::clone(audit), operation, origin);
    call.record_intent(change.network, vec![change.key]).await?;
    let repeated = match change.kind {
        ChangeKind::Deleted => delete(store, &change, &call, now).await,
        _ => change_key(store, &change, &call, now).await,
    };
    let (status, reason) = match &repeated {
        Ok(_) => (NO_CONTENT, None),
        Err(_) => (503, Some(crate::error::Reason::ServiceUnavailable)),
    };
    call.record_outcome(Outcome { status, reason }).await?;
    Ok(repeated?)
}

async fn delete(
    store: &Store,
    change: &RecordedChange,
    call: &Call,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let is_deleted = !store.delete_keys(change.network, vec![change.key], now, None).await?.is_empty();
    if is_deleted {
        let event = Event::deleted(change.key.kind());
        call.record_event(Occurrence::new(event, change.network).of_id(change.key));
    }
    Ok(is_deleted)
}

/// Revokes, suspends or resumes a key, or sets the end that its rotation gave it.
async fn change_key(
    store: &Store,
    change: &RecordedChange,
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
                let suspension = Suspension { reason: None, until, at: now, by: Some(CALLER.into()) };
                key.suspensions.own = Some(Arc::new(suspension));
            }
            ChangeKind::Resumed => key.suspensions.own = None,
            ChangeKind::Created | ChangeKind::Updated | ChangeKind::Deleted => return Err(()),
        }
        Ok(KeyChange { key, successor: None })
    };
    match store.change_key(change.network, change.key, now, rewrite).await? {
        ChangeOutcome::Done { rows, .. } => {
            let event = match kind {
                ChangeKind::Suspended(_) => Event::suspended,
                ChangeKind::Resumed => Event::resumed,
                _ if rows.key.revocation.is_some() => Event::revoked,
                _ => Event::updated,
            };
            let event = event(change.key.kind());
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

const fn revocation(reason: RevocationReason) -> Revocation {
    Revocation { reason, description: None }
}
