//! Hasher of keys that are hashes already. The module in Envoy compiles this file, too.

use std::hash::Hasher;

/// Hasher that takes the first eight bytes of what is a hash already.
#[derive(Default)]
pub(super) struct PrefixHasher(u64);

impl Hasher for PrefixHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
