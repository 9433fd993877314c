//! Deriving a short-lived token from a key.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Map, Value};

use super::mint::{Terms, mint};
use super::verify::{Attempt, CacheUse, Identity, Unavailable};
use super::{MintError, Service};
use crate::audit::Call;
use crate::clock::Timestamp;
use crate::credential::claims::{RESERVED, Subject};
use crate::credential::{MAX_LEN, Presented, TokenFormat};
use crate::error::{ApiError, Reason};
use crate::event::{Event, Occurrence};
use crate::key::verdict::Denial;
use crate::key::{Scopes, TEN_YEARS};
use crate::settings::Settings;

/// Most bytes of custom claims, serialised.
const MAX_CUSTOM: usize = 4_096;

/// What to derive.
pub struct DeriveRequest<'a> {
    /// The parent's credential.
    pub credential: Presented<'a>,
    /// From where it is asked for.
    pub client: Option<IpAddr>,
    /// What the token is to be.
    pub format: TokenFormat,
    /// The token's life; the project's default when None.
    pub ttl: Option<Duration>,
    /// Some of the parent's scopes; all when empty.
    pub scopes: Scopes,
    /// Whom the token is for.
    pub audiences: Vec<String>,
    /// Free claims; reserved names are left out.
    pub custom_claims: Map<String, Value>,
}

/// A derived token.
pub struct Derived {
    /// The token.
    pub token: String,
    /// Its claims.
    pub claims: Map<String, Value>,
    /// Until when it is valid.
    pub expires: Timestamp,
    /// What it allows.
    pub scopes: Scopes,
    /// Whom it is for.
    pub audiences: Vec<String>,
}

impl Service {
    /// Derives a token.
    ///
    /// # Errors
    /// When the parent can't be used, more is asked for than it has, or nothing can be signed.
    pub async fn derive(
        &self,
        settings: &Settings,
        request: DeriveRequest<'_>,
        call: &Call,
    ) -> Result<Derived, ApiError> {
        if settings.form(request.credential).is_derived() {
            let problem = "credential: a derived token can't be derived from";
            return Err(ApiError::new(Reason::InvalidTokenType, problem));
        }
        let mut custom = request.custom_claims;
        if serde_json::to_string(&custom).is_ok_and(|json| json.len() > MAX_CUSTOM) {
            return Err(ApiError::field("custom_claims", "must be 4096 bytes of JSON at most"));
        }
        custom.retain(|name, _| !RESERVED.contains(&name.as_str()));
        let ttl = request.ttl.unwrap_or(settings.default_token_ttl);
        if !(Duration::from_secs(1)..=TEN_YEARS).contains(&ttl) || ttl > settings.max_token_ttl {
            let most = crate::duration::to_proto(settings.max_token_ttl);
            let problem = format!("must be between 1s and {most} (credentials.derived_tokens.max_ttl)");
            return Err(ApiError::field("ttl", problem));
        }

        let attempt = Attempt {
            credential: request.credential,
            client: request.client,
            audiences: &[],
            cache: CacheUse::Full,
        };
        let verification = self.verify(settings, &attempt).await.map_err(|Unavailable| {
            ApiError::new(Reason::ServiceUnavailable, "the database gives no answer; try again")
        })?;
        let entry = match verification.verdict {
            Ok(Identity::Key(entry)) => entry,
            Ok(Identity::Token(_)) => return Err(parent_error(Denial::NotFound)),
            Err(refused) => {
                self.note_failure(settings, &refused, call.operation(), call.origin());
                return Err(parent_error(refused.denial));
            }
        };
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
        // A default that doesn't fit is cut to the parent's end; a life that was asked for is not.
        if request.ttl.is_some() && entry.hard_expiry.is_some_and(|end| end < now.plus(ttl)) {
            return Err(ApiError::field("ttl", "must not go beyond the parent key's own end"));
        }
        let terms =
            Terms { ttl, ends: entry.hard_expiry, audiences: &request.audiences, scopes, custom: &custom };
        let subject = Subject::of_key(key);
        call.intend(settings.network, vec![key.id]).await?;
        let minted = mint(settings, &self.rng, now, request.format, &subject, &terms).map_err(mint_error)?;
        // Under a snapshot that may have been replaced since by one that allows less.
        self.outstanding.note(self.clock.boot_now(), ttl);
        // Nobody could show it to us.
        if minted.token.len() > MAX_LEN {
            let problem =
                "with these scopes, audiences and custom_claims the token would be longer than 16384 bytes";
            return Err(ApiError::new(Reason::BadRequest, problem));
        }
        self.note_use(&entry, now);
        let claims: Map<String, Value> = serde_json::from_str(&minted.claims_json).unwrap_or_default();
        let occurrence = Occurrence::of_key(Event::DerivedToken, key);
        let occurrence = occurrence.with("TokenID", claims.get("jti").cloned());
        call.happened(occurrence.with("TokenExpiry", Some(minted.expires.to_rfc3339())));
        Ok(Derived {
            token: minted.token,
            claims,
            expires: minted.expires,
            scopes: scopes.clone(),
            audiences: request.audiences.clone(),
        })
    }
}

fn mint_error(error: MintError) -> ApiError {
    tracing::error!(%error, "no token can be derived");
    let reason = match error {
        MintError::NoKey => Reason::FailedPrecondition,
        MintError::NoSuchKey(_) | MintError::Refused => Reason::InternalServerError,
    };
    ApiError::new(reason, error.to_string())
}

fn parent_error(denial: Denial) -> ApiError {
    let reason = match denial {
        Denial::Expired => Reason::ApiKeyExpired,
        Denial::Revoked => Reason::ApiKeyRevoked,
        Denial::AddressNotAllowed => Reason::IpNotAllowed,
        Denial::NotFound | Denial::SignatureInvalid | Denial::AudienceMismatch => Reason::ParentKeyInvalid,
    };
    ApiError::new(reason, format!("credential: {denial}"))
}
