//! Schemas of responses that the code writes without a struct.
#![allow(dead_code, reason = "these are read as schemas, never built")]

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::http::wire::{KeyBody, RevokeBody};

/// The public keys of a signer (RFC 7517).
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "GetJWKSResponse")]
pub(super) struct GetJwksResponse {
    /// The keys, as JSON Web Keys.
    keys: Vec<Map<String, Value>>,
    /// Never sent: the response is a JWK set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Map<String, Value>")]
    jwks: Option<Map<String, Value>>,
}

/// Empty: the HTTP status says all.
#[derive(Serialize, JsonSchema)]
pub(super) struct SelfRevokeApiKeyResponse {}

/// The state of the service.
#[derive(Serialize, JsonSchema)]
pub(super) struct Health {
    /// `ok` or `unavailable`.
    status: String,
}

/// An error (AIP-193).
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Error")]
pub(super) struct ErrorEnvelope {
    error: ErrorStatus,
}

/// The error.
#[derive(Serialize, JsonSchema)]
pub(super) struct ErrorStatus {
    /// The HTTP status.
    code: i32,
    /// The name of the gRPC status.
    status: String,
    /// Message for people. Begins with the field that is at fault, if any.
    message: String,
    /// Details for programs: what identifies the error, then all fields at fault if they are
    /// listed.
    details: Vec<ErrorDetail>,
}

/// A detail of an error.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum ErrorDetail {
    Info(ErrorInfo),
    BadRequest(BadRequest),
}

/// All fields at fault.
#[derive(Serialize, JsonSchema)]
pub(super) struct BadRequest {
    /// Always `type.googleapis.com/google.rpc.BadRequest`.
    #[serde(rename = "@type")]
    kind: String,
    /// The fields.
    field_violations: Vec<FieldViolation>,
}

/// A field at fault.
#[derive(Serialize, JsonSchema)]
pub(super) struct FieldViolation {
    /// Name of the field.
    field: String,
    /// Problem, for people.
    description: String,
}

/// Identifies the error.
#[derive(Serialize, JsonSchema)]
pub(super) struct ErrorInfo {
    /// Always `type.googleapis.com/google.rpc.ErrorInfo`.
    #[serde(rename = "@type")]
    kind: String,
    /// The name of the error, such as API_KEY_NOT_FOUND.
    reason: String,
    /// The domain of the error; `www.ory.com/talos` unless configured.
    domain: String,
    /// Details, such as the field that is at fault, and the id of the request.
    metadata: std::collections::BTreeMap<String, String>,
}

/// A gRPC status. Errors come as `Error`; existing clients know this name.
#[derive(Serialize, JsonSchema)]
pub(super) struct Status {
    /// The gRPC status code.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32")]
    code: Option<i32>,
    /// Details for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<Any>")]
    details: Option<Vec<Any>>,
    /// Message for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    message: Option<String>,
}

/// Any message, with the name of its type.
#[derive(Serialize, JsonSchema)]
#[schemars(extend("additionalProperties" = {}))]
pub(super) struct Any {
    /// A URL that names the type.
    #[serde(rename = "@type", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    kind: Option<String>,
}

/// JSON null.
pub(super) struct NullValue;

impl JsonSchema for NullValue {
    fn schema_name() -> Cow<'static, str> {
        "NullValue".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": ["NULL_VALUE"], "default": "NULL_VALUE" })
    }
}

/// Returns the schema of an object without further restrictions.
pub(super) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object" })
}

/// Body of a revocation. Has one name for each kind: issued (0), imported (1) and any (2).
pub(super) struct Revocation<const KIND: usize>;

impl<const KIND: usize> JsonSchema for Revocation<KIND> {
    fn schema_name() -> Cow<'static, str> {
        ["AdminRevokeIssuedApiKeyBody", "AdminRevokeImportedApiKeyBody", "AdminRevokeApiKeyBody"][KIND].into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        RevokeBody::json_schema(generator)
    }
}

/// Body of an update of an issued (0) or imported (1) key: the key, or an object that wraps it.
pub(super) struct Updated<const KIND: usize>;

impl<const KIND: usize> JsonSchema for Updated<KIND> {
    fn schema_name() -> Cow<'static, str> {
        ["AdminUpdateIssuedApiKeyRequest", "AdminUpdateImportedApiKeyRequest"][KIND].into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = KeyBody::json_schema(generator);
        let key = schema.clone();
        if let Some(Value::Object(properties)) = schema.get_mut("properties") {
            properties.insert(["issued_api_key", "imported_api_key"][KIND].to_owned(), key.into());
        }
        schema
    }
}
