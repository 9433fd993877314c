//! All operations of the API, in the order of the description.

use schemars::{Schema, SchemaGenerator, json_schema};

use super::components::{GetJwksResponse, Health, Revocation, SelfRevokeApiKeyResponse, Updated, any_object};
use super::listing::LISTING;
use super::operation::{Access, Answer, Header, Operation, Parameter, ParameterLocation, Tag, Verb, of};
use crate::caller::Role;
use crate::http::wire::{
    BatchImportBody, BatchImportOut, BatchVerifyBody, BatchVerifyOut, DeriveBody, DeriveOut, ImportBody,
    ImportedKey, IssueBody, IssueOut, KeyOut, ListImportedOut, ListIssuedOut, MAX_MASK, RotateBody,
    RotateOut, SelfRevokeRequest, VerifyBody, VerifyOut,
};

/// Path of the report on one's own key.
pub(crate) const SELF_USAGE_PATH: &str = "/v2alpha1/usage:self";

/// Returns whether a path is that of a health check.
pub(crate) fn is_health(path: &str) -> bool {
    [ALIVE.path, READY.path].contains(&path)
}

/// Returns whether a path needs no authentication on any plane.
pub(crate) fn is_public(path: &str) -> bool {
    is_health(path) || [SELF_REVOKE.path, JWKS.path, SELF_USAGE_PATH].contains(&path)
}

/// Issue a key.
pub(crate) const ISSUE: Operation = Operation {
    verb: Verb::Post,
    access: Access::From(Role::Issuer),
    path: "/v2alpha1/admin/issuedApiKeys",
    id: "adminIssueApiKey",
    tag: Tag::ApiKeys,
    summary: "Issue a key",
    description: "Creates a key and returns its secret, which is not stored. A repeated request with the same `request_id` returns the first key; its secret only to the same caller, within `idempotency.reveal_for` and while the key is unused.",
    parameters: &[],
    body: Some(of::<IssueBody>),
    answer: Answer {
        status: "201",
        description: "The new key.",
        schema: Some(of::<IssueOut<'static>>),
        headers: &[WARNING],
    },
};

/// List issued keys.
pub(crate) const LIST_ISSUED: Operation = Operation {
    verb: Verb::Get,
    access: Access::From(Role::Viewer),
    path: "/v2alpha1/admin/issuedApiKeys",
    id: "adminListIssuedApiKeys",
    tag: Tag::ApiKeys,
    summary: "List issued keys",
    description: "Lists issued keys, the oldest first.",
    parameters: LISTING,
    body: None,
    answer: Answer {
        status: "200",
        description: "A page of keys.",
        schema: Some(of::<ListIssuedOut<'static>>),
        headers: &[],
    },
};

/// Get an issued key.
pub(crate) const GET_ISSUED: Operation = Operation {
    verb: Verb::Get,
    access: Access::From(Role::Viewer),
    path: "/v2alpha1/admin/issuedApiKeys/{key_id}",
    id: "adminGetIssuedApiKey",
    tag: Tag::ApiKeys,
    summary: "Get an issued key",
    description: "Returns a key, without its secret.",
    parameters: &[KEY_ID],
    body: None,
    answer: Answer {
        status: "200",
        description: "The key.",
        schema: Some(of::<KeyOut<'static>>),
        headers: &[],
    },
};

/// Update an issued key.
pub(crate) const UPDATE_ISSUED: Operation = Operation {
    verb: Verb::Patch,
    access: Access::From(Role::Issuer),
    path: "/v2alpha1/admin/issuedApiKeys/{issued_api_key.key_id}",
    id: "adminUpdateIssuedApiKey",
    tag: Tag::ApiKeys,
    summary: "Update an issued key",
    description: "Updates the fields in `update_mask` or, without one, the fields that the body sets (AIP-134). The body is the key, or the key in a member `issued_api_key`.",
    parameters: &[Parameter { name: "issued_api_key.key_id", ..KEY_ID }, UPDATE_MASK],
    body: Some(of::<Updated<0>>),
    answer: Answer {
        status: "200",
        description: "The updated key.",
        schema: Some(of::<KeyOut<'static>>),
        headers: &[EPOCH, WARNING],
    },
};

/// Rotate an issued key.
pub(crate) const ROTATE_ISSUED: Operation = Operation {
    verb: Verb::Post,
    access: Access::From(Role::Issuer),
    path: "/v2alpha1/admin/issuedApiKeys/{key_id}:rotate",
    id: "adminRotateIssuedApiKey",
    tag: Tag::ApiKeys,
    summary: "Rotate an issued key",
    description: "Creates a new key that replaces an old one. The old one is revoked at once or after `grace_period`. Fields that the body leaves out are inherited. A repeated request with the same `request_id` gets the same answer, if it comes from the same caller, within `idempotency.reveal_for` and while the new key is unused. Any other rotation of that key is 409; `metadata.replaced_by` of the error names the new key.",
    parameters: &[KEY_ID],
    body: Some(of::<RotateBody>),
    answer: Answer {
        status: "201",
        description: "The new key, and the old one.",
        schema: Some(of::<RotateOut<'static>>),
        headers: &[EPOCH, WARNING],
    },
};

/// Revoke an issued key.
pub(crate) const REVOKE_ISSUED: Operation = Operation {
    verb: Verb::Post,
    access: Access::From(Role::Issuer),
    path: "/v2alpha1/admin/issuedApiKeys/{key_id}:revoke",
    id: "adminRevokeIssuedApiKey",
    tag: Tag::ApiKeys,
    summary: "Revoke an issued key",
    description: "Revokes a key for good. Revoking it again changes nothing; if it was revoked for another reason, a `Warning` header says so.",
    parameters: &[KEY_ID],
    body: Some(of::<Revocation<0>>),
    answer: Answer {
        status: "204",
        description: "The key is revoked.",
        schema: None,
        headers: &[EPOCH, WARNING],
    },
};

/// Import a key.
pub(crate) const IMPORT: Operation = Operation {
    verb: Verb::Post,
    access: Access::From(Role::Issuer),
    path: "/v2alpha1/admin/importedApiKeys",
    id: "adminImportApiKey",
    tag: Tag::ApiKeys,
    summary: "Import a key",
    description: "Imports a key that was made elsewhere, or its SHA-256 or SHA-512 digest. Only a hash is stored. A key whose digest is imported works at once. When it is first used, its id becomes that of an imported key, with the earlier id in `replaces`; the earlier id stays valid here.",
    parameters: &[],
    body: Some(of::<ImportBody>),
    answer: Answer {
        status: "201",
        description: "The key.",
        schema: Some(of::<ImportedKey>),
        headers: &[EPOCH, WARNING],
    },
};

/// Import many keys.
pub(crate) const IMPORT_BATCH: Operation = Operation {
    verb: Verb::Post,
    access: Access::From(Role::Issuer),
    path: "/v2alpha1/admin/importedApiKeys:batchCreate",
    id: "adminBatchCreateImportedApiKeys",
    tag: Tag::ApiKeys,
    summary: "Import many keys",
    description: "Imports each key by itself and returns one result per key. If none can be imported, returns the error of the first, unless `report_all` is set.",
    parameters: &[],
    body: Some(of::<BatchImportBody>),
    answer: Answer {
        status: "200",
        description: "One result per key.",
        schema: Some(of::<BatchImportOut<'static>>),
        headers: &[EPOCH, WARNING],
    },
};

/// List imported keys.
pub(crate) const LIST_IMPORTED: Operation = Operation {
    verb: Verb::Get,
    access: Access::From(Role::Viewer),
    path: "/v2alpha1/admin/importedApiKeys",
    id: "adminListImportedApiKeys",
    tag: Tag::ApiKeys,
    summary: "List imported keys",
    description: "Lists imported keys, the oldest first.",
    parameters: LISTING,
    body: None,
    answer: Answer {
        status: "200",
        description: "A page of keys.",
        schema: Some(of::<ListImportedOut<'static>>),
        headers: &[],
    },
};

/// Get an imported key.
pub(crate) const GET_IMPORTED: Operation = Operation {
    verb: Verb::Get,
    access: Access::From(Role::Viewer),
    path: "/v2alpha1/admin/importedApiKeys/{key_id}",
    id: "adminGetImportedApiKey",
    tag: Tag::ApiKeys,
    summary: "Get an imported key",
    description: "Returns a key.",
    parameters: &[KEY_ID],
    body: None,
    answer: Answer { status: "200", description: "The key.", schema: Some(of::<ImportedKey>), headers: &[] },
};

/// Update an imported key.
pub(crate) const UPDATE_IMPORTED: Operation = Operation {
    verb: Verb::Patch,
    access: Access::From(Role::Issuer),
    path: "/v2alpha1/admin/importedApiKeys/{imported_api_key.key_id}",
    id: "adminUpdateImportedApiKey",
    tag: Tag::ApiKeys,
    summary: "Update an imported key",
    description: "Updates the fields in `update_mask` or, without one, the fields that the body sets (AIP-134). The body is the key, or the key in a member `imported_api_key`.",
    parameters: &[Parameter { name: "imported_api_key.key_id", ..KEY_ID }, UPDATE_MASK],
    body: Some(of::<Updated<1>>),
    answer: Answer {
        status: "200",
        description: "The updated key.",
        schema: Some(of::<ImportedKey>),
        headers: &[EPOCH, WARNING],
    },
};

/// Revoke an imported key.
pub(crate) const REVOKE_IMPORTED: Operation = Operation {
    verb: Verb::Post,
    access: Access::From(Role::Issuer),
    path: "/v2alpha1/admin/importedApiKeys/{key_id}:revoke",
    id: "adminRevokeImportedApiKey",
    tag: Tag::ApiKeys,
    summary: "Revoke an imported key",
    description: "Revokes a key for good. Revoking it again changes nothing; if it was revoked for another reason, a `Warning` header says so.",
    parameters: &[KEY_ID],
    body: Some(of::<Revocation<1>>),
    answer: Answer {
        status: "204",
        description: "The key is revoked.",
        schema: None,
        headers: &[EPOCH, WARNING],
    },
};

/// Delete an imported key.
pub(crate) const DELETE_IMPORTED: Operation = Operation {
    verb: Verb::Delete,
    access: Access::From(Role::Admin),
    path: "/v2alpha1/admin/importedApiKeys/{key_id}",
    id: "adminDeleteImportedApiKey",
    tag: Tag::ApiKeys,
    summary: "Delete an imported key",
    description: "Deletes a key and all its data.",
    parameters: &[KEY_ID],
    body: None,
    answer: Answer { status: "204", description: "The key is deleted.", schema: None, headers: &[EPOCH] },
};

/// Revoke a key of either kind.
pub(crate) const REVOKE_ANY: Operation = Operation {
    verb: Verb::Post,
    access: Access::From(Role::Issuer),
    path: "/v2alpha1/admin/apiKeys/{key_id}:revoke",
    id: "adminRevokeApiKey",
    tag: Tag::ApiKeys,
    summary: "Revoke a key of either kind",
    description: "Revokes an issued or imported key for good. Revoking it again changes nothing; if it was revoked for another reason, a `Warning` header says so.",
    parameters: &[KEY_ID],
    body: Some(of::<Revocation<2>>),
    answer: Answer {
        status: "204",
        description: "The key is revoked.",
        schema: None,
        headers: &[EPOCH, WARNING],
    },
};

/// Verify a credential.
pub(crate) const VERIFY: Operation = Operation {
    verb: Verb::Post,
    access: Access::From(Role::Viewer),
    path: "/v2alpha1/admin/apiKeys:verify",
    id: "adminVerifyApiKey",
    tag: Tag::ApiKeys,
    summary: "Verify a credential",
    description: "Verifies a key or a derived token. The status is 200 whatever the result.",
    parameters: FRESHNESS,
    body: Some(of::<VerifyBody>),
    answer: Answer {
        status: "200",
        description: "The result.",
        schema: Some(of::<VerifyOut<'static>>),
        headers: &[CACHE, RATE_LIMIT_POLICY, RATE_LIMIT, RETRY_AFTER, WARNING],
    },
};

/// Verify many credentials.
pub(crate) const VERIFY_BATCH: Operation = Operation {
    verb: Verb::Post,
    access: Access::From(Role::Viewer),
    path: "/v2alpha1/admin/apiKeys:batchVerify",
    id: "adminBatchVerifyApiKeys",
    tag: Tag::ApiKeys,
    summary: "Verify many credentials",
    description: "Verifies each credential by itself. The results are in the order of the request.",
    parameters: FRESHNESS,
    body: Some(of::<BatchVerifyBody>),
    answer: Answer {
        status: "200",
        description: "The results.",
        schema: Some(of::<BatchVerifyOut<'static>>),
        headers: &[CACHE, WARNING],
    },
};

/// Derive a token.
pub(crate) const DERIVE: Operation = Operation {
    verb: Verb::Post,
    access: Access::From(Role::Issuer),
    path: "/v2alpha1/admin/apiKeys:derive",
    id: "adminDeriveToken",
    tag: Tag::ApiKeys,
    summary: "Derive a token",
    description: "Creates a short-lived token from a key. Verification needs no lookup, and the token stays valid until it expires, even if the key is revoked.",
    parameters: &[],
    body: Some(of::<DeriveBody>),
    answer: Answer { status: "200", description: "The token.", schema: Some(of::<DeriveOut>), headers: &[] },
};

/// Revoke one's own key.
pub(crate) const SELF_REVOKE: Operation = Operation {
    verb: Verb::Post,
    access: Access::Anyone,
    path: "/v2alpha1/apiKeys:selfRevoke",
    id: "revokeApiKey",
    tag: Tag::ApiKeys,
    summary: "Revoke one's own key",
    description: "Revokes the presented key for good. Any holder of the key may do so.",
    parameters: &[],
    body: Some(of::<SelfRevokeRequest>),
    answer: Answer {
        status: "200",
        description: "The key is revoked.",
        schema: Some(of::<SelfRevokeApiKeyResponse>),
        headers: &[EPOCH],
    },
};

/// Get the public keys.
pub(crate) const JWKS: Operation = Operation {
    verb: Verb::Get,
    access: Access::Anyone,
    path: "/v2alpha1/derivedKeys/jwks.json",
    id: "getJwks",
    tag: Tag::ApiKeys,
    summary: "Get the public keys",
    description: "Returns the keys that verify derived JWTs (RFC 7517).",
    parameters: &[],
    body: None,
    answer: Answer {
        status: "200",
        description: "The key set.",
        schema: Some(of::<GetJwksResponse>),
        headers: &[],
    },
};

/// Liveness.
pub(crate) const ALIVE: Operation = Operation {
    verb: Verb::Get,
    access: Access::Anyone,
    path: "/health/alive",
    id: "isAlive",
    tag: Tag::Service,
    summary: "Is the process alive?",
    description: "Succeeds while the process runs.",
    parameters: &[],
    body: None,
    answer: Answer { status: "200", description: "OK.", schema: Some(of::<Health>), headers: &[] },
};

/// Readiness.
pub(crate) const READY: Operation = Operation {
    verb: Verb::Get,
    access: Access::Anyone,
    path: "/health/ready",
    id: "isReady",
    tag: Tag::Service,
    summary: "Is the service ready?",
    description: "Returns 200 while the database answers, else 503.",
    parameters: &[],
    body: None,
    answer: Answer { status: "200", description: "OK.", schema: Some(of::<Health>), headers: &[] },
};

/// This description.
pub(crate) const DESCRIPTION: Operation = Operation {
    verb: Verb::Get,
    access: Access::From(Role::Viewer),
    path: "/openapi.json",
    id: "getOpenApi",
    tag: Tag::Service,
    summary: "Get this description",
    description: "Returns this description of the API, in OpenAPI 3.0.",
    parameters: &[],
    body: None,
    answer: Answer { status: "200", description: "The description.", schema: Some(any_object), headers: &[] },
};

pub(super) const KEY_ID: Parameter = Parameter {
    name: "key_id",
    location: ParameterLocation::Path,
    description: "Id of the key.",
    schema: of::<String>,
};

const UPDATE_MASK: Parameter = Parameter {
    name: "update_mask",
    location: ParameterLocation::Query,
    description: "Fields to update, separated by commas: name, scopes, metadata, ip_restriction, rate_limit_policy; or * for all of these. Besides, role sets the scopes of a named set, and one of expire_time and ttl moves the end of the key, within the limits for new keys, and credits sets those of the key.",
    schema: |_| json_schema!({ "type": "string", "maxLength": MAX_MASK }),
};

const FRESHNESS: &[Parameter] = &[
    Parameter {
        name: "Cache-Control",
        location: ParameterLocation::Header,
        description: "`no-cache` reads the database instead of the cache. `no-store` doesn't write the cache either.",
        schema: of::<String>,
    },
    Parameter {
        name: "Pragma",
        location: ParameterLocation::Header,
        description: "`no-cache` is the same as in Cache-Control.",
        schema: of::<String>,
    },
    Parameter {
        name: "charge",
        location: ParameterLocation::Query,
        description: "`false` leaves the rate limits and the credits of the key as they are. The default is `true`.",
        schema: of::<bool>,
    },
    // Talos-Min-Epoch is left out. Programs that make up requests from the description would send
    // numbers that no Talos-Epoch header gave, and rightly get a 503.
];

pub(super) const EPOCH: Header = Header {
    name: "Talos-Epoch",
    description: "Number of the change, which verify accepts as `Talos-Min-Epoch`. Absent if nothing changed.",
    schema: epoch,
};

fn epoch(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[0-9]{1,19}$" })
}

const CACHE: Header = Header {
    name: "Ory-Talos-Cache",
    description: "HIT, MISS or SKIP: the part of the cache in the result.",
    schema: |_| json_schema!({ "type": "string", "enum": ["HIT", "MISS", "SKIP"] }),
};

const RATE_LIMIT_POLICY: Header = Header {
    name: "RateLimit-Policy",
    description: "Rate policies of the key, if it has some: `\"default\";q=100;w=60`.",
    schema: of::<String>,
};

const RATE_LIMIT: Header = Header {
    name: "RateLimit",
    description: "Remaining quota of the policy that is nearest to its end, if uses are counted: `\"default\";r=42`.",
    schema: of::<String>,
};

pub(super) const WARNING: Header = Header {
    name: "Warning",
    description: "What was done otherwise than the request may expect: `299 talos` and a text, such as about limits that aren't enforced.",
    schema: of::<String>,
};

const RETRY_AFTER: Header = Header {
    name: "Retry-After",
    description: "Seconds to wait after the quota is used up, or until the next refill of credits.",
    schema: of::<String>,
};
