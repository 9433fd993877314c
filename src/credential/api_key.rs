//! Issued keys: `<prefix>_v1_<identifier>_<checksum>`.

use hmac::Mac;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::secrets::{HmacSecret, HmacSecrets};
use crate::clock::Timestamp;
use crate::key::{KeyId, SecretId};
use crate::secret::SecretString;

/// Maximum length of an identifier, in characters.
const MAX_IDENTIFIER: usize = 128;
/// Maximum length of a checksum, in characters. 32 bytes never take more.
const MAX_CHECKSUM: usize = 44;

/// Parts of a text in the form of an issued key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Parts<'a> {
    /// Everything up to the last underscore, which the checksum covers.
    signed: &'a str,
    prefix: &'a str,
    identifier: &'a str,
    checksum: &'a str,
}

impl std::fmt::Debug for Parts<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Parts({})", self.prefix)
    }
}

/// Content of a key whose checksum is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// Id of the key.
    pub key_id: KeyId,
    /// Time at which it was issued, from the identifier.
    pub issued_at: Timestamp,
    /// End of validity of the secret that verified it.
    pub secret_expires: Option<Timestamp>,
    /// Id of that secret.
    pub secret_id: SecretId,
}

impl<'a> Parts<'a> {
    /// Splits `^([A-Za-z0-9_]{1,16})_v1_([base58]{20,})_([base58]{10,})$`. Returns `None` for other
    /// texts.
    ///
    /// The split is unique, as base58 has no underscore.
    pub fn split(credential: &'a str) -> Option<Self> {
        let (rest, checksum) = credential.rsplit_once('_')?;
        let (rest, identifier) = rest.rsplit_once('_')?;
        let prefix = rest.strip_suffix("_v1")?;
        let fits = is_prefix(prefix)
            && identifier.len() >= 20
            && is_base58(identifier)
            && checksum.len() >= 10
            && is_base58(checksum);
        fits.then(|| Self {
            signed: &credential[..credential.len() - checksum.len()],
            prefix,
            identifier,
            checksum,
        })
    }

    /// Returns the prefix, which the checksum covers.
    pub const fn prefix(&self) -> &'a str {
        self.prefix
    }

    /// Verifies the checksum. Returns `None` if it fails, for whatever reason.
    pub fn prove(&self, secrets: &HmacSecrets, now: Timestamp) -> Option<Proof> {
        let (key_id, issued_at) = self.decode_identifier()?;
        let mut checksum = [0; 32];
        let decoded = (self.checksum.len() <= MAX_CHECKSUM)
            .then(|| bs58::decode(self.checksum).onto(&mut checksum).ok())?;
        if decoded != Some(checksum.len()) {
            return None;
        }
        let secret = secrets
            .verifying(now)
            .find(|secret| bool::from(checksum_of(secret, self.signed).ct_eq(&checksum)))?;
        Some(Proof { key_id, issued_at, secret_expires: secret.expires(), secret_id: secret.id() })
    }

    /// `<unix seconds>:<uuid>`
    fn decode_identifier(&self) -> Option<(KeyId, Timestamp)> {
        let mut text = [0; MAX_IDENTIFIER];
        let length = (self.identifier.len() <= MAX_IDENTIFIER)
            .then(|| bs58::decode(self.identifier).onto(&mut text).ok())??;
        let text = std::str::from_utf8(text.get(..length)?).ok()?;
        let (seconds, uuid) = text.split_once(':')?;
        let all_digits = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
        let seconds = all_digits.then(|| seconds.parse().ok())??;
        let key_id = KeyId::parse(crate::key::KeyKind::Issued, uuid)?;
        Some((key_id, Timestamp::from_secs(seconds)))
    }
}

/// Makes the credential of a new key, which is not stored.
pub fn make(secrets: &HmacSecrets, prefix: &str, key_id: Uuid, issued_at: Timestamp) -> SecretString {
    make_with(secrets.current(), prefix, key_id, issued_at)
}

/// Makes the credential of a key under one secret: the same arguments give the same credential.
pub(super) fn make_with(
    secret: &HmacSecret,
    prefix: &str,
    key_id: Uuid,
    issued_at: Timestamp,
) -> SecretString {
    let identifier = format!("{}:{}", issued_at.as_secs(), key_id.hyphenated());
    let mut credential = format!("{prefix}_v1_{}_", bs58::encode(identifier).into_string());
    let checksum = checksum_of(secret, &credential);
    credential.push_str(&bs58::encode(checksum).into_string());
    credential.into()
}

/// Returns whether a text may be a prefix: `^[A-Za-z0-9_]{1,16}$`.
pub fn is_prefix(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=16).contains(&text.len()) && text.bytes().all(allowed)
}

fn is_base58(text: &str) -> bool {
    let excluded = |byte| matches!(byte, b'0' | b'O' | b'I' | b'l');
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() && !excluded(byte))
}

fn checksum_of(secret: &HmacSecret, signed: &str) -> [u8; 32] {
    secret.mac().chain_update(signed).finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop, prop_assert_eq, proptest};

    fn secrets() -> HmacSecrets {
        HmacSecrets::new(HmacSecret::new(b"current secret of thirty-two bytes", None), vec![])
    }

    proptest! {
        #[test]
        fn issued_keys_verify_and_changed_ones_do_not(
            prefix in "[A-Za-z0-9_]{1,16}", id: u128, at in 0i64..10_000_000_000, flip: prop::sample::Index,
        ) {
            let now = Timestamp::from_secs(at);
            let credential = make(&secrets(), &prefix, Uuid::from_u128(id), now);
            let parts = Parts::split(credential.expose()).unwrap();
            prop_assert_eq!(parts.prefix(), &prefix);
            let proof = parts.prove(&secrets(), now).unwrap();
            prop_assert_eq!(proof.key_id, KeyId::Issued(Uuid::from_u128(id)));
            prop_assert_eq!(proof.issued_at, now);

            let at = flip.index(credential.expose().len());
            let mut bytes = credential.expose().as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'2' { b'3' } else { b'2' };
            let changed = String::from_utf8(bytes).unwrap();
            prop_assert_eq!(Parts::split(&changed).and_then(|parts| parts.prove(&secrets(), now)), None);
        }
    }

    #[test]
    fn a_retired_secret_proves_until_it_expires() {
        let old = HmacSecret::new(b"an old secret of thirty-two bytes!", None);
        let credential = make(&HmacSecrets::new(old, vec![]), "x", Uuid::nil(), Timestamp::from_secs(0));
        let parts = Parts::split(credential.expose()).unwrap();
        let until = Timestamp::from_secs(100);
        let retired = HmacSecret::new(b"an old secret of thirty-two bytes!", Some(until));
        let both = HmacSecrets::new(secrets().current().clone(), vec![retired]);
        let proof = parts.prove(&both, Timestamp::from_secs(99)).unwrap();
        assert_eq!(proof.secret_expires, Some(until));
        assert_eq!(parts.prove(&both, until), None);
    }

    #[test]
    fn oversized_parts_are_not_decoded() {
        let long = format!("x_v1_{}_{}", "2".repeat(129), "3".repeat(44));
        assert_eq!(Parts::split(&long).unwrap().prove(&secrets(), Timestamp::from_secs(0)), None);
        let long = format!("x_v1_{}_{}", "2".repeat(40), "3".repeat(45));
        assert_eq!(Parts::split(&long).unwrap().prove(&secrets(), Timestamp::from_secs(0)), None);
    }
}
