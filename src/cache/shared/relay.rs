//! Questions and answers of the relay (`cache::freshness`) as they stand in Redis.
//!
//! A question stands under one of [`SLOTS`] names, at random: whoever writes there next pushes it out, and whoever asked
//! asks again. The answer stands under one name, for all who asked. Each is one value, written by one command that also
//! gives it its end, so that neither number nor life of them has to be looked after. All names have one hash tag, so
//! that a cluster keeps them on one node and can read them at once.

use serde::{Deserialize, Serialize};

use super::seal::{Kind, open, seal};
use crate::cache::freshness::{Answer, Question};
use crate::clock::Timestamp;
use crate::credential::secrets::HmacSecrets;
use crate::key::{KeyId, NetworkId};
use crate::store::Logged;

/// How many questions there can be at once.
pub(super) const SLOTS: u8 = 128;
/// Where the answer stands.
pub(super) const ANSWER: &str = "talos:v1:{relay}:answer";

/// Where a question stands.
pub(super) fn question_name(slot: u8) -> String {
    format!("talos:v1:{{relay}}:question:{}", slot % SLOTS)
}

#[derive(Serialize, Deserialize)]
struct StoredQuestion {
    nonce: String,
    n: u64,
    tag: String,
}

#[derive(Serialize, Deserialize)]
struct StoredAnswer {
    nonces: Vec<String>,
    newest: u64,
    /// The number of the first entry; those of the others follow.
    from: u64,
    log: Vec<StoredEntry>,
}

#[derive(Serialize, Deserialize)]
struct StoredEntry {
    tag: String,
    /// Network and key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    of: Option<(String, String)>,
}

/// A question, signed with the current secret.
pub(super) fn seal_question(secrets: &HmacSecrets, question: &Question) -> Vec<u8> {
    let stored = StoredQuestion { nonce: hex(question.nonce), n: question.n, tag: hex(question.tag) };
    seal(secrets, Kind::Question, "", serde_json::to_vec(&stored).unwrap_or_default())
}

/// Reads a question back; None when nobody that counts at `now` has signed it.
pub(super) fn open_question(secrets: &HmacSecrets, now: Timestamp, value: &[u8]) -> Option<Question> {
    let content = open(secrets, now, Kind::Question, "", value)?;
    let stored: StoredQuestion = serde_json::from_slice(content).ok()?;
    Some(Question { nonce: number(&stored.nonce)?, n: stored.n, tag: number(&stored.tag)? })
}

/// An answer, signed with the current secret.
pub(super) fn seal_answer(secrets: &HmacSecrets, answer: &Answer) -> Vec<u8> {
    let entry = |entry: &Logged| StoredEntry {
        tag: hex(entry.tag),
        of: entry.subject.map(|(network, key_id)| (network.to_string(), key_id.to_string())),
    };
    let stored = StoredAnswer {
        nonces: answer.nonces.iter().copied().map(hex).collect(),
        newest: answer.newest,
        from: answer.part.first().map_or(0, |first| first.n),
        log: answer.part.iter().map(entry).collect(),
    };
    seal(secrets, Kind::Answer, "", serde_json::to_vec(&stored).unwrap_or_default())
}

/// Reads an answer back; None when nobody that counts at `now` has signed it.
pub(super) fn open_answer(secrets: &HmacSecrets, now: Timestamp, value: &[u8]) -> Option<Answer> {
    let content = open(secrets, now, Kind::Answer, "", value)?;
    let stored: StoredAnswer = serde_json::from_slice(content).ok()?;
    let entry = |(n, entry): (u64, StoredEntry)| {
        let subject = match entry.of {
            // A subject that can't be read is a change that would be missed.
            Some((network, key_id)) => Some((NetworkId::parse(&network)?, KeyId::parse_any(&key_id)?)),
            None => None,
        };
        Some(Logged { n, tag: number(&entry.tag)?, subject })
    };
    Some(Answer {
        nonces: stored.nonces.iter().map(|nonce| number(nonce)).collect::<Option<_>>()?,
        newest: stored.newest,
        part: (stored.from..).zip(stored.log).map(entry).collect::<Option<_>>()?,
    })
}

/// JSON has no numbers of that size.
fn hex(number: u128) -> String {
    format!("{number:032x}")
}

fn number(hex: &str) -> Option<u128> {
    u128::from_str_radix(hex, 16).ok()
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

    fn answer(from: u64, keys: Vec<Option<u128>>) -> Answer {
        let entry = |(n, key): (u64, Option<u128>)| Logged {
            n,
            tag: u128::from(n) << 70,
            subject: key.map(|key| (NetworkId::new(Uuid::from_u128(key)), KeyId::Imported([n as u8; 32]))),
        };
        let part: Vec<Logged> = (from..).zip(keys).map(entry).collect();
        Answer { nonces: vec![1, u128::MAX], newest: from + 7, part }
    }

    proptest! {
        #[test]
        fn an_answer_comes_back_as_it_was(
            from in 0_u64..1 << 50,
            keys in prop::collection::vec(any::<Option<u128>>(), 1..20),
        ) {
            let (all, answer) = (secrets(b"one", &[]), answer(from, keys));
            let sealed = seal_answer(&all, &answer);
            prop_assert_eq!(open_answer(&all, NOW, &sealed), Some(answer));
        }

        #[test]
        fn a_changed_byte_is_noticed(at: prop::sample::Index, change in 1u8..) {
            let all = secrets(b"one", &[]);
            let mut sealed = seal_answer(&all, &answer(3, vec![None, Some(5)]));
            let at = at.index(sealed.len());
            sealed[at] ^= change;
            prop_assert!(open_answer(&all, NOW, &sealed).is_none());
        }
    }

    #[test]
    fn retired_secrets_vouch_foreign_ones_do_not_and_no_kind_passes_for_another() {
        let question = Question { nonce: u128::MAX, n: 9, tag: 1 };
        let sealed = seal_question(&secrets(b"one", &[]), &question);
        assert_eq!(open_question(&secrets(b"two", &[b"one"]), NOW, &sealed), Some(question));
        assert_eq!(open_question(&secrets(b"two", &[]), NOW, &sealed), None);
        assert_eq!(open_answer(&secrets(b"one", &[]), NOW, &sealed), None);
        let sealed = seal_answer(&secrets(b"one", &[]), &answer(1, vec![None]));
        assert_eq!(open_question(&secrets(b"one", &[]), NOW, &sealed), None);
        assert!(open_answer(&secrets(b"two", &[b"one"]), NOW, &sealed).is_some());
    }

    #[test]
    fn the_largest_answer_is_looked_at() {
        let part = crate::cache::freshness::MAX_PART;
        let mut largest = answer(1 << 60, vec![Some(u128::MAX); part]);
        largest.nonces = vec![u128::MAX; usize::from(SLOTS)];
        let all = secrets(b"one", &[]);
        assert!(open_answer(&all, NOW, &seal_answer(&all, &largest)).is_some());
    }
}
