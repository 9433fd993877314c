//! What an answer says beside its content: that something in it is stored and reported, but not
//! enforced.

use axum::http::HeaderValue;
use axum::http::header::WARNING;
use axum::response::Response;

use crate::key::{Key, RatePolicy};

/// Says of a policy in a unit that isn't enforced that it isn't; None when it is.
pub fn not_enforced(policy: RatePolicy) -> Option<String> {
    (!policy.unit.is_enforced()).then(|| {
        let unit = policy.unit.name();
        format!("299 talos \"rate_limit_policy.unit: {unit} is stored and reported, not enforced\"")
    })
}

/// The answer to a change, which says in the `Warning` header if it isn't enforced in full. So does
/// the log.
pub fn with_notice<'a>(mut response: Response, keys: impl Iterator<Item = &'a Key>) -> Response {
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
