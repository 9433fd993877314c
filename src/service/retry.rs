//! Retries of requests that made a key: the same caller gets the secret again, for a while.

use sha2::{Digest, Sha256};

use super::{Service, unavailable};
use crate::audit::Call;
use crate::credential::request_seal::SealedRequest;
use crate::error::{ApiError, Reason};
use crate::event::{Event, Occurrence};
use crate::key::{Key, KeyId, Status};
use crate::secret::SecretString;
use crate::settings::Settings;
use crate::store::RepeatedKey;

impl Service {
    /// Returns the secret of an issued key once more, if this call repeats the request that made
    /// it: the same caller, within `idempotency.reveal_for`, while the key is active and unused.
    ///
    /// A use that another instance hasn't written yet isn't known here.
    pub(super) async fn secret_again(
        &self,
        settings: &Settings,
        request_id: &str,
        earlier: &RepeatedKey,
        call: &Call,
    ) -> Result<Option<SecretString>, ApiError> {
        let RepeatedKey { key, seal: Some(seal) } = earlier else {
            return Ok(None);
        };
        let KeyId::Issued(uuid) = key.id else {
            return Ok(None);
        };
        let now = self.clock.now();
        // In both directions, as the clock of another instance made the key.
        let age = now.as_micros().abs_diff(key.created.as_micros());
        if u128::from(age) >= settings.reveal_for.as_micros() || self.uses.is_pending(key.network, key.id) {
            return Ok(None);
        }
        // Read again, as a use may have been written since.
        let current = self.store.find_key(key.network, key.id).await.map_err(unavailable)?.key;
        let is_unused = |current: &Key| current.last_used.is_none() && current.status(now) == Status::Active;
        if !current.as_deref().is_some_and(is_unused) {
            return Ok(None);
        }
        let caller = call.origin().caller.as_ref();
        let request = SealedRequest { network: key.network, request_id, caller };
        let valid = settings.prefixes.iter().filter(|prefix| prefix.is_valid_at(now));
        let prefixes = valid.map(|prefix| prefix.value.as_str());
        let secret = request.open(&settings.secrets, prefixes, (uuid, key.created), seal, now);
        if secret.is_some() {
            call.record_event(Occurrence::of_key(Event::IssuedKeySecretRepeated, key));
        }
        Ok(secret)
    }
}

/// Returns the seal of a request that makes a key; `None` if its secret is never shown again.
pub(super) fn seal(
    settings: &Settings,
    request: &SealedRequest<'_>,
    credential: &SecretString,
) -> Option<String> {
    (!settings.reveal_for.is_zero()).then(|| request.seal(&settings.secrets, credential))
}

/// Returns a hash of all that a request asks for. A repeated request id must come with the same
/// hash.
pub(super) fn fingerprint(everything: &serde_json::Value) -> String {
    hex::encode(Sha256::digest(everything.to_string()))
}

/// Returns the error for a request id that another request has used.
pub(super) fn request_conflict() -> ApiError {
    ApiError {
        field: Some("request_id".into()),
        ..ApiError::new(Reason::Conflict, "request_id: was used before, with another body")
    }
}

/// Returns the error for a key that a successor has replaced already, which may have ended or been
/// rotated as well.
pub(super) fn already_rotated(successor: KeyId, is_active: bool) -> ApiError {
    let advice = match is_active {
        true => "if nobody has its secret, rotate that one",
        false => "that one isn't active any more: issue a new key",
    };
    let problem = format!("the key has been rotated already: its successor is {successor}; {advice}");
    ApiError {
        metadata: vec![("replaced_by", successor.to_string())],
        ..ApiError::new(Reason::FailedPrecondition, problem)
    }
}
