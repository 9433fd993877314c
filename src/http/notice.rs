//! `Warning` headers: for rate policies that Talos stores and reports, but doesn't enforce, and for
//! revocations that change nothing.

use axum::http::HeaderValue;
use axum::http::header::WARNING;
use axum::response::Response;

use crate::key::{Key, RatePolicy};
use crate::service::Revoked;

/// Returns the warning for a policy in a unit that is not enforced, `None` for others.
pub(super) fn not_enforced(policy: RatePolicy) -> Option<String> {
    (!policy.unit.is_enforced()).then(|| {
        let unit = policy.unit.name();
        format!("299 talos \"rate_limit_policy.unit: {unit} is stored and reported, not enforced\"")
    })
}

/// Adds a warning to the response to a change if a rate policy is not enforced. Logs it, too.
pub(super) fn with_notice<'a>(mut response: Response, keys: impl Iterator<Item = &'a Key>) -> Response {
    let policy = keys.filter_map(|key| key.rate_policy).find(|policy| !policy.unit.is_enforced());
    if let Some(policy) = policy {
        tracing::warn!(
            unit = policy.unit.name(),
            "a rate limit in this unit is stored and reported, not enforced"
        );
        let notice = not_enforced(policy).and_then(|notice| HeaderValue::try_from(notice).ok());
        response.headers_mut().extend(notice.map(|notice| (WARNING, notice)));
    }
    response
}

/// Adds a warning to the response to a revocation of a key that was revoked for another reason.
pub(super) fn with_earlier_revocation(mut response: Response, revoked: Revoked) -> Response {
    if let Revoked::Otherwise(reason) = revoked {
        let notice =
            format!("299 talos \"nothing was changed: the key was revoked before, with {}\"", reason.name());
        response.headers_mut().extend(HeaderValue::try_from(notice).ok().map(|notice| (WARNING, notice)));
    }
    response
}
