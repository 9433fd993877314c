//! Derivation of short-lived tokens from a key.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::mint::{MintRequest, mint};
use super::verify::{CacheUse, Identity, VerifyRequest};
use super::{MintError, Service, Unavailable};
use crate::audit::Call;
use crate::cache::memory::Entry;
use crate::clock::Timestamp;
use crate::credential::claims::{RESERVED, Subject};
use crate::credential::{MAX_LEN, Presented, TokenFormat};
use crate::error::{ApiError, Reason};
use crate::event::{Event, Occurrence};
use crate::key::verdict::Denial;
use crate::key::{Scopes, TEN_YEARS};
use crate::settings::Settings;

/// Maximum size of the custom claims, as JSON, in bytes.
const MAX_CUSTOM: usize = 4_096;

/// Request for a derived token.
pub struct DeriveRequest<'a> {
    /// Credential of the parent key.
    pub credential: Presented<'a>,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// Format of the token.
    pub format: TokenFormat,
    /// Lifetime of the token. The default of the settings if `None`.
    pub ttl: Option<Duration>,
    /// Subset of the parent's scopes. All of them if empty.
    pub scopes: Scopes,
    /// Audiences of the token.
    pub audiences: Vec<String>,
    /// Custom claims. Reserved names are ignored.
    pub custom_claims: Map<String, Value>,
}

/// A derived token.
pub struct Derived {
    /// The token.
    pub token: String,
    /// Claims.
    pub claims: Map<String, Value>,
    /// Expiry.
    pub expires: Timestamp,
    /// Scopes of the token.
    pub scopes: Scopes,
    /// Audiences of the token.
    pub audiences: Vec<String>,
}

impl Service {
    /// Derives a token.
    ///
    /// # Errors
    /// Fails if the parent is not valid, the request exceeds the parent's permissions or lifetime,
    /// or nothing can be signed.
    pub async fn derive(
        &self,
        settings: &Settings,
        mut request: DeriveRequest<'_>,
        call: &Call,
    ) -> Result<Derived, ApiError> {
        self.check_clock()?;
        if settings.form(request.credential).is_derived() {
            let problem = "credential: a derived token can't be derived from";
            return Err(ApiError::new(Reason::InvalidTokenType, problem));
        }
        let mut custom = std::mem::take(&mut request.custom_claims);
        if serde_json::to_string(&custom).is_ok_and(|json| json.len() > MAX_CUSTOM) {
            return Err(ApiError::field("custom_claims", "must be 4096 bytes of JSON at most"));
        }
        custom.retain(|name, _| !RESERVED.contains(&name.as_str()));
        let ttl = request.ttl.unwrap_or(settings.default_token_ttl);
        if !(Duration::from_secs(1)..=TEN_YEARS).contains(&ttl) || ttl > settings.max_token_ttl {
            let most = crate::duration::to_proto(settings.max_token_ttl);
            let problem = format!(
                "must be between 1s and {most} (credentials.derived_tokens.max_ttl, which an operator can raise)"
            );
            return Err(ApiError::field("ttl", problem));
        }

        let entry = self.verify_parent(settings, &request, call).await?;
        let key = &entry.key;
        let scopes = if request.scopes.is_empty() { &key.scopes } else { &request.scopes };
        if !key.scopes.grant_all(scopes) {
            let problem = "scopes: must be a subset of the parent key's";
            return Err(ApiError {
                field: Some("scopes".into()),
                ..ApiError::new(Reason::Forbidden, problem)
            });
        }
        let now = self.clock.now();
        // A default lifetime is cut to the parent's expiry. A requested lifetime is not.
        if request.ttl.is_some() && entry.end().is_some_and(|end| end < now.plus(ttl)) {
            return Err(ApiError::field("ttl", "must not go beyond the parent key's own end"));
        }
        let mint_request = MintRequest {
            ttl,
            backdated: Duration::ZERO,
            not_after: entry.end(),
            audiences: &request.audiences,
            scopes,
            custom: &custom,
        };
        let subject = Subject::of_key(key);
        call.record_intent(settings.network, vec![key.id]).await?;
        let minted =
            mint(settings, &self.rng, now, request.format, &subject, &mint_request).map_err(mint_error)?;
        // The settings may have been replaced since by ones that allow less.
        self.outstanding.note(self.clock.boot_now(), ttl);
        // A longer token could never be presented.
        if minted.token.len() > MAX_LEN {
            let problem =
                "with these scopes, audiences and custom_claims the token would be longer than 16384 bytes";
            return Err(ApiError::new(Reason::BadRequest, problem));
        }
        self.record_use(&entry, now);
        let claims: Map<String, Value> = serde_json::from_str(&minted.claims_json).unwrap_or_default();
        let occurrence = Occurrence::of_key(Event::DerivedToken, key);
        let occurrence = occurrence.with("TokenID", claims.get("jti").cloned());
        let occurrence = occurrence.with("metadata.token_type", Some(request.format.name()));
        let signing_key = settings.signing_key().filter(|_| request.format == TokenFormat::Jwt);
        let algorithm = signing_key.map(|key| format!("{:?}", key.algorithm()));
        let occurrence = occurrence.with("metadata.algorithm", algorithm);
        let occurrence = occurrence.with("metadata.ttl", Some(ttl.as_secs().to_string()));
        call.record_event(occurrence.with("TokenExpiry", Some(minted.expires.to_rfc3339())));
        Ok(Derived {
            token: minted.token,
            claims,
            expires: minted.expires,
            scopes: scopes.clone(),
            audiences: request.audiences,
        })
    }

    /// Verifies the parent's credential. Returns the parent key.
    async fn verify_parent(
        &self,
        settings: &Settings,
        request: &DeriveRequest<'_>,
        call: &Call,
    ) -> Result<Arc<Entry>, ApiError> {
        let verify_request = VerifyRequest {
            credential: request.credential,
            client: request.client,
            audiences: &[],
            cache: CacheUse::Full,
        };
        let verification = self.verify(settings, &verify_request).await.map_err(|Unavailable| {
            ApiError::new(Reason::ServiceUnavailable, "the database gives no answer; try again")
        })?;
        match verification.verdict {
            Ok(Identity::Key(entry)) => Ok(entry),
            Ok(Identity::Token(_)) => Err(parent_error(Denial::NotFound)),
            Err(rejection) => {
                self.record_failure(settings, &rejection, call.operation(), call.origin());
                Err(parent_error(rejection.denial))
            }
        }
    }
}

fn mint_error(error: MintError) -> ApiError {
    tracing::error!(%error, "token could not be derived");
    let reason = match error {
        MintError::NoKey => Reason::FailedPrecondition,
        MintError::NoSuchKey(_) | MintError::Refused => Reason::InternalServerError,
    };
    ApiError::new(reason, error.to_string())
}

fn parent_error(denial: Denial) -> ApiError {
    let reason = match denial {
        Denial::Expired | Denial::Policy => Reason::ApiKeyExpired,
        Denial::Revoked | Denial::Suspended => Reason::ApiKeyRevoked,
        Denial::AddressNotAllowed => Reason::IpNotAllowed,
        Denial::NotFound | Denial::SignatureInvalid | Denial::AudienceMismatch => Reason::ParentKeyInvalid,
    };
    ApiError::new(reason, format!("credential: {denial}"))
}
