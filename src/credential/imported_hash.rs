//! Hashes of keys that were made elsewhere. Until such a key is first shown, its digest is all that
//! is known of it, and its row has an id made of that digest.

use base64::Engine;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256, Sha512, Sha512_256};

use crate::key::{KeyId, NetworkId};

/// Maximum length of a hash as text, in bytes: a SHA-512 digest in hex with a prefix.
pub const MAX_HASH_TEXT: usize = 192;

/// Prefixes and names of hashes that are made to be slow.
const SLOW: [&str; 13] = [
    "$2", "$argon2", "$scrypt", "$s0$", "$7$", "$pbkdf2", "$5$", "$6$", "$y$", "bcrypt", "argon2", "scrypt",
    "pbkdf2",
];

const SLOW_PROBLEM: &str = "is a slow, salted hash (bcrypt, scrypt, argon2, PBKDF2 or crypt), which can't be looked up: \
    each wrong key would have to be hashed with the salt of every row. Import the raw key, or issue a new one";

const SALTED_PROBLEM: &str = "is a salted hash (SSHA), which can't be looked up: each wrong key would have to be hashed \
    with the salt of every row. Import the raw key, or issue a new one";

/// Algorithm of an imported hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// SHA-256 over the raw key.
    Sha256,
    /// SHA-512 over the raw key.
    Sha512,
}

impl HashAlgorithm {
    /// Parses `sha256`, `SHA-512` and the like.
    fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().replace(['-', '_'], "").as_str() {
            "sha256" => Some(Self::Sha256),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }

    /// Returns the name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Length of a digest, in bytes.
    const fn len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// Returns the id of a key of which this digest is known: SHA-512/256 over
    /// `<network id text> 0x01 <algorithm> 0x00 <digest>`. The byte after the network keeps it
    /// apart from the ids of imported keys.
    fn key_id(self, network: NetworkId, digest: &[u8]) -> KeyId {
        let hash = Sha512_256::new()
            .chain_update(network.to_string())
            .chain_update([1])
            .chain_update(self.name())
            .chain_update([0])
            .chain_update(digest)
            .finalize();
        KeyId::Imported(hash.into())
    }
}

/// Ids under which a raw key may be stored of which only a hash was imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestIds {
    /// Id by its SHA-256 digest.
    pub sha256: KeyId,
    /// Id by its SHA-512 digest.
    pub sha512: KeyId,
}

impl DigestIds {
    /// Returns the ids for a raw key.
    pub fn of(network: NetworkId, raw_key: &str) -> Self {
        Self {
            sha256: HashAlgorithm::Sha256.key_id(network, &Sha256::digest(raw_key)),
            sha512: HashAlgorithm::Sha512.key_id(network, &Sha512::digest(raw_key)),
        }
    }

    /// Returns both ids.
    pub const fn all(self) -> [KeyId; 2] {
        [self.sha256, self.sha512]
    }
}

/// Ids by digest that are known of a key: both of one whose raw key was seen, one of an imported
/// hash, none of an issued key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KnownDigests {
    /// Id by the SHA-256 digest.
    pub sha256: Option<KeyId>,
    /// Id by the SHA-512 digest.
    pub sha512: Option<KeyId>,
}

impl From<DigestIds> for KnownDigests {
    fn from(ids: DigestIds) -> Self {
        Self { sha256: Some(ids.sha256), sha512: Some(ids.sha512) }
    }
}

/// Hash of a raw key, to be imported.
#[derive(Clone, PartialEq, Eq)]
pub struct ImportedHash {
    algorithm: HashAlgorithm,
    digest: Vec<u8>,
}

impl std::fmt::Debug for ImportedHash {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "ImportedHash({}, …)", self.algorithm.name())
    }
}

/// Problem of a hash: the field that has it, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct HashError {
    /// Name of the field: `algorithm`, `encoding` or `value`.
    pub field: &'static str,
    /// The problem.
    pub problem: &'static str,
}

const fn error(field: &'static str, problem: &'static str) -> HashError {
    HashError { field, problem }
}

impl ImportedHash {
    /// Parses a hash. The algorithm may stand before the value instead, as in `sha256:…`,
    /// `sha512-…` and `{SHA256}…`; without an encoding, the length of the value says which it is.
    ///
    /// # Errors
    /// Fails if the algorithm isn't SHA-256 or SHA-512, contradicts the prefix, or the value isn't
    /// one digest of it. The message never has the value.
    pub fn parse(algorithm: Option<&str>, encoding: Option<&str>, value: &str) -> Result<Self, HashError> {
        if algorithm.is_some_and(is_slow) {
            return Err(error("algorithm", SLOW_PROBLEM));
        }
        let value = value.trim();
        if is_slow(value) {
            return Err(error("value", SLOW_PROBLEM));
        }
        if value.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("{ssha")) {
            return Err(error("value", SALTED_PROBLEM));
        }
        if value.len() > MAX_HASH_TEXT {
            return Err(error("value", "is longer than any SHA-256 or SHA-512 digest"));
        }
        let (prefix, value) = match split_prefix(value) {
            Some((prefix, rest)) => (Some(prefix), rest),
            None => (None, value),
        };
        let named = match algorithm {
            None => None,
            Some(name) => Some(HashAlgorithm::parse(name).ok_or(error(
                "algorithm",
                "must be sha256 or sha512: other hashes are too weak, or can't be looked up",
            ))?),
        };
        let algorithm = match (named, prefix) {
            (Some(named), Some(prefix)) if named != prefix => {
                return Err(error("value", "has the prefix of another algorithm than hash.algorithm says"));
            }
            (named, prefix) => named.or(prefix).ok_or(error("algorithm", "is missing: sha256 or sha512"))?,
        };
        let digest = decode(algorithm, encoding, value)?;
        Ok(Self { algorithm, digest })
    }

    /// Returns the id of the key until it is first shown.
    pub fn key_id(&self, network: NetworkId) -> KeyId {
        self.algorithm.key_id(network, &self.digest)
    }

    /// Returns the algorithm.
    pub const fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// Returns the id by digest that is known.
    pub fn known(&self, network: NetworkId) -> KnownDigests {
        let id = Some(self.key_id(network));
        match self.algorithm {
            HashAlgorithm::Sha256 => KnownDigests { sha256: id, sha512: None },
            HashAlgorithm::Sha512 => KnownDigests { sha256: None, sha512: id },
        }
    }
}

/// Returns true for the name or the text of a hash that is made to be slow.
fn is_slow(text: &str) -> bool {
    let text = text.trim_start_matches('{').as_bytes();
    SLOW.iter()
        .any(|slow| text.get(..slow.len()).is_some_and(|start| start.eq_ignore_ascii_case(slow.as_bytes())))
}

/// Splits the algorithm from a value that begins with it.
fn split_prefix(value: &str) -> Option<(HashAlgorithm, &str)> {
    if let Some((name, rest)) = value.strip_prefix('{').and_then(|value| value.split_once('}')) {
        return Some((HashAlgorithm::parse(name)?, rest));
    }
    let separator = |at: &usize| value.get(*at..).is_some_and(|rest| rest.starts_with([':', '-', '=', '$']));
    // `sha256` and `sha-256`.
    [6, 7].into_iter().filter(separator).find_map(|at| {
        let name = value.get(..at)?;
        Some((HashAlgorithm::parse(name)?, value.get(at + 1..)?))
    })
}

fn decode(algorithm: HashAlgorithm, encoding: Option<&str>, value: &str) -> Result<Vec<u8>, HashError> {
    let is_hex = match encoding.map(str::to_ascii_lowercase).as_deref() {
        Some("hex") => true,
        Some("base64" | "base64url") => false,
        None => value.len() == algorithm.len() * 2,
        Some(_) => return Err(error("encoding", "must be hex or base64")),
    };
    let digest = match is_hex {
        true => hex::decode(value).ok(),
        false => base64(value),
    };
    digest.filter(|digest| digest.len() == algorithm.len()).ok_or(match algorithm {
        HashAlgorithm::Sha256 => {
            error("value", "must be a SHA-256 digest: 64 hexadecimal digits, or 44 characters of base64")
        }
        HashAlgorithm::Sha512 => {
            error("value", "must be a SHA-512 digest: 128 hexadecimal digits, or 88 characters of base64")
        }
    })
}

/// Decodes both alphabets, with or without padding.
fn base64(value: &str) -> Option<Vec<u8>> {
    let unpadded = value.trim_end_matches('=');
    if value.len() - unpadded.len() > 2 {
        return None;
    }
    let engine: GeneralPurpose =
        if unpadded.contains(['-', '_']) { URL_SAFE_NO_PAD } else { STANDARD_NO_PAD };
    engine.decode(unpadded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use proptest::prelude::*;

    const ONE: NetworkId = NetworkId::SINGLE;

    fn parsed(
        algorithm: Option<&str>,
        encoding: Option<&str>,
        value: &str,
    ) -> Result<KeyId, (&'static str, String)> {
        let hash = ImportedHash::parse(algorithm, encoding, value);
        hash.map(|hash| hash.key_id(ONE)).map_err(|error| (error.field, error.problem.to_owned()))
    }

    #[test]
    fn slow_and_unknown_hashes_are_refused_with_the_reason() {
        let digest = "0".repeat(64);
        for (algorithm, value, field, part) in [
            (Some("bcrypt"), digest.as_str(), "algorithm", "slow"),
            (Some("ARGON2id"), &digest, "algorithm", "slow"),
            (Some("scrypt"), &digest, "algorithm", "slow"),
            (Some("sha256"), "$2b$12$abcdefghijklmnopqrstuuAsQ8m3nDgxM4X8rF7YkDnLQqN0vWn9q", "value", "slow"),
            (None, "$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA", "value", "slow"),
            (None, "{SSHA256}BpxNrp14gPKTOxZEVuCYa9Vn3Sg4fTz8b1TO2Nr9YTFzYWx0", "value", "a salted hash"),
            (None, "{BCRYPT}x", "value", "slow"),
            (Some("sha256"), "$6$salt$hash", "value", "slow"),
            (Some("md5"), &digest, "algorithm", "sha256 or sha512"),
            (Some("sha1"), &digest, "algorithm", "sha256 or sha512"),
            (None, &digest, "algorithm", "missing"),
            (Some("sha512"), &digest, "value", "128"),
            (Some("sha256"), "", "value", "64"),
            (Some("sha512"), &format!("sha256:{digest}"), "value", "another algorithm"),
            (Some("sha256"), &"0".repeat(200), "value", "longer"),
        ] {
            let (at, problem) = parsed(algorithm, None, value).unwrap_err();
            assert!(at == field && problem.contains(part), "{algorithm:?} {value}: {at} {problem}");
        }
        assert_eq!(parsed(Some("sha256"), Some("base32"), &digest).unwrap_err().0, "encoding");
        let hash = ImportedHash::parse(Some("sha256"), None, &digest).unwrap();
        assert!(!format!("{hash:?}").contains('0'));
    }

    #[test]
    fn ids_are_apart_by_network_algorithm_and_from_raw_keys() {
        let other = NetworkId::parse("6ba7b810-9dad-41d1-80b4-00c04fd430c8").unwrap();
        let raw = "\u{1}sha256\0";
        let mut ids = vec![super::super::imported::key_id(ONE, raw)];
        for network in [ONE, other] {
            ids.extend(DigestIds::of(network, raw).all());
        }
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }

    proptest! {
        #[test]
        fn every_spelling_of_a_digest_finds_the_shown_key(raw_key in ".{0,80}") {
            let ids = DigestIds::of(ONE, &raw_key);
            let digests = [Sha256::digest(&raw_key).to_vec(), Sha512::digest(&raw_key).to_vec()];
            for ((name, digest), id) in ["sha256", "sha512"].into_iter().zip(digests).zip(ids.all()) {
                let spellings = [
                    (hex::encode(&digest), Some("hex")),
                    (hex::encode_upper(&digest), None),
                    (STANDARD.encode(&digest), Some("base64")),
                    (STANDARD_NO_PAD.encode(&digest), None),
                    (URL_SAFE.encode(&digest), None),
                ];
                for (text, encoding) in spellings {
                    prop_assert_eq!(parsed(Some(name), encoding, &text), Ok(id));
                    prop_assert_eq!(parsed(None, encoding, &format!("{name}:{text}")), Ok(id));
                    let upper = name.to_uppercase();
                    prop_assert_eq!(parsed(Some(&upper), None, &format!("{{{upper}}}{text}")), Ok(id));
                }
            }
        }

        #[test]
        fn any_text_is_a_hash_or_a_problem_without_it(
            algorithm in proptest::option::of("sha256|sha512|sha-256|md5|[a-z]{0,8}"),
            encoding in proptest::option::of("hex|base64|[a-z]{0,8}"),
            value in any::<String>(),
        ) {
            let parsed = ImportedHash::parse(algorithm.as_deref(), encoding.as_deref(), &value);
            if let Ok(hash) = parsed {
                prop_assert_eq!(hash.digest.len(), hash.algorithm.len());
            }
        }

        #[test]
        fn another_key_is_another_id(one in ".{0,20}", two in ".{0,20}") {
            prop_assume!(one != two);
            let (one, two) = (DigestIds::of(ONE, &one), DigestIds::of(ONE, &two));
            prop_assert!(one.sha256 != two.sha256 && one.sha512 != two.sha512);
        }
    }
}
