//! Enumerations of the API, for its description.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::key::verdict::Denial;
use crate::key::{self, RateEnforcer, RateScope, Status, Visibility};

/// Declares an enumeration. The first name is the unspecified value.
macro_rules! words {
    ($set:ident: $description:literal, $words:expr) => {
        #[doc = $description]
        pub(super) struct $set;

        impl JsonSchema for $set {
            fn schema_name() -> Cow<'static, str> {
                stringify!($set).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let mut words: Vec<&str> = $words.into();
                let mut seen = vec![];
                words.retain(|word| !seen.contains(word) && { seen.push(*word); true });
                let none = words.first().copied();
                json_schema!({ "type": "string", "description": $description, "enum": words, "default": none })
            }
        }
    };
}

words!(
    KeyStatus: "The state of a key.",
    [&["KEY_STATUS_UNSPECIFIED"][..], &Status::ALL.map(Status::name)].concat()
);
words!(
    KeyVisibility: "The visibility of a key: for servers only, or publishable. UNSPECIFIED is the same as absent.",
    [&["KEY_VISIBILITY_UNSPECIFIED"][..], &Visibility::ALL.map(Visibility::name)].concat()
);
words!(
    RevocationReason: "The reason for a revocation. PRIVILEGE_WITHDRAWN is for admins only.",
    key::RevocationReason::ALL.map(key::RevocationReason::name)
);
words!(
    RateLimitScope: "The uses that a rate limit counts together: those of the key, or of all keys of its actor.",
    RateScope::ALL.map(RateScope::name)
);
words!(
    RateLimitEnforcer: "The program that enforces a rate limit: Talos, or Envoy's own filter by the dynamic metadata.",
    RateEnforcer::ALL.map(RateEnforcer::name)
);
words!(
    TokenAlgorithm: "The kind of a derived token. UNSPECIFIED means a JWT.",
    ["TOKEN_ALGORITHM_UNSPECIFIED", "TOKEN_ALGORITHM_JWT", "TOKEN_ALGORITHM_MACAROON"]
);
words!(
    VerificationErrorCode: "The reason for which a credential isn't valid.",
    [
        &["VERIFICATION_ERROR_UNSPECIFIED"][..],
        &Denial::ALL.map(Denial::error_code),
        &[
            "VERIFICATION_ERROR_INVALID_FORMAT",
            "VERIFICATION_ERROR_INTERNAL",
            "VERIFICATION_ERROR_RATE_LIMITED",
        ],
    ]
    .concat()
);
words!(
    BatchCreateImportedApiKeysErrorCode: "The reason for which one key of a batch wasn't imported.",
    [
        "BATCH_CREATE_IMPORTED_API_KEYS_ERROR_UNSPECIFIED",
        "BATCH_CREATE_IMPORTED_API_KEYS_ERROR_INVALID_ARGUMENT",
        "BATCH_CREATE_IMPORTED_API_KEYS_ERROR_ALREADY_EXISTS",
        "BATCH_CREATE_IMPORTED_API_KEYS_ERROR_FAILED_PRECONDITION",
        "BATCH_CREATE_IMPORTED_API_KEYS_ERROR_INTERNAL",
        "BATCH_CREATE_IMPORTED_API_KEYS_ERROR_RESOURCE_EXHAUSTED",
    ]
);
