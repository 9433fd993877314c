//! Reasons for denying a request, and the part of them that the client learns.

use std::net::IpAddr;

use bytes::Bytes;
use prost::Message;

use super::metadata;
use super::principal::Principal;
use super::request::Malformed;
use super::response::{CREDITS_REMAINING, RATE_LIMIT, RATE_LIMIT_POLICY};
use crate::cache::memory::Entry;
use crate::error::{ApiError, Reason};
use crate::key::verdict::Denial;
use crate::key::{Scopes, SpentCredits};
use crate::limit::RateDecision;
use crate::service::verify::Rejection;

/// Reason for denying a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum DenyReason {
    /// The route needs a credential and the request has none.
    #[error("an API key is required")]
    Missing,
    /// The credential or the path is malformed or ambiguous.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The credential is not valid.
    #[error("{0}")]
    Denied(Denial),
    /// The key is bound to addresses, and the client's is missing or unreadable.
    #[error("the client's address is missing or can't be read, and this credential is bound to addresses")]
    AddressUnreadable,
    /// The credential lacks scopes.
    #[error("the credential lacks a scope that this route needs")]
    InsufficientScope(ScopeDemand),
    /// A quota of the key or its actor is used up. With the text of `RateLimit-Policy`.
    #[error("the key was used too often; try again later")]
    RateLimited(String, Box<RateDecision>),
    /// Fewer credits are left than the request costs.
    #[error("the key has no credits left for this request")]
    CreditsExhausted(Box<SpentCredits>),
    /// The key is publishable and the route accepts secret keys only.
    #[error("publishable keys are not accepted here")]
    Publishable,
    /// No network serves the host.
    #[error("this host is not served here")]
    UnknownHost,
    /// The route's policy is invalid, or no token can be signed.
    #[error("the route's policy is misconfigured")]
    Misconfigured,
    /// The credential can't be verified at present.
    #[error("the credential can't be checked at present")]
    Unavailable,
}

/// Demand of a route that a credential doesn't meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ScopeDemand {
    /// Scopes that the route names.
    pub needed: Scopes,
    /// True if it needs all of them, false if one of them is enough.
    pub needs_all: bool,
    /// Needed scopes that the credential lacks.
    pub missing: Vec<String>,
}

impl ScopeDemand {
    /// The demand for `needed`, not met by the scopes in `granted`.
    pub(super) fn new(needed: &Scopes, needs_all: bool, granted: &Scopes) -> Self {
        let missing = needed.iter().filter(|scope| !granted.grant(scope));
        let missing = missing.map(|scope| scope.as_str().to_owned()).collect();
        Self { needed: needed.clone(), needs_all, missing }
    }

    /// Returns the missing scopes, in words.
    fn in_words(&self) -> String {
        let missing = self.missing.join(", ");
        match (self.needs_all, self.missing.len()) {
            (true, _) => format!("missing: {missing}"),
            (false, 1) => format!("needed: {missing}"),
            (false, _) => format!("needed: one of {missing}"),
        }
    }
}

impl DenyReason {
    /// Returns the label for logs, metadata and metrics.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed(Malformed::Ambiguous) => "ambiguous",
            Self::Malformed(Malformed::AmbiguousPath) => "ambiguous_path",
            Self::Malformed(Malformed::Unreadable | Malformed::NotBasic) => "malformed",
            Self::Denied(denial) => denial.label(),
            Self::AddressUnreadable => "address_unreadable",
            Self::InsufficientScope(_) => "insufficient_scope",
            Self::RateLimited(..) => "rate_limited",
            Self::CreditsExhausted(_) => "credits_exhausted",
            Self::Publishable => "publishable",
            Self::UnknownHost => "unknown_host",
            Self::Misconfigured => "misconfigured",
            Self::Unavailable => "unavailable",
        }
    }

    /// Returns the error that the client sees. Expired, revoked, suspended and unknown look alike
    /// unless `reveal_reason` is set.
    pub(super) fn error(&self, reveal_reason: bool) -> ApiError {
        let reason = match self {
            Self::Missing => Reason::Unauthorized,
            Self::Malformed(_) => Reason::BadRequest,
            Self::Denied(Denial::AddressNotAllowed) | Self::AddressUnreadable => Reason::IpNotAllowed,
            Self::Denied(denial) if reveal_reason => match denial {
                Denial::Expired | Denial::Policy => Reason::ApiKeyExpired,
                Denial::Revoked | Denial::Suspended => Reason::ApiKeyRevoked,
                Denial::SignatureInvalid => Reason::SignatureInvalid,
                _ => Reason::Unauthorized,
            },
            Self::Denied(_) => return ApiError::new(Reason::Unauthorized, "the credential is not valid"),
            Self::InsufficientScope(_) | Self::Publishable => Reason::Forbidden,
            Self::RateLimited(..) | Self::CreditsExhausted(_) => Reason::TooManyRequests,
            Self::UnknownHost => Reason::NotFound,
            Self::Misconfigured => Reason::InternalServerError,
            Self::Unavailable => Reason::ServiceUnavailable,
        };
        let mut error = ApiError::new(reason, self.to_string());
        if !matches!(self, Self::Denied(_)) {
            error.anchor = Some(self.label());
        }
        if let Self::InsufficientScope(demand) = self {
            error.metadata.push(("required_scopes", demand.needed.to_string()));
            error.metadata.push(("missing_scopes", demand.missing.join(" ")));
            error.metadata.push(("hint", demand.in_words()));
        }
        error
    }

    /// Returns the challenge of the scheme Bearer (RFC 6750, RFC 9110).
    ///
    /// No text in it needs escaping: none has a `"` or `\`.
    pub(super) fn bearer_challenge(&self, realm: &str, reveal_reason: bool) -> Option<String> {
        let bearer = format!("Bearer realm=\"{realm}\"");
        match self {
            Self::Missing => Some(bearer),
            Self::Denied(Denial::AddressNotAllowed) => None,
            Self::Denied(denial) if reveal_reason => {
                Some(format!("{bearer}, error=\"invalid_token\", error_description=\"{denial}\""))
            }
            Self::Denied(_) => Some(format!("{bearer}, error=\"invalid_token\"")),
            Self::InsufficientScope(ScopeDemand { needed, .. }) => {
                Some(format!("{bearer}, error=\"insufficient_scope\", scope=\"{needed}\""))
            }
            _ => None,
        }
    }

    /// Returns whether another credential could help: the reason for a 401, or a 407 of a proxy.
    pub(super) const fn asks_for_credential(&self) -> bool {
        match self {
            Self::Missing => true,
            Self::Denied(denial) => !matches!(denial, Denial::AddressNotAllowed),
            _ => false,
        }
    }

    /// Returns the headers that tell a client that may not use its key at present what is left, and
    /// when to try again.
    pub(super) fn rate_headers(&self) -> Vec<(&'static str, String)> {
        let (headers, seconds) = match self {
            Self::RateLimited(policy, charge) => {
                let rate = vec![(RATE_LIMIT_POLICY, policy.clone()), (RATE_LIMIT, charge.header())];
                (rate, charge.retry_after_secs())
            }
            Self::CreditsExhausted(spent) => {
                (vec![(CREDITS_REMAINING, spent.remaining.to_string())], spent.retry_after_secs())
            }
            _ => return vec![],
        };
        let retry_after = seconds.map(|seconds| ("retry-after", seconds.to_string()));
        headers.into_iter().chain(retry_after).collect()
    }

    /// Returns the code of the gRPC status that accompanies the HTTP response.
    pub(super) const fn grpc_code(&self) -> i32 {
        match self {
            Self::Missing => 16,
            Self::Denied(Denial::AddressNotAllowed)
            | Self::AddressUnreadable
            | Self::InsufficientScope(_)
            | Self::Publishable => 7,
            Self::Denied(_) => 16,
            Self::RateLimited(..) | Self::CreditsExhausted(_) => 8,
            Self::Malformed(_) => 3,
            Self::UnknownHost => 5,
            Self::Misconfigured => 13,
            Self::Unavailable => 14,
        }
    }
}

/// A denied request.
pub(super) struct DeniedRequest {
    /// The reason.
    pub reason: DenyReason,
    /// The principal, as encoded fields of a `Struct` for the dynamic metadata. Empty if unknown.
    pub principal: Bytes,
}

impl DeniedRequest {
    /// Denies a request of a known principal.
    pub(super) fn of_principal(reason: DenyReason, principal: &Principal<'_>) -> Self {
        Self { reason, principal: metadata::of_principal(principal).encode_to_vec().into() }
    }

    /// Denies a request with a known key. The cached encoding makes this as fast as denying an
    /// unknown credential.
    pub(super) fn of_key(reason: DenyReason, entry: &Entry) -> Self {
        let encode = || {
            let metadata = metadata::of_principal(&Principal::of_key(&entry.key));
            Box::new(metadata.encode_to_vec().into())
        };
        Self { reason, principal: Bytes::clone(entry.denied_metadata.get_or_init(encode)) }
    }
}

impl DeniedRequest {
    /// Tells an address that isn't allowed from one that is unknown.
    pub(super) fn with_client(mut self, client: Option<IpAddr>) -> Self {
        if client.is_none() && self.reason == DenyReason::Denied(Denial::AddressNotAllowed) {
            self.reason = DenyReason::AddressUnreadable;
        }
        self
    }
}

impl<T: Into<DenyReason>> From<T> for DeniedRequest {
    fn from(reason: T) -> Self {
        Self { reason: reason.into(), principal: Bytes::new() }
    }
}

impl From<Rejection> for DeniedRequest {
    fn from(rejection: Rejection) -> Self {
        let reason = DenyReason::Denied(rejection.denial);
        match (&rejection.entry, &rejection.key_id) {
            (Some(entry), _) => Self::of_key(reason, entry),
            (None, Some(key_id)) => {
                Self { reason, principal: metadata::of_key_id(key_id).encode_to_vec().into() }
            }
            (None, None) => reason.into(),
        }
    }
}
