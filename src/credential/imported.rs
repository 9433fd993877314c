//! Imported keys: only a hash of them is known here.

use sha2::{Digest, Sha512_256};

use crate::key::{KeyId, NetworkId};

/// SHA-512/256 over `<network id text> 0x00 <raw key>`.
pub fn key_id(network: NetworkId, raw_key: &str) -> KeyId {
    let hash = Sha512_256::new()
        .chain_update(network.to_string())
        .chain_update([0])
        .chain_update(raw_key)
        .finalize();
    KeyId::Imported(hash.into())
}
