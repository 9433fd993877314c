//! The answer to a Check.

use std::sync::Arc;

use bytes::Bytes;

use super::response::{Extras, kept_len, write_kept};
use crate::cache::memory::CachedResponse;
use crate::clock::Timestamp;

/// Encoded answer to a Check. One that is kept in the cache isn't copied before it is written to
/// its connection.
#[derive(Clone)]
pub enum CheckAnswer {
    /// All of it.
    Encoded(Bytes),
    /// A kept response, to which the request adds nothing.
    Kept {
        /// The response.
        response: Arc<CachedResponse>,
        /// End of the time in which it counts.
        fresh_until: Timestamp,
    },
}

impl CheckAnswer {
    /// Makes the answer of a kept response, with what the request adds.
    pub(super) fn of_kept(response: Arc<CachedResponse>, fresh_until: Timestamp, extras: &Extras) -> Self {
        if extras.is_empty() {
            return Self::Kept { response, fresh_until };
        }
        let kept = response.encoded();
        // With the exact capacity, conversion to `Bytes` doesn't copy.
        let mut out = Vec::with_capacity(kept_len(kept, Some(extras)));
        write_kept(kept, fresh_until, Some(extras), &mut out);
        Self::Encoded(out.into())
    }

    /// Returns its length, in bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Encoded(bytes) => bytes.len(),
            Self::Kept { response, .. } => kept_len(response.encoded(), None),
        }
    }

    /// Appends its bytes.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Encoded(bytes) => out.extend_from_slice(bytes),
            Self::Kept { response, fresh_until } => write_kept(response.encoded(), *fresh_until, None, out),
        }
    }

    /// Returns its bytes.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Encoded(bytes) => bytes,
            kept @ Self::Kept { .. } => {
                let mut out = Vec::with_capacity(kept.len());
                kept.write(&mut out);
                out.into()
            }
        }
    }
}

impl From<Bytes> for CheckAnswer {
    fn from(bytes: Bytes) -> Self {
        Self::Encoded(bytes)
    }
}
