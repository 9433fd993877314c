//! What stands in Redis: entries and announcements, each with a MAC over what it says and what it says it of.

use hmac::Mac;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::credential::secrets::{HmacSecret, HmacSecrets};
use crate::key::record::Record;
use crate::key::{Key, KeyId, NetworkId};
use crate::store::Mutation;

/// The first bytes of what is signed, so that no kind can pass for another.
const ENTRY: &[u8] = b"entry";
const ANNOUNCEMENT: &[u8] = b"announcement";

const MAC_LEN: usize = 32;
/// Largest value that is looked at, in bytes: a row with every field at its bound is far smaller.
const MAX_LEN: usize = 256 * 1024;

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
    seal(secrets, ENTRY, &subject, serde_json::to_vec(&stored).unwrap_or_default())
}

/// Reads an entry back; None when it is damaged, of another key, or signed by nobody that counts at `now`.
pub(super) fn open_entry(
    secrets: &HmacSecrets,
    now: Timestamp,
    network: NetworkId,
    key_id: KeyId,
    value: &[u8],
) -> Option<SharedEntry> {
    let content = open(secrets, now, ENTRY, &entry_name(network, key_id), value)?;
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
    seal(secrets, ANNOUNCEMENT, "", content)
}

/// Whether an announcement is signed by somebody that counts at `now`.
pub(super) fn is_announcement(secrets: &HmacSecrets, now: Timestamp, value: &[u8]) -> bool {
    open(secrets, now, ANNOUNCEMENT, "", value).is_some()
}

fn seal(secrets: &HmacSecrets, kind: &[u8], subject: &str, mut content: Vec<u8>) -> Vec<u8> {
    let mac = mac(secrets.current(), kind, subject, &content);
    content.extend_from_slice(&mac.finalize().into_bytes());
    content
}

fn open<'a>(
    secrets: &HmacSecrets,
    now: Timestamp,
    kind: &[u8],
    subject: &str,
    value: &'a [u8],
) -> Option<&'a [u8]> {
    let at = value.len().checked_sub(MAC_LEN).filter(|_| value.len() <= MAX_LEN)?;
    let (content, signature) = value.split_at(at);
    // The library compares in constant time.
    let is_ours = |secret: &HmacSecret| mac(secret, kind, subject, content).verify_slice(signature).is_ok();
    secrets.verifying(now).any(is_ours).then_some(content)
}

fn mac(
    secret: &HmacSecret,
    kind: &[u8],
    subject: &str,
    content: &[u8],
) -> crate::credential::secrets::HmacSha256 {
    // Kind and subject hold no NUL: where one part ends is never in doubt.
    secret
        .cache_mac()
        .chain_update(kind)
        .chain_update([0])
        .chain_update(subject)
        .chain_update([0])
        .chain_update(content)
}

#[cfg(test)]
mod tests {
    use super::*;
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
