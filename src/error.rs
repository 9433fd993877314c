//! Every error that a caller of the API can see: one closed table (AIP-193, talos.md section 3).

use std::borrow::Cow;

/// The domain of our `ErrorInfo` details, as existing clients know it.
pub const DOMAIN: &str = "www.ory.com/talos";

/// What went wrong, as a caller's program tells it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The request is malformed.
    BadRequest,
    /// No credential was given.
    CredentialRequired,
    /// A derived token can't be revoked.
    DerivedTokenNotRevocable,
    /// The credential can't be one.
    InvalidApiKeyFormat,
    /// A derived token where a key is needed.
    InvalidTokenType,
    /// selfRevoke's one answer to everything that isn't a usable key.
    UnknownCredential,
    /// The key's time is over.
    ApiKeyExpired,
    /// The key was revoked.
    ApiKeyRevoked,
    /// The key to derive from can't be used.
    ParentKeyInvalid,
    /// A token's signature isn't ours.
    SignatureInvalid,
    /// Not allowed, for want of authentication.
    Unauthorized,
    /// The project has as many keys as it may have.
    ApiKeyQuotaExceeded,
    /// Not allowed.
    Forbidden,
    /// Not allowed from there.
    IpNotAllowed,
    /// No such key.
    ApiKeyNotFound,
    /// No such resource.
    NotFound,
    /// The route has no such method.
    MethodNotAllowed,
    /// The key is there already.
    ApiKeyExists,
    /// The request contradicts an earlier one.
    Conflict,
    /// The system isn't in the state that the request needs.
    FailedPrecondition,
    /// The request took too long to come.
    RequestTimeout,
    /// The body is larger than the route takes.
    PayloadTooLarge,
    /// The body isn't JSON.
    UnsupportedMediaType,
    /// More often than it may be.
    TooManyRequests,
    /// We can't tell at present.
    ServiceUnavailable,
    /// It took too long.
    GatewayTimeout,
    /// Our fault.
    InternalServerError,
}

impl Reason {
    const fn row(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::BadRequest => ("BAD_REQUEST", 400, "INVALID_ARGUMENT"),
            Self::CredentialRequired => ("CREDENTIAL_REQUIRED", 400, "INVALID_ARGUMENT"),
            Self::DerivedTokenNotRevocable => ("DERIVED_TOKEN_NOT_REVOCABLE", 400, "INVALID_ARGUMENT"),
            Self::InvalidApiKeyFormat => ("INVALID_API_KEY_FORMAT", 400, "INVALID_ARGUMENT"),
            Self::InvalidTokenType => ("INVALID_TOKEN_TYPE", 400, "INVALID_ARGUMENT"),
            Self::UnknownCredential => ("UNKNOWN_CREDENTIAL", 400, "INVALID_ARGUMENT"),
            Self::ApiKeyExpired => ("API_KEY_EXPIRED", 401, "UNAUTHENTICATED"),
            Self::ApiKeyRevoked => ("API_KEY_REVOKED", 401, "UNAUTHENTICATED"),
            Self::ParentKeyInvalid => ("PARENT_KEY_INVALID", 401, "UNAUTHENTICATED"),
            Self::SignatureInvalid => ("SIGNATURE_INVALID", 401, "UNAUTHENTICATED"),
            Self::Unauthorized => ("UNAUTHORIZED", 401, "UNAUTHENTICATED"),
            Self::ApiKeyQuotaExceeded => ("API_KEY_QUOTA_EXCEEDED", 402, "PERMISSION_DENIED"),
            Self::Forbidden => ("FORBIDDEN", 403, "PERMISSION_DENIED"),
            Self::IpNotAllowed => ("IP_NOT_ALLOWED", 403, "PERMISSION_DENIED"),
            Self::ApiKeyNotFound => ("API_KEY_NOT_FOUND", 404, "NOT_FOUND"),
            Self::NotFound => ("NOT_FOUND", 404, "NOT_FOUND"),
            Self::MethodNotAllowed => ("METHOD_NOT_ALLOWED", 405, "UNIMPLEMENTED"),
            Self::RequestTimeout => ("REQUEST_TIMEOUT", 408, "DEADLINE_EXCEEDED"),
            Self::ApiKeyExists => ("API_KEY_EXISTS", 409, "ALREADY_EXISTS"),
            Self::Conflict => ("CONFLICT", 409, "ALREADY_EXISTS"),
            Self::FailedPrecondition => ("FAILED_PRECONDITION", 409, "FAILED_PRECONDITION"),
            Self::PayloadTooLarge => ("PAYLOAD_TOO_LARGE", 413, "INVALID_ARGUMENT"),
            Self::UnsupportedMediaType => ("UNSUPPORTED_MEDIA_TYPE", 415, "INVALID_ARGUMENT"),
            Self::TooManyRequests => ("TOO_MANY_REQUESTS", 429, "RESOURCE_EXHAUSTED"),
            Self::ServiceUnavailable => ("SERVICE_UNAVAILABLE", 503, "UNAVAILABLE"),
            Self::GatewayTimeout => ("GATEWAY_TIMEOUT", 504, "DEADLINE_EXCEEDED"),
            Self::InternalServerError => ("INTERNAL_SERVER_ERROR", 500, "INTERNAL"),
        }
    }

    /// The `reason` of the ErrorInfo detail.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status.
    pub const fn http(self) -> u16 {
        self.row().1
    }

    /// The name of the gRPC status.
    pub const fn grpc(self) -> &'static str {
        self.row().2
    }
}

/// An error as its caller sees it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Which one.
    pub reason: Reason,
    /// In words; names the field when one is at fault, and never repeats a secret.
    pub message: Cow<'static, str>,
    /// The field of the request that is at fault.
    pub field: Option<Cow<'static, str>>,
}

impl ApiError {
    /// An error in words.
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, message: message.into(), field: None }
    }

    /// A bad field: `FIELD: what is wrong`.
    pub fn field(field: impl Into<Cow<'static, str>>, problem: impl std::fmt::Display) -> Self {
        let field = field.into();
        Self { reason: Reason::BadRequest, message: format!("{field}: {problem}").into(), field: Some(field) }
    }

    /// The envelope of AIP-193.
    pub fn to_json(&self) -> serde_json::Value {
        let metadata = match &self.field {
            Some(field) => serde_json::json!({ "field": field }),
            None => serde_json::json!({}),
        };
        serde_json::json!({ "error": {
            "code": self.reason.http(),
            "status": self.reason.grpc(),
            "message": self.message,
            "details": [{
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": self.reason.name(),
                "domain": DOMAIN,
                "metadata": metadata,
            }],
        }})
    }
}
