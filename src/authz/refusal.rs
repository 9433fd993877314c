//! Why a request isn't let through, and what whoever sent it may know of that.

use bytes::Bytes;
use prost::Message;

use super::metadata;
use super::request::Malformed;
use super::response::{Caller, RATE_LIMIT, RATE_LIMIT_POLICY};
use crate::cache::memory::Entry;
use crate::error::{ApiError, Reason};
use crate::key::verdict::Denial;
use crate::key::{RatePolicy, Scopes};
use crate::limit::Charge;
use crate::service::verify;

/// Why a request isn't let through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It needs a credential and has none.
    #[error("an API key is required")]
    Missing,
    /// Its credential or its path can't be told.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Its credential is no good.
    #[error("{0}")]
    Denied(Denial),
    /// Its credential doesn't allow this.
    #[error("the credential lacks a scope that this route needs")]
    InsufficientScope(Scopes),
    /// Its key was used more often than it may be.
    #[error("the key was used too often; try again later")]
    RateLimited(RatePolicy, Charge),
    /// A publishable key on a route for secret ones.
    #[error("publishable keys are not accepted here")]
    Publishable,
    /// It is for a host of no network.
    #[error("this host is not served here")]
    UnknownHost,
    /// The route's policy can't be meant as it stands.
    #[error("the route's policy is misconfigured")]
    Misconfigured,
    /// We can't tell.
    #[error("the credential can't be checked at present")]
    Unavailable,
}

impl Refusal {
    /// The word for logs, metadata and metric labels.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed(Malformed::Ambiguous) => "ambiguous",
            Self::Malformed(Malformed::AmbiguousPath) => "ambiguous_path",
            Self::Malformed(Malformed::Unreadable) => "malformed",
            Self::Denied(denial) => denial.label(),
            Self::InsufficientScope(_) => "insufficient_scope",
            Self::RateLimited(..) => "rate_limited",
            Self::Publishable => "publishable",
            Self::UnknownHost => "unknown_host",
            Self::Misconfigured => "misconfigured",
            Self::Unavailable => "unavailable",
        }
    }

    /// As the client sees it: expired, revoked and unknown look alike, unless it is `revealed` which it is.
    pub fn error(&self, revealed: bool) -> ApiError {
        let reason = match self {
            Self::Missing => Reason::Unauthorized,
            Self::Malformed(_) => Reason::BadRequest,
            Self::Denied(Denial::AddressNotAllowed) => Reason::IpNotAllowed,
            Self::Denied(denial) if revealed => match denial {
                Denial::Expired => Reason::ApiKeyExpired,
                Denial::Revoked => Reason::ApiKeyRevoked,
                Denial::SignatureInvalid => Reason::SignatureInvalid,
                _ => Reason::Unauthorized,
            },
            Self::Denied(_) => return ApiError::new(Reason::Unauthorized, "the credential is not valid"),
            Self::InsufficientScope(_) | Self::Publishable => Reason::Forbidden,
            Self::RateLimited(..) => Reason::TooManyRequests,
            Self::UnknownHost => Reason::NotFound,
            Self::Misconfigured => Reason::InternalServerError,
            Self::Unavailable => Reason::ServiceUnavailable,
        };
        ApiError::new(reason, self.to_string())
    }

    /// `WWW-Authenticate` after RFC 6750 and RFC 9110, whose texts hold neither `"` nor `\`.
    pub fn challenge(&self, realm: &str, revealed: bool) -> Option<String> {
        let bearer = format!("Bearer realm=\"{realm}\"");
        match self {
            Self::Missing => Some(bearer),
            Self::Denied(Denial::AddressNotAllowed) => None,
            Self::Denied(denial) if revealed => {
                Some(format!("{bearer}, error=\"invalid_token\", error_description=\"{denial}\""))
            }
            Self::Denied(_) => Some(format!("{bearer}, error=\"invalid_token\"")),
            Self::InsufficientScope(scopes) => {
                Some(format!("{bearer}, error=\"insufficient_scope\", scope=\"{scopes}\""))
            }
            _ => None,
        }
    }

    /// What the client is told of its rate: when it may come again.
    pub fn rate_headers(&self) -> Vec<(&'static str, String)> {
        let Self::RateLimited(policy, charge) = self else {
            return vec![];
        };
        let retry_after = charge.retry_after_secs().map(|seconds| ("retry-after", seconds.to_string()));
        let rate = [(RATE_LIMIT_POLICY, policy.header()), (RATE_LIMIT, charge.header())];
        rate.into_iter().chain(retry_after).collect()
    }

    /// The number of the gRPC status beside the HTTP answer.
    pub const fn grpc_code(&self) -> i32 {
        match self {
            Self::Missing => 16,
            Self::Denied(Denial::AddressNotAllowed) | Self::InsufficientScope(_) | Self::Publishable => 7,
            Self::Denied(_) => 16,
            Self::RateLimited(..) => 8,
            Self::Malformed(_) => 3,
            Self::UnknownHost => 5,
            Self::Misconfigured => 13,
            Self::Unavailable => 14,
        }
    }
}

/// A refusal, and what was proven about the caller before.
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// For the dynamic metadata: encoded fields of a Struct.
    pub known: Bytes,
}

impl Refused {
    /// A refusal of a caller who is known.
    pub fn of_caller(refusal: Refusal, caller: &Caller<'_>) -> Self {
        Self { refusal, known: metadata::of_caller(caller).encode_to_vec().into() }
    }

    /// A refusal of a key's holder. It takes no longer than that of somebody unknown.
    pub fn of_holder(refusal: Refusal, entry: &Entry) -> Self {
        let known = || metadata::of_caller(&Caller::of_key(&entry.key)).encode_to_vec().into();
        Self { refusal, known: entry.holder.get_or_init(known).clone() }
    }
}

impl<T: Into<Refusal>> From<T> for Refused {
    fn from(refusal: T) -> Self {
        Self { refusal: refusal.into(), known: Bytes::new() }
    }
}

impl From<verify::Refused> for Refused {
    fn from(refused: verify::Refused) -> Self {
        let refusal = Refusal::Denied(refused.denial);
        match (&refused.entry, &refused.key_id) {
            (Some(entry), _) => Self::of_holder(refusal, entry),
            (None, Some(key_id)) => {
                Self { refusal, known: metadata::of_key_id(key_id).encode_to_vec().into() }
            }
            (None, None) => refusal.into(),
        }
    }
}
