//! Keys to insert.

use super::requests::IdempotencyKey;
use crate::credential::imported_hash::KnownDigests;
use crate::key::Key;

/// Key to insert.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// The key.
    pub key: Key,
    /// Idempotency key of the request, if it has one.
    pub request: Option<IdempotencyKey>,
    /// Ids by digest, of an imported key.
    pub digests: KnownDigests,
}
