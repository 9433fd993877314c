//! Parts that examples share: the same keys everywhere, and how an example is made.

use serde_json::Value;

/// Id of the issued key, and of the key that replaces it.
pub(super) const ISSUED_ID: &str = "11111111-1111-4111-8111-111111111111";
pub(super) const ROTATED_ID: &str = "22222222-2222-4222-8222-222222222222";
/// Id of the imported key.
pub(super) const IMPORTED_ID: &str = "1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a";
/// Id of a key of which only a hash is known.
pub(super) const IMPORTED_HASH_ID: &str = "1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c";
/// Secrets of the three.
pub(super) const SECRET: &str = "ory_ak_v1_EXAMPLE";
pub(super) const ROTATED_SECRET: &str = "ory_ak_v1_EXAMPLE_ROTATED";
pub(super) const RAW_KEY: &str = "EXAMPLE_LEGACY";
pub(super) const TOKEN: &str = "EXAMPLE_HEADER.EXAMPLE_CLAIMS.EXAMPLE_SIGNATURE";

/// An example of an operation.
pub(crate) struct Example {
    /// Body of the request.
    pub(crate) request: Option<Value>,
    /// Body of the successful response.
    pub(crate) response: Option<Value>,
}

/// Returns an example with both bodies.
pub(super) fn both(request: Value, response: Value) -> Example {
    Example { request: Some(request), response: Some(response) }
}

/// Returns an example without a request's body.
pub(super) fn answered(response: Value) -> Example {
    Example { request: None, response: Some(response) }
}

/// Returns an example without bodies.
pub(super) fn nothing() -> Example {
    Example { request: None, response: None }
}

/// Returns `value` with the members of `more`.
pub(super) fn with(mut value: Value, more: Value) -> Value {
    if let (Some(members), Value::Object(more)) = (value.as_object_mut(), more) {
        members.extend(more);
    }
    value
}
