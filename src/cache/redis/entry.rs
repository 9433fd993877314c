//! Key rows as they are stored in Redis, and announcements of changes.

use serde::{Deserialize, Serialize};

use super::seal::{Kind, open, seal};
use crate::clock::Timestamp;
use crate::credential::secrets::HmacSecrets;
use crate::key::record::Record;
use crate::key::{Key, KeyId, NetworkId};

/// Key row, and the log entry up to which it is known to be current.
#[derive(Debug, Clone)]
pub struct RedisEntry {
    /// The key.
    pub key: Key,
    /// Number of the newest log entry when the row was read.
    pub counter: u64,
    /// Random tag of that log entry.
    pub tag: u128,
    /// Time at which the row was read.
    pub filled: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct StoredEntry {
    n: u64,
    tag: String,
    filled: i64,
    key: Record,
    /// True if the writer read the suspensions of key and actor. Earlier releases didn't, so their
    /// entries tell nothing about them.
    #[serde(default)]
    suspensions: bool,
}

#[derive(Serialize, Deserialize)]
struct Announcement {
    n: u64,
}

/// Returns the name of a key's entry.
pub(super) fn entry_name(network: NetworkId, key_id: KeyId) -> String {
    format!("talos:v1:key:{network}:{key_id}")
}

/// Encodes an entry, signed with the current secret.
pub(super) fn seal_entry(secrets: &HmacSecrets, entry: &RedisEntry) -> Vec<u8> {
    let stored = StoredEntry {
        n: entry.counter,
        tag: encode_u128(entry.tag),
        filled: entry.filled.as_micros(),
        key: Record::from(&entry.key),
        suspensions: true,
    };
    let subject = entry_name(entry.key.network, entry.key.id);
    seal(secrets, Kind::Entry, &subject, serde_json::to_vec(&stored).unwrap_or_default())
}

/// Decodes an entry. Returns `None` if it is damaged, belongs to another key, or isn't signed with
/// a secret that is valid at `now`.
pub(super) fn open_entry(
    secrets: &HmacSecrets,
    now: Timestamp,
    network: NetworkId,
    key_id: KeyId,
    value: &[u8],
) -> Option<RedisEntry> {
    let content = open(secrets, now, Kind::Entry, &entry_name(network, key_id), value)?;
    let stored: StoredEntry = serde_json::from_slice(content).ok()?;
    if !stored.suspensions {
        return None;
    }
    let key = Key::try_from(stored.key).ok()?;
    let is_requested = key.network == network && key.id == key_id;
    let (tag, filled) = (decode_u128(&stored.tag)?, Timestamp::from_micros(stored.filled));
    is_requested.then_some(RedisEntry { key, counter: stored.n, tag, filled })
}

/// Encodes the announcement of a change, signed with the current secret.
pub(super) fn seal_announcement(secrets: &HmacSecrets, n: u64) -> Vec<u8> {
    let content = serde_json::to_vec(&Announcement { n }).unwrap_or_default();
    seal(secrets, Kind::Announcement, "", content)
}

/// Returns the number of an announced change. Returns `None` if the announcement isn't signed with
/// a secret that is valid at `now`.
pub(super) fn open_announcement(secrets: &HmacSecrets, now: Timestamp, value: &[u8]) -> Option<u64> {
    let content = open(secrets, now, Kind::Announcement, "", value)?;
    serde_json::from_slice(content).ok().map(|Announcement { n }| n)
}

/// Encodes a number in hex, as JSON has no numbers of that size.
pub(super) fn encode_u128(number: u128) -> String {
    hex::encode(number.to_be_bytes())
}

/// Decodes a number from 32 hex digits.
pub(super) fn decode_u128(digits: &str) -> Option<u128> {
    let mut bytes = [0; 16];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(u128::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::secrets::HmacSecret;
    use crate::key::{ActorId, AddressList, KeyName, Provenance, Scopes, Signer, Suspensions, Visibility};
    use proptest::prelude::{prop, prop_assert, proptest};
    use uuid::Uuid;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn secrets(current: &[u8], retired: &[(&[u8], Option<Timestamp>)]) -> HmacSecrets {
        let retired = retired.iter().map(|(secret, expires)| HmacSecret::new(secret, *expires)).collect();
        HmacSecrets::new(HmacSecret::new(current, None), retired)
    }

    fn entry() -> RedisEntry {
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
            rate_policies: crate::key::RatePolicies::default(),
            actor_limits: crate::key::RatePolicies::default(),
            credits: None,
            created: NOW,
            updated: NOW,
            expires: None,
            superseded: None,
            unused_grace: None,
            revocation: None,
            suspensions: Suspensions::default(),
            provenance: Provenance::default().into(),
            last_used: None,
            mutation: 3,
            signer: Signer::default(),
        };
        RedisEntry { key, counter: 9, tag: 5, filled: NOW }
    }

    fn opens(secrets: &HmacSecrets, value: &[u8]) -> bool {
        open_entry(secrets, NOW, NetworkId::SINGLE, entry().key.id, value).is_some()
    }

    #[test]
    fn an_entry_opens_with_current_and_retired_secrets() {
        let sealed = seal_entry(&secrets(b"one", &[]), &entry());
        let opened =
            open_entry(&secrets(b"one", &[]), NOW, NetworkId::SINGLE, entry().key.id, &sealed).unwrap();
        assert_eq!(Record::from(&opened.key), Record::from(&entry().key));
        assert_eq!((opened.counter, opened.tag, opened.filled), (9, 5, NOW));
        assert!(opens(&secrets(b"two", &[(b"one", None)]), &sealed));
        assert!(!opens(&secrets(b"two", &[(b"one", Some(NOW))]), &sealed), "the secret has expired");
        assert!(!opens(&secrets(b"two", &[]), &sealed));
    }

    #[test]
    fn an_entry_opens_only_for_its_key_and_network_and_never_as_an_announcement() {
        let all = secrets(b"one", &[]);
        let sealed = seal_entry(&all, &entry());
        let other = KeyId::Issued(Uuid::from_u128(8));
        assert!(open_entry(&all, NOW, NetworkId::SINGLE, other, &sealed).is_none());
        let network = NetworkId::new(Uuid::from_u128(1));
        assert!(open_entry(&all, NOW, network, entry().key.id, &sealed).is_none());
        assert!(!opens(&all, &seal_announcement(&all, 1)));
    }

    #[test]
    fn an_entry_whose_writer_knew_no_suspensions_is_none() {
        let all = secrets(b"one", &[]);
        let stored = serde_json::json!({
            "n": 9, "tag": encode_u128(5), "filled": 7, "key": Record::from(&entry().key),
        });
        let subject = entry_name(NetworkId::SINGLE, entry().key.id);
        let seal_stored = |stored: &serde_json::Value| {
            seal(&all, Kind::Entry, &subject, serde_json::to_vec(stored).unwrap())
        };
        assert!(!opens(&all, &seal_stored(&stored)));
        let mut current = stored;
        current["suspensions"] = true.into();
        assert!(opens(&all, &seal_stored(&current)));
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
