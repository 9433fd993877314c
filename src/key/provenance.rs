//! Callers that made and changed a key, and the keys before and after it.

use std::sync::Arc;

use super::KeyId;

/// Origin of a key and of its last changes, as far as they are known: keys of earlier releases, and
/// changes of callers that didn't authenticate, have nothing here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provenance {
    /// Verified caller who issued or imported the key.
    pub created_by: Option<Arc<str>>,
    /// Verified caller who changed it last.
    pub updated_by: Option<Arc<str>>,
    /// Verified caller who revoked it.
    pub revoked_by: Option<Arc<str>>,
    /// Key that it replaces.
    pub replaces: Option<KeyId>,
    /// Key that replaces it.
    pub replaced_by: Option<KeyId>,
}

impl Provenance {
    /// Returns the length of the names, in bytes.
    pub fn names_len(&self) -> usize {
        let names = [&self.created_by, &self.updated_by, &self.revoked_by];
        names.into_iter().flatten().map(|name| name.len()).sum()
    }
}
