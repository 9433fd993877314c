//! Examples of governing: checks of policies, previews of scopes.

use serde_json::json;

use super::common::{Example, ISSUED_ID, answered, both};

pub(super) fn list_policies() -> Example {
    let policy = json!({
        "name": "short-lived",
        "match": { "visibility": "secret" },
        "max_ttl": "720h",
        "require_ttl": true,
        "required_metadata": [],
        "require_ip_restriction": false,
        "apply": "new",
    });
    answered(json!({ "issuance_policies": [policy], "roles": { "reader": ["orders:read"] } }))
}

pub(super) fn check_policies() -> Example {
    let policy =
        json!({ "name": "short-lived", "max_ttl": "30d", "apply": "all", "from": "2026-03-01T00:00:00Z" });
    let violation = json!({
        "policy": "short-lived",
        "field": "ttl",
        "description": "must end the key at most 2592000s after its creation (issuance policy short-lived: max_ttl)",
    });
    let key = json!({
        "key_id": ISSUED_ID,
        "name": "nightly export",
        "actor_id": "alice",
        "create_time": "2026-01-02T03:04:05Z",
        "expire_time": "2026-04-02T03:04:05Z",
        "violations": [violation],
        "policy_end_time": "2026-03-01T00:00:00Z",
        "ended_by_policy": "short-lived",
    });
    let response = json!({ "keys": [key], "scanned_count": 2, "next_page_token": "" });
    both(json!({ "issuance_policies": [policy] }), response)
}

pub(super) fn preview_scopes() -> Example {
    let route = json!({ "name": "orders", "path": { "prefix": "/orders" }, "scopes": "orders:write" });
    let row = json!({
        "key_id": ISSUED_ID,
        "name": "nightly export",
        "actor_id": "alice",
        "route": "orders",
        "count": 1284,
        "verdict": "refused",
        "reason": "insufficient_scope",
        "missing_scopes": ["orders:write"],
    });
    let untold =
        json!({ "route": "", "count": 17, "reason": "their route had no name when they were counted" });
    let response = json!({
        "start_time": "2025-12-27T00:00:00Z",
        "end_time": "2026-01-03T00:00:00Z",
        "rows": [row],
        "untold": [untold],
        "request_count": 1301,
        "next_page_token": "",
    });
    both(json!({ "routes": [route], "start_time": "2025-12-27T00:00:00Z" }), response)
}
