//! Rows as they stand in Redis, and the word that one has changed.

use serde::{Deserialize, Serialize};

use super::seal::{Kind, open, seal};
use crate::clock::Timestamp;
use crate::credential::secrets::HmacSecrets;
use crate::key::record::Record;
use crate::key::{Key, KeyId, NetworkId};
use crate::store::Mutation;

/// A row, and up to which change of which history it is known to be true.
#[derive(Debug, Clone)]
pub struct SharedEntry {
    /// The key.
    pub key: Key,
    /// The number of the log's newest change that it takes into account.
    pub counter: u64,
    /// The random tag of that change.
    pub tag: u128,
    /// When the row was read.
    pub filled: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    n: u64,
    /// In hex: JSON has no numbers of that size.
    tag: String,
    filled: i64,
    key: Record,
}

#[derive(Serialize, Deserialize)]
struct Announcement {
    n: u64,
}

/// The name under which a key's entry is found.
pub(super) fn entry_name(network: NetworkId, key_id: KeyId) -> String {
    format!("talos:v1:key:{network}:{key_id}")
}

/// An entry, signed with the current secret.
pub(super) fn seal_entry(secrets: &HmacSecrets, entry: &SharedEntry) -> Vec<u8> {
    let stored = Stored {
        n: entry.counter,
        tag: format!("{:032x}", entry.tag),
        filled: entry.filled.as_micros(),
        key: Record::from(&entry.key),
    };
    let subject = entry_name(entry.key.network, entry.key.id);
    seal(secrets, Kind::Entry, &subject, serde_json::to_vec(&stored).unwrap_or_default())
}

/// Reads an entry back; None when it is damaged, of another key, or signed by nobody that counts at `now`.
pub(super) fn open_entry(
    secrets: &HmacSecrets,
    now: Timestamp,
    network: NetworkId,
    key_id: KeyId,
    value: &[u8],
) -> Option<SharedEntry> {
    let content = open(secrets, now, Kind::Entry, &entry_name(network, key_id), value)?;
    let stored: Stored = serde_json::from_slice(content).ok()?;
    let key = Key::try_from(stored.key).ok()?;
    let is_it = key.network == network && key.id == key_id;
    let tag = u128::from_str_radix(&stored.tag, 16).ok()?;
    is_it.then_some(SharedEntry {
        key,
        counter: stored.n,
        tag,
        filled: Timestamp::from_micros(stored.filled),
    })
}

/// The word that there is a change, signed.
pub(super) fn seal_announcement(secrets: &HmacSecrets, mutation: &Mutation) -> Vec<u8> {
    let content = serde_json::to_vec(&Announcement { n: mutation.n }).unwrap_or_default();
    seal(secrets, Kind::Announcement, "", content)
}

/// The number of an announced change; None unless it is signed by somebody that counts at `now`.
pub(super) fn open_announcement(secrets: &HmacSecrets, now: Timestamp, value: &[u8]) -> Option<u64> {
    let content = open(secrets, now, Kind::Announcement, "", value)?;
    serde_json::from_slice(content).ok().map(|Announcement { n }| n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::secrets::HmacSecret;
    use crate::key::{ActorId, AddressList, KeyName, Scopes, Visibility};
    use proptest::prelude::{prop, prop_assert, proptest};
    use uuid::Uuid;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn secrets(current: &[u8], retired: &[(&[u8], Option<Timestamp>)]) -> HmacSecrets {
        let retired = retired.iter().map(|(secret, expires)| HmacSecret::new(secret, *expires)).collect();
        HmacSecrets::new(HmacSecret::new(current, None), retired)
    }

    fn entry() -> SharedEntry {
        let key = Key {
            network: NetworkId::SINGLE,
            id: KeyId::Issued(Uuid::from_u128(7)),
            name: KeyName::parse("n").unwrap(),
            actor: ActorId::parse("a").unwrap(),
            scopes: Scopes::parse(&["read"]).unwrap(),
            metadata: None,
            visibility: Visibility::Secret,
            addresses: AddressList::default(),
            rate_policy: None,
            created: NOW,
            updated: NOW,
            expires: None,
            superseded: None,
            revocation: None,
            last_used: None,
            mutation: 3,
        };
        SharedEntry { key, counter: 9, tag: 5, filled: NOW }
    }

    fn opens(secrets: &HmacSecrets, value: &[u8]) -> bool {
        open_entry(secrets, NOW, NetworkId::SINGLE, entry().key.id, value).is_some()
    }

    #[test]
    fn what_was_sealed_opens_under_current_and_retired_secrets() {
        let sealed = seal_entry(&secrets(b"one", &[]), &entry());
        let opened =
            open_entry(&secrets(b"one", &[]), NOW, NetworkId::SINGLE, entry().key.id, &sealed).unwrap();
        assert_eq!(Record::from(&opened.key), Record::from(&entry().key));
        assert_eq!((opened.counter, opened.tag, opened.filled), (9, 5, NOW));
        assert!(opens(&secrets(b"two", &[(b"one", None)]), &sealed));
        assert!(!opens(&secrets(b"two", &[(b"one", Some(NOW))]), &sealed), "its time is over");
        assert!(!opens(&secrets(b"two", &[]), &sealed));
    }

    #[test]
    fn an_entry_is_of_one_key_in_one_network_and_no_announcement() {
        let all = secrets(b"one", &[]);
        let sealed = seal_entry(&all, &entry());
        let other = KeyId::Issued(Uuid::from_u128(8));
        assert!(open_entry(&all, NOW, NetworkId::SINGLE, other, &sealed).is_none());
        let network = NetworkId::new(Uuid::from_u128(1));
        assert!(open_entry(&all, NOW, network, entry().key.id, &sealed).is_none());
        let mutation = Mutation { n: 1, network: NetworkId::SINGLE, key_id: entry().key.id };
        assert!(!opens(&all, &seal_announcement(&all, &mutation)));
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_noticed(at: prop::sample::Index, change in 1u8..) {
            let all = secrets(b"one", &[]);
            let mut sealed = seal_entry(&all, &entry());
            let at = at.index(sealed.len());
            sealed[at] ^= change;
            prop_assert!(!opens(&all, &sealed));
            prop_assert!(!opens(&all, &sealed[..at]));
        }
    }
}
