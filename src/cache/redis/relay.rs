//! Requests and responses of the relay (`cache::freshness`) as they are stored in Redis.
//!
//! A request is stored in one of [`SLOTS`] slots, chosen at random. A later request in the same
//! slot replaces it, and its sender asks again. The response is stored under one name, for all
//! senders. Each value is written by one command that also sets its expiry, so neither the number
//! nor the lifetime of values needs care. All names have one hash tag: a cluster keeps them on one
//! node, and one command reads them all.

use serde::{Deserialize, Serialize};

use super::entry::{decode_u128, encode_u128};
use super::seal::{Kind, open, seal};
use crate::cache::freshness::{RelayRequest, RelayResponse};
use crate::clock::Timestamp;
use crate::credential::secrets::HmacSecrets;
use crate::key::{ActorId, KeyId, NetworkId};
use crate::store::{LogEntry, LogSubject};

/// Requests that can be stored at once.
pub(super) const SLOTS: u8 = 128;
/// Name of the response.
pub(super) const RESPONSE_NAME: &str = "talos:v1:{relay}:answer";

/// Returns the name of a slot; any number is accepted.
pub(super) fn request_name(slot: u8) -> String {
    format!("talos:v1:{{relay}}:question:{}", slot % SLOTS)
}

#[derive(Serialize, Deserialize)]
struct StoredRequest {
    nonce: String,
    n: u64,
    tag: String,
}

#[derive(Serialize, Deserialize)]
struct StoredResponse {
    nonces: Vec<String>,
    newest: u64,
    /// Number of the first entry; those of the others follow without a gap.
    from: u64,
    log: Vec<StoredLogEntry>,
}

#[derive(Serialize, Deserialize)]
struct StoredLogEntry {
    tag: String,
    /// Network and key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    of: Option<(String, String)>,
    /// Network and actor.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    actor: Option<(String, String)>,
}

/// Encodes a request, signed with the current secret.
pub(super) fn seal_request(secrets: &HmacSecrets, request: &RelayRequest) -> Vec<u8> {
    let stored =
        StoredRequest { nonce: encode_u128(request.nonce), n: request.n, tag: encode_u128(request.tag) };
    seal(secrets, Kind::RelayRequest, "", serde_json::to_vec(&stored).unwrap_or_default())
}

/// Decodes a request. Returns `None` if it isn't signed with a secret that is valid at `now`.
pub(super) fn open_request(secrets: &HmacSecrets, now: Timestamp, value: &[u8]) -> Option<RelayRequest> {
    let content = open(secrets, now, Kind::RelayRequest, "", value)?;
    let stored: StoredRequest = serde_json::from_slice(content).ok()?;
    Some(RelayRequest { nonce: decode_u128(&stored.nonce)?, n: stored.n, tag: decode_u128(&stored.tag)? })
}

/// Encodes a response, signed with the current secret.
pub(super) fn seal_response(secrets: &HmacSecrets, response: &RelayResponse) -> Vec<u8> {
    let entry = |entry: &LogEntry| {
        let (of, actor) = match &entry.subject {
            Some(LogSubject::Key(network, key_id)) => (Some((network.to_string(), key_id.to_string())), None),
            Some(LogSubject::Actor(network, actor)) => {
                (None, Some((network.to_string(), actor.as_str().to_owned())))
            }
            None => (None, None),
        };
        StoredLogEntry { tag: encode_u128(entry.tag), of, actor }
    };
    let stored = StoredResponse {
        nonces: response.nonces.iter().copied().map(encode_u128).collect(),
        newest: response.newest,
        from: response.entries.first().map_or(0, |first| first.n),
        log: response.entries.iter().map(entry).collect(),
    };
    seal(secrets, Kind::RelayResponse, "", serde_json::to_vec(&stored).unwrap_or_default())
}

/// Decodes a response. Returns `None` if it isn't signed with a secret that is valid at `now`.
pub(super) fn open_response(secrets: &HmacSecrets, now: Timestamp, value: &[u8]) -> Option<RelayResponse> {
    let content = open(secrets, now, Kind::RelayResponse, "", value)?;
    let stored: StoredResponse = serde_json::from_slice(content).ok()?;
    let entry = |(n, entry): (u64, StoredLogEntry)| {
        // The whole response fails if a subject can't be read: an entry without its subject would
        // be a missed change.
        let subject = match (entry.of, entry.actor) {
            (Some((network, key_id)), _) => {
                Some(LogSubject::Key(NetworkId::parse(&network)?, KeyId::parse_any(&key_id)?))
            }
            (None, Some((network, actor))) => {
                Some(LogSubject::Actor(NetworkId::parse(&network)?, ActorId::from_stored(&actor).ok()?))
            }
            (None, None) => None,
        };
        Some(LogEntry { n, tag: decode_u128(&entry.tag)?, subject })
    };
    Some(RelayResponse {
        nonces: stored.nonces.iter().map(|nonce| decode_u128(nonce)).collect::<Option<_>>()?,
        newest: stored.newest,
        entries: (stored.from..).zip(stored.log).map(entry).collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::secrets::HmacSecret;
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};
    use uuid::Uuid;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn secrets(current: &[u8], retired: &[&[u8]]) -> HmacSecrets {
        let retired = retired.iter().map(|secret| HmacSecret::new(secret, None)).collect();
        HmacSecrets::new(HmacSecret::new(current, None), retired)
    }

    fn response(from: u64, keys: Vec<Option<u128>>) -> RelayResponse {
        let entry = |(n, key): (u64, Option<u128>)| LogEntry {
            n,
            tag: u128::from(n) << 70,
            subject: key.map(|key| {
                let network = NetworkId::new(Uuid::from_u128(key));
                match key % 3 {
                    0 => LogSubject::Actor(network, ActorId::parse(&format!("user:{key}")).unwrap()),
                    _ => LogSubject::Key(network, KeyId::Imported([n as u8; 32])),
                }
            }),
        };
        let entries: Vec<LogEntry> = (from..).zip(keys).map(entry).collect();
        RelayResponse { nonces: vec![1, u128::MAX], newest: from + 7, entries }
    }

    proptest! {
        #[test]
        fn a_response_round_trips(
            from in 0_u64..1 << 50,
            keys in prop::collection::vec(any::<Option<u128>>(), 1..20),
        ) {
            let (all, response) = (secrets(b"one", &[]), response(from, keys));
            let sealed = seal_response(&all, &response);
            prop_assert_eq!(open_response(&all, NOW, &sealed), Some(response));
        }

        #[test]
        fn a_changed_byte_is_noticed(at: prop::sample::Index, change in 1u8..) {
            let all = secrets(b"one", &[]);
            let mut sealed = seal_response(&all, &response(3, vec![None, Some(5)]));
            let at = at.index(sealed.len());
            sealed[at] ^= change;
            prop_assert!(open_response(&all, NOW, &sealed).is_none());
        }
    }

    #[test]
    fn retired_secrets_verify_unknown_ones_do_not_and_no_kind_passes_for_another() {
        let request = RelayRequest { nonce: u128::MAX, n: 9, tag: 1 };
        let sealed = seal_request(&secrets(b"one", &[]), &request);
        assert_eq!(open_request(&secrets(b"two", &[b"one"]), NOW, &sealed), Some(request));
        assert_eq!(open_request(&secrets(b"two", &[]), NOW, &sealed), None);
        assert_eq!(open_response(&secrets(b"one", &[]), NOW, &sealed), None);
        let sealed = seal_response(&secrets(b"one", &[]), &response(1, vec![None]));
        assert_eq!(open_request(&secrets(b"one", &[]), NOW, &sealed), None);
        assert!(open_response(&secrets(b"two", &[b"one"]), NOW, &sealed).is_some());
    }

    #[test]
    fn the_largest_response_is_accepted() {
        let entries = crate::cache::freshness::MAX_RELAY_ENTRIES;
        let mut largest = response(1 << 60, vec![Some(u128::MAX); entries]);
        largest.nonces = vec![u128::MAX; usize::from(SLOTS)];
        let all = secrets(b"one", &[]);
        assert!(open_response(&all, NOW, &seal_response(&all, &largest)).is_some());
    }
}
