//! Parameters of queries.

use crate::error::ApiError;
use crate::service::ListRequest;

/// Maximum length of a parameter's name in an error, in characters.
const MAX_NAME: usize = 128;

/// Hands each parameter to `take`, which returns false for a name that it doesn't know.
///
/// # Errors
/// Fails if a name stands there twice or isn't known, or `take` fails.
pub(super) fn parameters(
    pairs: Vec<(String, String)>,
    mut take: impl FnMut(&str, String) -> Result<bool, ApiError>,
) -> Result<(), ApiError> {
    let mut seen: Vec<String> = vec![];
    for (name, value) in pairs {
        if seen.contains(&name) {
            return Err(ApiError::field(name, "stands there twice"));
        }
        if !take(&name, value)? {
            let name: String = name.chars().take(MAX_NAME).collect();
            return Err(ApiError::field(name, "is not a known parameter"));
        }
        seen.push(name);
    }
    Ok(())
}

/// Parses `page_size`: 0 without a number, and the largest page for a number that is too large.
///
/// # Errors
/// Fails if it is no number.
pub(super) fn page_size(value: &str) -> Result<u32, ApiError> {
    match value.bytes().all(|byte| byte.is_ascii_digit()) {
        true if value.is_empty() => Ok(0),
        true => Ok(value.parse().unwrap_or(u32::MAX)),
        false => Err(ApiError::field("page_size", "must be a number from 0")),
    }
}

/// Parses the query of a listing.
///
/// # Errors
/// Fails if a parameter isn't known, stands there twice, or has a value that it can't have.
pub(crate) fn list_request(pairs: Vec<(String, String)>) -> Result<ListRequest, ApiError> {
    let mut request = ListRequest::default();
    parameters(pairs, |name, value| {
        match name {
            "page_token" => request.page_token = value,
            "filter" => request.filter = value,
            "order_by" => request.order_by = value,
            "query" => request.query = value,
            "total" => request.has_total = truth("total", &value)?,
            "page_size" => request.page_size = page_size(&value)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(request)
}

/// Parses the query of an erasure: whether active keys are erased, too.
///
/// # Errors
/// Fails if it is anything but `force`.
pub(crate) fn force(pairs: &[(String, String)]) -> Result<bool, ApiError> {
    match pairs {
        [] => Ok(false),
        [(name, value)] if name == "force" => truth("force", value),
        _ => Err(ApiError::field("query", "must be force=true or empty")),
    }
}

fn truth(name: &'static str, value: &str) -> Result<bool, ApiError> {
    match value {
        "true" => Ok(true),
        "false" | "" => Ok(false),
        _ => Err(ApiError::field(name, "must be true or false")),
    }
}
