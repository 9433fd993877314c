//! Seal of a request that made a key: by it, the same caller gets the credential again.
//!
//! A credential follows from the key's row and a secret, so it can be made again and is not stored.
//! The row alone must not give anybody that right. The seal is an HMAC over the caller, the request
//! id and the credential itself: who can write to the database but doesn't have the secret can't
//! make one for another caller, another key or a later time, and who reads it learns nothing.

use hmac::Mac;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::api_key;
use super::secrets::{HmacSecret, HmacSecrets};
use crate::caller::Caller;
use crate::clock::Timestamp;
use crate::key::NetworkId;
use crate::secret::SecretString;

/// Request of an authenticated caller.
#[derive(Debug, Clone, Copy)]
pub struct SealedRequest<'a> {
    /// Network of the key.
    pub network: NetworkId,
    /// Idempotency key that the caller chose.
    pub request_id: &'a str,
    /// Caller; `None` where callers need not authenticate.
    pub caller: Option<&'a Caller>,
}

impl SealedRequest<'_> {
    /// Returns the seal for a credential made under the current secret.
    pub fn seal(&self, secrets: &HmacSecrets, credential: &SecretString) -> String {
        hex::encode(self.mac(secrets.current(), credential))
    }

    /// Makes the credential of an issued key again, if `seal` belongs to this request, this caller
    /// and that credential. Tries all prefixes and secrets that are valid at `now`, as the current
    /// ones may have changed since.
    pub fn open<'p>(
        &self,
        secrets: &HmacSecrets,
        prefixes: impl Iterator<Item = &'p str> + Clone,
        (key_id, issued_at): (Uuid, Timestamp),
        seal: &str,
        now: Timestamp,
    ) -> Option<SecretString> {
        let mut expected = [0; 32];
        hex::decode_to_slice(seal, &mut expected).ok()?;
        secrets.verifying(now).find_map(|secret| {
            prefixes.clone().find_map(|prefix| {
                let credential = api_key::make_with(secret, prefix, key_id, issued_at);
                bool::from(self.mac(secret, &credential).ct_eq(&expected)).then_some(credential)
            })
        })
    }

    fn mac(&self, secret: &HmacSecret, credential: &SecretString) -> [u8; 32] {
        let (proof, name) =
            self.caller.map_or(("none", "anonymous"), |caller| (caller.proof.name(), caller.name.as_str()));
        // Lengths keep different lists of parts apart.
        let parts = [self.network.as_bytes(), self.request_id.as_bytes(), proof.as_bytes(), name.as_bytes()];
        let mac = parts.into_iter().chain([credential.expose().as_bytes()]).fold(
            secret.request_mac(),
            |mac, part: &[u8]| {
                let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
                mac.chain_update(length.to_be_bytes()).chain_update(part)
            },
        );
        mac.finalize().into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::{Proof, Role};

    const ISSUED_AT: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    fn caller(name: &str, proof: Proof) -> Caller {
        Caller { name: name.to_owned(), proof, role: Role::Issuer }
    }

    fn secret(text: &str, expires: Option<Timestamp>) -> HmacSecret {
        HmacSecret::new(text.as_bytes(), expires)
    }

    #[test]
    fn only_the_same_caller_with_the_same_request_opens_it() {
        let secrets = HmacSecrets::new(secret("a secret of at least thirty-two bytes", None), vec![]);
        let (alice, bob) = (caller("alice", Proof::Token), caller("bob", Proof::Token));
        let other_proof = caller("alice", Proof::Certificate);
        let network = NetworkId::SINGLE;
        let request = SealedRequest { network, request_id: "r", caller: Some(&alice) };
        let (uuid, other_uuid) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let credential = api_key::make(&secrets, "ak", uuid, ISSUED_AT);
        let seal = request.seal(&secrets, &credential);
        let open = |request: SealedRequest<'_>, key, prefixes: &[&'static str], seal: &str| {
            request.open(&secrets, prefixes.iter().copied(), key, seal, ISSUED_AT)
        };
        let key = (uuid, ISSUED_AT);
        assert_eq!(open(request, key, &["pk", "ak"], &seal), Some(credential));

        let elsewhere = NetworkId::new(Uuid::from_u128(9));
        for other in [
            SealedRequest { caller: Some(&bob), ..request },
            SealedRequest { caller: Some(&other_proof), ..request },
            SealedRequest { caller: None, ..request },
            SealedRequest { request_id: "s", ..request },
            SealedRequest { network: elsewhere, ..request },
        ] {
            assert_eq!(open(other, key, &["ak"], &seal), None, "{other:?}");
        }
        let later = Timestamp::from_micros(ISSUED_AT.as_micros() + 1_000_000);
        assert_eq!(open(request, (other_uuid, ISSUED_AT), &["ak"], &seal), None, "another key");
        assert_eq!(open(request, (uuid, later), &["ak"], &seal), None, "another time");
        assert_eq!(open(request, key, &["pk"], &seal), None, "another prefix");
        for malformed in ["", "zz", &seal[2..], &format!("{seal}00")] {
            assert_eq!(open(request, key, &["ak"], malformed), None, "{malformed}");
        }
    }

    #[test]
    fn a_retired_secret_gives_the_same_credential_until_it_expires() {
        let old = HmacSecrets::new(secret("the old secret of at least 32 bytes", None), vec![]);
        let request = SealedRequest { network: NetworkId::SINGLE, request_id: "r", caller: None };
        let credential = api_key::make(&old, "ak", Uuid::nil(), ISSUED_AT);
        let seal = request.seal(&old, &credential);
        let until = ISSUED_AT.plus(std::time::Duration::from_secs(60));
        let retired = secret("the old secret of at least 32 bytes", Some(until));
        let both = HmacSecrets::new(secret("the new secret of at least 32 bytes", None), vec![retired]);
        let open = |now| request.open(&both, ["ak"].into_iter(), (Uuid::nil(), ISSUED_AT), &seal, now);
        assert_eq!(open(ISSUED_AT), Some(credential));
        assert_eq!(open(until), None);
    }
}
