//! Warnings: about policies that end a key, about rate policies that Talos stores and reports, but
//! doesn't enforce, and about revocations that change nothing.

use std::borrow::Cow;
use std::fmt::Display;

use axum::http::HeaderValue;
use axum::http::header::WARNING;
use axum::response::Response;

use crate::key::{Actor, Key, RatePolicy};
use crate::service::Revoked;
use crate::settings::Settings;

/// Warning about a key whose limits the settings don't enforce.
const NOT_ENABLED: &str =
    "rate_limit.enabled is false: the limits of this key are stored and reported, not enforced";

/// Warning about an actor whose limits the settings don't enforce.
const ACTOR_NOT_ENABLED: &str =
    "rate_limit.enabled is false: the limits of this actor are stored and reported, not enforced";

/// Returns a header `Warning` (RFC 7234): 299, a lasting one without a code of its own.
fn to_header(text: impl Display) -> String {
    format!("299 talos \"{text}\"")
}

/// Adds a header `Warning` to a response.
fn add(response: &mut Response, header: String) {
    response.headers_mut().extend(HeaderValue::try_from(header).ok().map(|value| (WARNING, value)));
}

/// Returns the header for a policy in a unit that is not enforced, `None` for others.
fn not_enforced(policy: RatePolicy) -> Option<String> {
    (!policy.unit.is_enforced()).then(|| {
        let unit = policy.unit.name();
        to_header(format_args!("rate_limit_policy.unit: {unit} is stored and reported, not enforced"))
    })
}

/// Returns the warnings that are shown with a key.
pub(super) fn warnings(settings: &Settings, key: &Key) -> Vec<Cow<'static, str>> {
    let idle = limit_warning(settings, key).map(Cow::Borrowed);
    let ended = settings.issuance.end_of(key);
    let ended = ended.map(|end| {
        let text = format!("issuance policy {}: ends this key at {}", end.policy, end.at.to_rfc3339());
        Cow::Owned(text)
    });
    idle.into_iter().chain(ended).collect()
}

/// Returns the warning that is shown to the holder of a key whose limits the settings don't
/// enforce.
pub(super) fn limit_warning(settings: &Settings, key: &Key) -> Option<&'static str> {
    has_idle_limits(settings, key).then_some(NOT_ENABLED)
}

/// Returns true for a key whose limits the settings don't enforce.
fn has_idle_limits(settings: &Settings, key: &Key) -> bool {
    !settings.rate_limited && key.counted_rate_policies().next().is_some()
}

/// Adds warnings to the response to a change if a rate policy is not enforced. Logs those about the
/// unit, too.
pub(super) fn with_notice<'a>(
    mut response: Response,
    settings: &Settings,
    keys: impl Iterator<Item = &'a Key> + Clone,
) -> Response {
    if keys.clone().any(|key| has_idle_limits(settings, key)) {
        add(&mut response, to_header(NOT_ENABLED));
    }
    let unit =
        keys.filter_map(|key| key.rate_policy).find_map(|policy| Some((policy.unit, not_enforced(policy)?)));
    if let Some((unit, header)) = unit {
        tracing::warn!(unit = unit.name(), "a rate limit in this unit is stored and reported, not enforced");
        add(&mut response, header);
    }
    response
}

/// Adds warnings to the response to a verification if limits of the keys are not enforced, each
/// text once.
pub(super) fn add_limit_warnings<'a>(
    response: &mut Response,
    settings: &Settings,
    keys: impl Iterator<Item = &'a Key>,
) {
    let mut headers: Vec<String> = vec![];
    for key in keys {
        let unit = key.rate_policy.and_then(not_enforced);
        let idle = limit_warning(settings, key).map(to_header);
        for header in unit.into_iter().chain(idle) {
            if !headers.contains(&header) {
                headers.push(header);
            }
        }
    }
    for header in headers {
        add(response, header);
    }
}

/// Returns the warnings that are shown with an actor.
pub(super) fn warnings_of_actor(settings: &Settings, actor: &Actor) -> Vec<&'static str> {
    let is_idle = !settings.rate_limited && actor.has_counted_limits();
    is_idle.then_some(ACTOR_NOT_ENABLED).into_iter().collect()
}

/// Adds the warnings of an actor to the response to its update.
pub(super) fn with_notice_of_actor(mut response: Response, warnings: &[&'static str]) -> Response {
    for text in warnings {
        add(&mut response, to_header(text));
    }
    response
}

/// Adds a warning to the response to a revocation of a key that was revoked for another reason.
pub(super) fn with_earlier_revocation(mut response: Response, revoked: Revoked) -> Response {
    if let Revoked::Otherwise(reason) = revoked {
        let reason = reason.name();
        let text = format_args!("nothing was changed: the key was revoked before, with {reason}");
        add(&mut response, to_header(text));
    }
    response
}
