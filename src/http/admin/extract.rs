//! Extractors and checks that the admin plane's handlers share.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;

use crate::audit::Call;
use crate::credential::Presented;
use crate::error::{ApiError, Reason};
use crate::http::reply::no_such_resource;
use crate::secret::SecretString;

/// Extractor of the audited call.
pub(crate) type AuditedCall = Extension<Arc<Call>>;

/// Extractor of an id: the last segment of the path. Not found unless it is UTF-8.
pub(crate) struct PathId(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(id)| Self(id)).map_err(|_| no_such_resource())
    }
}

/// Extractor of the id of a custom method: the last segment of the path, without the method.
pub(crate) struct CustomMethodId(pub String);

impl<S: Send + Sync> FromRequestParts<S> for CustomMethodId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let PathId(segment) = PathId::from_request_parts(parts, state).await?;
        let (id, _) = segment.rsplit_once(':').ok_or_else(no_such_resource)?;
        Ok(Self(id.to_owned()))
    }
}

/// Extractor of the query's pairs.
pub(crate) struct QueryPairs(pub Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for QueryPairs {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let malformed = || ApiError::field("query", "must be UTF-8");
        // Otherwise replacement characters would be read.
        let is_utf8 = |query: &str| percent_decode_str(query).decode_utf8().is_ok();
        if !parts.uri.query().is_none_or(is_utf8) {
            return Err(malformed());
        }
        let Query(pairs) = Query::from_request_parts(parts, state).await.map_err(|_| malformed())?;
        Ok(Self(pairs))
    }
}

/// Checks that a batch has 1 to `most` items.
///
/// # Errors
/// Fails if it has fewer or more.
pub(crate) fn batch<T>(items: Option<Vec<T>>, most: usize) -> Result<Vec<T>, ApiError> {
    let items = items.unwrap_or_default();
    match (1..=most).contains(&items.len()) {
        true => Ok(items),
        false => Err(ApiError::field("requests", format!("must have 1 to {most} items"))),
    }
}

/// Checks the credential of a request.
///
/// # Errors
/// Fails if it is empty or too long.
pub(crate) fn presented(credential: &SecretString) -> Result<Presented<'_>, ApiError> {
    if credential.is_empty() {
        return Err(ApiError {
            field: Some("credential".into()),
            ..ApiError::new(Reason::CredentialRequired, "credential: is required")
        });
    }
    Presented::new(credential.expose())
        .ok_or_else(|| ApiError::field("credential", "must be 16384 bytes at most"))
}
