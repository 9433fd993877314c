//! Keys that are looked up, and the ids that are read for them.

use super::digests::HashAlgorithms;
use crate::credential::imported_hash::DigestIds;
use crate::key::{KeyId, NetworkId};

/// Key to look up.
#[derive(Clone, Copy)]
pub(super) struct RowLookup {
    pub network: NetworkId,
    pub id: KeyId,
    /// Ids that it may have instead, while only a hash of it is known.
    pub digests: Option<DigestIds>,
}

/// Returns the ids to read for these keys.
pub(super) fn ids(wanted: &[RowLookup], algorithms: HashAlgorithms) -> Vec<(NetworkId, KeyId)> {
    let of = |wanted: &RowLookup| {
        let network = wanted.network;
        let by_digest = wanted.digests.into_iter().flat_map(move |digests| algorithms.ids(digests));
        [wanted.id].into_iter().chain(by_digest).map(move |id| (network, id))
    };
    wanted.iter().flat_map(of).collect()
}
