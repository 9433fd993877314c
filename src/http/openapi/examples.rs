//! Examples of requests and responses, one for each operation of the API.
//!
//! Credentials in them are words that no scanner takes for secrets, and all of them describe the
//! same two keys. `tests/it/admin/examples.rs` sends them to a server and compares its answers.

mod common;
mod following;
mod governing;
#[cfg(test)]
mod tests;

use serde_json::{Value, json};

use self::common::{
    Example, IMPORTED_HASH_ID, IMPORTED_ID, ISSUED_ID, RAW_KEY, ROTATED_ID, ROTATED_SECRET, SECRET, TOKEN,
    answered, both, nothing, with,
};
use self::following::{events, explain, whoami};
use self::governing::{check_policies, list_policies, preview_scopes};
use super::operation::{Access, Operation};
use super::{erasure, follow, operations, policies, state, status, usage};
use crate::error::{ApiError, Reason};

/// Id of an operation, and what makes its example.
type Entry = (&'static str, fn() -> Example);

/// Examples of all operations.
const EXAMPLES: &[Entry] = &[
    (operations::ISSUE.id, issue),
    (operations::LIST_ISSUED.id, list_issued),
    (operations::GET_ISSUED.id, || answered(issued_key())),
    (operations::UPDATE_ISSUED.id, update_issued),
    (operations::ROTATE_ISSUED.id, rotate),
    (operations::REVOKE_ISSUED.id, revoke),
    (erasure::DELETE_ISSUED.id, nothing),
    (operations::IMPORT.id, || both(import_request(), imported_key())),
    (operations::IMPORT_BATCH.id, import_batch),
    (operations::LIST_IMPORTED.id, list_imported),
    (operations::GET_IMPORTED.id, || answered(imported_key())),
    (operations::UPDATE_IMPORTED.id, update_imported),
    (operations::REVOKE_IMPORTED.id, revoke),
    (operations::DELETE_IMPORTED.id, nothing),
    (operations::REVOKE_ANY.id, withdraw),
    (erasure::DELETE_ACTOR.id, erase_actor),
    (operations::VERIFY.id, verify),
    (operations::VERIFY_BATCH.id, verify_batch),
    (operations::DERIVE.id, derive),
    (operations::SELF_REVOKE.id, self_revoke),
    (operations::JWKS.id, jwks),
    (operations::ALIVE.id, || answered(json!({ "status": "ok" }))),
    (operations::READY.id, || answered(json!({ "status": "ok" }))),
    (operations::DESCRIPTION.id, || answered(json!({ "openapi": "3.0.3", "paths": {} }))),
    (status::STATUS.id, || answered(json!({ "mode": "fresh", "problems": [], "bound_seconds": 5.0 }))),
    (usage::USAGE.id, usage_report),
    (usage::SELF_USAGE.id, self_usage),
    (follow::EVENTS.id, events),
    (follow::EXPLAIN.id, explain),
    (follow::WHOAMI.id, whoami),
    (policies::LIST_POLICIES.id, list_policies),
    (policies::CHECK_POLICIES.id, check_policies),
    (policies::PREVIEW_SCOPES.id, preview_scopes),
    (state::SUSPEND_ISSUED.id, || suspend(issued_key())),
    (state::RESUME_ISSUED.id, || both(json!({}), issued_key())),
    (state::FINISH_ISSUED.id, || {
        both(json!({}), with(issued_key(), json!({ "supersede_time": "2026-02-01T00:00:00Z" })))
    }),
    (state::SUSPEND_IMPORTED.id, || suspend(imported_key())),
    (state::RESUME_IMPORTED.id, || both(json!({}), imported_key())),
    (state::GET_ACTOR.id, || answered(actor())),
    (state::UPDATE_ACTOR.id, || both(json!({ "display_name": "Alice" }), actor())),
    (state::SUSPEND_ACTOR.id, || suspend(actor())),
    (state::RESUME_ACTOR.id, || both(json!({}), actor())),
    (super::page::DOCS.id, || answered("<!doctype html>…".into())),
];

/// Returns the example of an operation. A test holds that each has one.
pub(super) fn example_of(operation: &Operation) -> Option<Example> {
    EXAMPLES.iter().find(|(id, _)| *id == operation.id).map(|(_, example)| example())
}

/// Returns an example of a parameter.
pub(super) fn parameter_example(operation: &Operation, name: &str) -> Option<Value> {
    let id = if operation.path.contains("importedApiKeys") { IMPORTED_ID } else { ISSUED_ID };
    Some(match name {
        "key_id" | "issued_api_key.key_id" | "imported_api_key.key_id" => id.into(),
        "actor_id" => "alice".into(),
        "force" => true.into(),
        "update_mask" if operation.path.contains("/actors/") => "display_name".into(),
        "update_mask" => "name".into(),
        "order_by" => "create_time desc".into(),
        "group_by" => "day,outcome".into(),
        "start_time" => "2025-12-27T00:00:00Z".into(),
        "end_time" => "2026-01-03T00:00:00Z".into(),
        "charge" => false.into(),
        "type" => "talos.key.revoked".into(),
        "after" => "4710-00000000000000ff".into(),
        "since" => "2026-01-02T00:00:00Z".into(),
        "wait" => "30s".into(),
        "query" => "billing".into(),
        "total" => true.into(),
        "Authorization" => "Bearer ory_ak_v1_EXAMPLE".into(),
        "filter" if operation.path.contains("usage") => "actor_id = \"alice\"".into(),
        "page_size" => 50.into(),
        "page_token" => "EXAMPLE_PAGE_TOKEN".into(),
        "filter" => "actor_id = \"alice\" AND status = KEY_STATUS_ACTIVE".into(),
        "Cache-Control" | "Pragma" => "no-cache".into(),
        _ => return None,
    })
}

/// Returns an example of a response header.
pub(super) fn header_example(name: &str) -> Option<Value> {
    Some(match name {
        "Talos-Epoch" => "4711".into(),
        "Talos-Next-After" => "4711-00000000000000fe".into(),
        "Ory-Talos-Cache" => "HIT".into(),
        "RateLimit-Policy" => "\"default\";q=100;w=60".into(),
        "RateLimit" => "\"default\";r=42".into(),
        "Retry-After" => "17".into(),
        "Warning" => "299 talos \"rate_limit.enabled is false: the limits of this key are stored and reported, not enforced\"".into(),
        _ => return None,
    })
}

/// Returns the error that a caller of the operation sees most.
pub(super) fn error_example(operation: &Operation) -> Value {
    let error = if operation.path.contains("key_id}") {
        ApiError::new(Reason::ApiKeyNotFound, "there is no such API key")
    } else if operation.body.is_some() {
        ApiError::field("nmae", "is not a known field")
    } else if operation.access == Access::Anyone {
        ApiError::new(Reason::MethodNotAllowed, "this resource has no such method")
    } else {
        ApiError::new(Reason::Unauthorized, "the caller is not authenticated")
    };
    error.to_json("4f1c")
}

fn issued_key() -> Value {
    json!({
        "key_id": ISSUED_ID,
        "name": "nightly export",
        "actor_id": "alice",
        "scopes": ["invoices:read"],
        "metadata": { "team": "billing" },
        "status": "KEY_STATUS_ACTIVE",
        "visibility": "KEY_VISIBILITY_SECRET",
        "rate_limit_policy": { "quota": "100", "unit": "requests", "window": "60s" },
        "credits": credits("5000"),
        "create_time": "2026-01-02T03:04:05Z",
        "update_time": "2026-01-02T03:04:05Z",
        "expire_time": "2026-04-02T03:04:05Z",
    })
}

/// Returns the credits of the issued key.
fn credits(remaining: &str) -> Value {
    let refill = json!({ "amount": "5000", "every": "month", "at": "1 03:00" });
    json!({ "remaining": remaining, "refill": refill })
}

fn imported_key() -> Value {
    json!({
        "key_id": IMPORTED_ID,
        "name": "legacy export",
        "actor_id": "alice",
        "scopes": ["invoices:read"],
        "status": "KEY_STATUS_ACTIVE",
        "visibility": "KEY_VISIBILITY_SECRET",
        "ip_restriction": { "allowed_cidrs": ["192.0.2.0/24", "2001:db8::/32"] },
        "create_time": "2026-01-02T03:04:05Z",
        "update_time": "2026-01-02T03:04:05Z",
        "expire_time": "2026-04-02T03:04:05Z",
    })
}

fn issue() -> Example {
    let request = json!({
        "name": "nightly export",
        "actor_id": "alice",
        "scopes": ["invoices:read"],
        "ttl": "90d",
        "metadata": { "team": "billing" },
        "rate_limit_policy": { "quota": "100", "unit": "requests", "window": "60s" },
        "credits": credits("5000"),
        "request_id": "export-1",
    });
    both(request, json!({ "issued_api_key": issued_key(), "secret": SECRET }))
}

fn list_issued() -> Example {
    answered(json!({ "issued_api_keys": [issued_key()], "next_page_token": "" }))
}

fn update_issued() -> Example {
    let changed = json!({ "name": "hourly export" });
    let updated = with(issued_key(), json!({ "update_time": "2026-01-03T00:00:00Z" }));
    both(changed.clone(), with(updated, changed))
}

fn rotate() -> Example {
    let time = "2026-02-01T00:00:00Z";
    let new = json!({ "key_id": ROTATED_ID, "create_time": time, "update_time": time });
    let old = json!({ "update_time": time, "supersede_time": "2026-02-02T00:00:00Z" });
    let response = json!({
        "issued_api_key": with(issued_key(), new),
        "old_issued_api_key": with(issued_key(), old),
        "secret": ROTATED_SECRET,
    });
    both(json!({ "grace_period": "24h", "request_id": "rotate-1" }), response)
}

fn revoke() -> Example {
    Example { request: Some(json!({ "reason": "REVOCATION_REASON_KEY_COMPROMISE" })), response: None }
}

fn withdraw() -> Example {
    let request =
        json!({ "reason": "REVOCATION_REASON_PRIVILEGE_WITHDRAWN", "description": "the contract has ended" });
    Example { request: Some(request), response: None }
}

fn erase_actor() -> Example {
    answered(json!({ "issued_api_key_count": 2, "imported_api_key_count": 1, "has_more": false }))
}

fn import_request() -> Value {
    json!({
        "raw_key": RAW_KEY,
        "name": "legacy export",
        "actor_id": "alice",
        "scopes": ["invoices:read"],
        "ttl": "90d",
        "ip_restriction": { "allowed_cidrs": ["192.0.2.0/24", "2001:db8::/32"] },
    })
}

/// A key of which only a hash is known.
fn import_hash_request() -> Value {
    json!({
        "hash": { "algorithm": "sha256", "encoding": "hex", "value": "1b".repeat(32) },
        "name": "legacy reports",
        "actor_id": "alice",
    })
}

fn import_batch() -> Example {
    let failed = json!({
        "index": 2,
        "error_code": "BATCH_CREATE_IMPORTED_API_KEYS_ERROR_ALREADY_EXISTS",
        "error_message": format!("this API key has been imported already, as {IMPORTED_HASH_ID}"),
    });
    let of_hash = json!({
        "key_id": IMPORTED_HASH_ID,
        "name": "legacy reports",
        "actor_id": "alice",
        "scopes": [],
        "status": "KEY_STATUS_ACTIVE",
        "visibility": "KEY_VISIBILITY_SECRET",
        "create_time": "2026-01-02T03:04:05Z",
        "update_time": "2026-01-02T03:04:05Z",
    });
    let response = json!({
        "results": [
            { "index": 0, "imported_api_key": imported_key() },
            { "index": 1, "imported_api_key": of_hash },
            failed,
        ],
        "success_count": 2,
        "failure_count": 1,
    });
    both(json!({ "requests": [import_request(), import_hash_request(), import_request()] }), response)
}

fn list_imported() -> Example {
    answered(json!({ "imported_api_keys": [imported_key()], "next_page_token": "" }))
}

fn update_imported() -> Example {
    let changed = json!({ "name": "old export" });
    let updated = with(imported_key(), json!({ "update_time": "2026-01-03T00:00:00Z" }));
    both(changed.clone(), with(updated, changed))
}

/// Returns the result for the issued key.
fn verified() -> Value {
    json!({
        "is_valid": true,
        "key_id": ISSUED_ID,
        "actor_id": "alice",
        "scopes": ["invoices:read"],
        "audiences": [],
        "metadata": { "team": "billing" },
        "status": "KEY_STATUS_ACTIVE",
        "visibility": "KEY_VISIBILITY_SECRET",
        "expire_time": "2026-04-02T03:04:05Z",
        "issuer": "https://talos.example.com",
        "rate_limit_policy": { "quota": "100", "unit": "requests", "window": "60s" },
        "rate_limit_remaining": "99",
        "rate_limit_reset_time": "2026-01-02T03:04:06Z",
        "credits": credits("4999"),
    })
}

fn verify() -> Example {
    both(json!({ "credential": SECRET }), verified())
}

fn verify_batch() -> Example {
    let unknown = json!({
        "is_valid": false,
        "error_code": "VERIFICATION_ERROR_NOT_FOUND",
        "error_message": "the credential is not known",
        "scopes": [],
        "audiences": [],
    });
    let request = json!({ "requests": [{ "credential": SECRET }, { "credential": "EXAMPLE_UNKNOWN" }] });
    both(request, json!({ "results": [verified(), unknown] }))
}

fn derive() -> Example {
    let request = json!({
        "credential": SECRET,
        "algorithm": "TOKEN_ALGORITHM_JWT",
        "ttl": "5m",
        "scopes": ["invoices:read"],
        "audiences": ["billing"],
        "custom_claims": { "region": "eu" },
    });
    let response = json!({ "token": {
        "token": TOKEN,
        "claims": { "sub": ISSUED_ID, "act": "alice", "scp": ["invoices:read"], "region": "eu" },
        "expire_time": "2026-01-02T03:09:05Z",
        "scopes": ["invoices:read"],
        "audiences": ["billing"],
    }});
    both(request, response)
}

fn self_revoke() -> Example {
    both(json!({ "credential": SECRET, "reason": "REVOCATION_REASON_KEY_COMPROMISE" }), json!({}))
}

fn jwks() -> Example {
    let key = json!({
        "kty": "OKP",
        "crv": "Ed25519",
        "alg": "EdDSA",
        "use": "sig",
        "kid": "2026-01",
        "x": "EXAMPLE_PUBLIC_KEY",
    });
    answered(json!({ "keys": [key] }))
}

fn usage_report() -> Example {
    let row = json!({ "start_time": "2026-01-02T00:00:00Z", "outcome": "allow", "count": 1284 });
    answered(json!({
        "start_time": "2025-12-27T00:00:00Z",
        "end_time": "2026-01-03T00:00:00Z",
        "rows": [row],
        "next_page_token": "",
    }))
}

fn self_usage() -> Example {
    let row = json!({ "outcome": "allow", "count": 1284 });
    answered(json!({
        "key_id": ISSUED_ID,
        "key": { "name": "nightly export", "scopes": ["invoices:read"], "create_time": "2026-01-02T03:04:05Z" },
        "first_used_time": "2026-01-02T03:05:00Z",
        "last_used_time": "2026-01-02T09:41:00Z",
        "last_used_address": "192.0.2.7",
        "start_time": "2025-12-27T00:00:00Z",
        "end_time": "2026-01-03T00:00:00Z",
        "rows": [row],
        "next_page_token": "",
    }))
}

fn suspend(suspended: Value) -> Example {
    let request = json!({ "reason": "unpaid invoice", "until": "2026-02-01T00:00:00Z" });
    let suspension = with(request.clone(), json!({ "suspended_at": "2026-01-03T00:00:00Z" }));
    both(request, with(suspended, json!({ "suspension": suspension })))
}

fn actor() -> Value {
    json!({
        "actor_id": "alice",
        "display_name": "Alice",
        "create_time": "2026-01-03T00:00:00Z",
        "update_time": "2026-01-03T00:00:00Z",
        "issued_api_key_count": 2,
        "imported_api_key_count": 1,
        "has_more": false,
    })
}
