//! Issuance policies and named sets of scopes, applied to what is written.

use super::{Service, unavailable};
use crate::audit::Call;
use crate::caller::{Caller, Role};
use crate::clock::Timestamp;
use crate::error::{ApiError, FieldViolation};
use crate::key::{Key, Scopes};
use crate::settings::Settings;
use crate::settings::issuance::{Violation, Writer};
use crate::store::ActorLimit;

/// Most names of sets of scopes in an error.
const MAX_NAMED_SETS: usize = 20;

/// Returns the circumstances of a call that writes a key. Whoever needs no authentication has
/// every role.
pub(super) fn writer<'a>(call: &Call, scope_set: Option<&'a str>) -> Writer<'a> {
    Writer { role: role_of(call.origin().caller.as_ref()), scope_set }
}

/// Returns the role of a caller; `None` where callers need not authenticate.
pub(super) fn role_of(caller: Option<&Caller>) -> Role {
    caller.map_or(Role::Admin, |caller| caller.role)
}

/// Returns the scopes of a named set.
///
/// # Errors
/// Fails if there is no such set.
pub(super) fn scopes_of_set(settings: &Settings, name: &str) -> Result<Scopes, ApiError> {
    let found = settings.scope_sets.get(name).cloned();
    found.ok_or_else(|| {
        let known: Vec<&str> = settings.scope_sets.names().take(MAX_NAMED_SETS + 1).collect();
        let problem = match known.as_slice() {
            [] => "is not known: the configuration has no roles".to_owned(),
            all if all.len() > MAX_NAMED_SETS => {
                format!("is not one of the roles: {}, …", all[..MAX_NAMED_SETS].join(", "))
            }
            all => format!("is not one of the roles: {}", all.join(", ")),
        };
        ApiError::field("role", problem)
    })
}

/// Returns the limits on the keys of the actor of a key that is written.
pub(super) fn actor_limits(
    settings: &Settings,
    key: &Key,
    writer: &Writer<'_>,
    now: Timestamp,
) -> Vec<ActorLimit> {
    let limits = settings.issuance.limits(key, writer, now).into_iter();
    limits
        .map(|limit| ActorLimit { policy: limit.policy, visibility: limit.visibility, most: limit.most })
        .collect()
}

/// Returns the error for an actor that has as many keys as it may have by these limits.
pub(super) fn limit_reached(limits: &[ActorLimit]) -> ApiError {
    ApiError::fields(limits.iter().map(limit_violation).collect())
}

fn limit_violation(limit: &ActorLimit) -> FieldViolation {
    let ActorLimit { policy, most, .. } = limit;
    let description = format!(
        "has {most} active keys or more, and may not have another; revoke some that are no longer used \
         (issuance policy {policy}: max_keys_per_actor)"
    );
    FieldViolation { field: "actor_id".into(), description }
}

/// Checks a key that is written. With `fields`, only those count: an update need not cure the rest
/// of a key.
///
/// # Errors
/// Fails with all rules that the key breaks.
pub(super) fn check(
    settings: &Settings,
    key: &Key,
    writer: &Writer<'_>,
    fields: Option<&[(&'static str, &'static str)]>,
    now: Timestamp,
) -> Result<(), ApiError> {
    let violations = settings.issuance.judge(key, writer, now).into_iter();
    let violations = violations.filter_map(|violation| {
        let name = match fields {
            None => violation.field,
            Some(fields) => fields.iter().find(|(field, _)| *field == violation.field)?.1,
        };
        Some(named(violation, name))
    });
    match violations.collect::<Vec<_>>() {
        violations if violations.is_empty() => Ok(()),
        violations => Err(ApiError::fields(violations)),
    }
}

fn named(violation: Violation, field: &'static str) -> FieldViolation {
    FieldViolation { field: field.into(), description: violation.problem }
}

impl Service {
    /// Checks a new key. Returns the limits on the keys of its actor, which only the transaction
    /// that inserts it can check for good.
    ///
    /// # Errors
    /// Fails with all rules that the key breaks, full limits among them.
    pub(super) async fn check_new(
        &self,
        settings: &Settings,
        key: &Key,
        writer: &Writer<'_>,
    ) -> Result<Vec<ActorLimit>, ApiError> {
        if settings.issuance.is_empty() {
            return Ok(vec![]);
        }
        let limits = actor_limits(settings, key, writer, key.created);
        let Err(mut error) = check(settings, key, writer, None, key.created) else {
            return Ok(limits);
        };
        for limit in limits {
            let is_full = self.store.is_at_limit(key.network, key.actor.clone(), limit.clone(), key.created);
            if is_full.await.map_err(unavailable)? {
                error.violations.push(limit_violation(&limit));
            }
        }
        Err(ApiError::fields(error.violations))
    }
}
