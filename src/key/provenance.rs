//! Callers that made and changed a key, and the keys before and after it.

use std::ops::Deref;
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
    const NONE: &Self =
        &Self { created_by: None, updated_by: None, revoked_by: None, replaces: None, replaced_by: None };
}

/// Provenance in the space of one pointer, as most keys have little of it or none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyProvenance(Option<Arc<Provenance>>);

impl KeyProvenance {
    /// Returns the bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let Some(provenance) = &self.0 else { return 0 };
        let names = [&provenance.created_by, &provenance.updated_by, &provenance.revoked_by];
        let names: usize =
            names.into_iter().flatten().map(|name| (16 + name.len()).next_multiple_of(8)).sum();
        16 + size_of::<Provenance>() + names
    }
}

impl Deref for KeyProvenance {
    type Target = Provenance;

    fn deref(&self) -> &Provenance {
        self.0.as_deref().unwrap_or(Provenance::NONE)
    }
}

impl From<Provenance> for KeyProvenance {
    fn from(provenance: Provenance) -> Self {
        Self((provenance != Provenance::default()).then(|| Arc::new(provenance)))
    }
}
