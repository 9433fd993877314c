//! Errors of the HTTP API (AIP-193): one closed table.

use std::borrow::Cow;
use std::sync::OnceLock;

/// Default domain of the `ErrorInfo` details, which existing clients expect.
pub const DOMAIN: &str = "www.ory.com/talos";

/// Parts of every error of the process besides its own content.
struct Branding {
    domain: String,
    docs_url: Option<String>,
}

static BRANDING: OnceLock<Branding> = OnceLock::new();

/// Sets the domain of errors, and the URL of the page that explains them. A second call has no
/// effect.
pub fn set_branding(domain: String, docs_url: Option<String>) {
    let _ = BRANDING.set(Branding { domain, docs_url });
}

/// Reason of an error, by which programs tell errors apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The request is malformed.
    BadRequest,
    /// The credential is missing.
    CredentialRequired,
    /// A derived token can't be revoked.
    DerivedTokenNotRevocable,
    /// The text has no form of a credential.
    InvalidApiKeyFormat,
    /// A derived token was given where a key is needed.
    InvalidTokenType,
    /// The only answer of selfRevoke to anything but a valid key.
    UnknownCredential,
    /// The key has expired.
    ApiKeyExpired,
    /// The key was revoked.
    ApiKeyRevoked,
    /// The key to derive from is invalid.
    ParentKeyInvalid,
    /// The signature of a token is invalid.
    SignatureInvalid,
    /// The caller isn't authenticated.
    Unauthorized,
    /// The project has reached its quota of keys.
    ApiKeyQuotaExceeded,
    /// The caller isn't allowed to do this.
    Forbidden,
    /// The key isn't allowed from this address.
    IpNotAllowed,
    /// There is no such key.
    ApiKeyNotFound,
    /// There is no such resource.
    NotFound,
    /// The route has no such method.
    MethodNotAllowed,
    /// The key exists already.
    ApiKeyExists,
    /// The request contradicts an earlier one.
    Conflict,
    /// The state of the system doesn't allow the request.
    FailedPrecondition,
    /// The mutation log doesn't reach from where the reader left off.
    EventsGone,
    /// The request wasn't received in time.
    RequestTimeout,
    /// The body is larger than the route allows.
    PayloadTooLarge,
    /// The body isn't JSON.
    UnsupportedMediaType,
    /// The caller has sent too many requests.
    TooManyRequests,
    /// The server can't decide at present.
    ServiceUnavailable,
    /// The request wasn't handled in time.
    GatewayTimeout,
    /// The server has failed.
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
            Self::EventsGone => ("EVENTS_GONE", 410, "OUT_OF_RANGE"),
            Self::PayloadTooLarge => ("PAYLOAD_TOO_LARGE", 413, "INVALID_ARGUMENT"),
            Self::UnsupportedMediaType => ("UNSUPPORTED_MEDIA_TYPE", 415, "INVALID_ARGUMENT"),
            Self::TooManyRequests => ("TOO_MANY_REQUESTS", 429, "RESOURCE_EXHAUSTED"),
            Self::ServiceUnavailable => ("SERVICE_UNAVAILABLE", 503, "UNAVAILABLE"),
            Self::GatewayTimeout => ("GATEWAY_TIMEOUT", 504, "DEADLINE_EXCEEDED"),
            Self::InternalServerError => ("INTERNAL_SERVER_ERROR", 500, "INTERNAL"),
        }
    }

    /// `reason` of the `ErrorInfo` detail.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// HTTP status.
    pub const fn http(self) -> u16 {
        self.row().1
    }

    /// Name of the gRPC status.
    pub const fn grpc(self) -> &'static str {
        self.row().2
    }
}

/// A field of a request, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Name of the field.
    pub field: Cow<'static, str>,
    /// Problem, in words.
    pub description: String,
}

/// An error that is sent to the caller.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Reason.
    pub reason: Reason,
    /// Description in words. Names the field at fault, and never repeats a secret.
    pub message: Cow<'static, str>,
    /// Field of the request that is at fault.
    pub field: Option<Cow<'static, str>>,
    /// Further members of `metadata`, by name.
    pub metadata: Vec<(&'static str, String)>,
    /// Anchor on the page of errors; None: the name of the reason.
    pub anchor: Option<&'static str>,
    /// All that is wrong, if that is listed by field.
    pub violations: Vec<FieldViolation>,
}

impl ApiError {
    /// An error with a description.
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            message: message.into(),
            field: None,
            metadata: vec![],
            anchor: None,
            violations: vec![],
        }
    }

    /// An error of one field, described as `FIELD: PROBLEM`.
    pub fn field(field: impl Into<Cow<'static, str>>, problem: impl std::fmt::Display) -> Self {
        let field = field.into();
        let message = format!("{field}: {problem}");
        Self { field: Some(field), ..Self::new(Reason::BadRequest, message) }
    }

    /// An error of several fields, described as `FIELD: PROBLEM; FIELD: PROBLEM`.
    pub fn fields(violations: Vec<FieldViolation>) -> Self {
        let listed = violations.iter().map(|one| format!("{}: {}", one.field, one.description));
        let message = listed.collect::<Vec<_>>().join("; ");
        let field = violations.first().map(|first| first.field.clone());
        Self { field, violations, ..Self::new(Reason::BadRequest, message) }
    }

    /// JSON body of the response (AIP-193) to the request with this id, which may be empty.
    pub fn to_json(&self, request_id: &str) -> serde_json::Value {
        let branding = BRANDING.get();
        let mut metadata = serde_json::Map::new();
        if let Some(field) = &self.field {
            metadata.insert("field".to_owned(), field.clone().into());
        }
        for (name, value) in &self.metadata {
            metadata.insert((*name).to_owned(), value.clone().into());
        }
        if let Some(url) = branding.and_then(|branding| branding.docs_url.as_ref()) {
            let anchor = self.anchor.unwrap_or(self.reason.name());
            metadata.insert("docs_url".to_owned(), format!("{url}#{anchor}").into());
        }
        if !request_id.is_empty() {
            metadata.insert("request_id".to_owned(), request_id.into());
        }
        let mut details = vec![serde_json::json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": self.reason.name(),
            "domain": branding.map_or(DOMAIN, |branding| branding.domain.as_str()),
            "metadata": metadata,
        })];
        if !self.violations.is_empty() {
            let listed = self.violations.iter();
            let listed =
                listed.map(|one| serde_json::json!({ "field": one.field, "description": one.description }));
            details.push(serde_json::json!({
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "field_violations": listed.collect::<Vec<_>>(),
            }));
        }
        serde_json::json!({ "error": {
            "code": self.reason.http(),
            "status": self.reason.grpc(),
            "message": self.message,
            "details": details,
        }})
    }
}
