//! Examples of following: events, explanations of routes, the caller.

use serde_json::json;

use super::common::{Example, ISSUED_ID, SECRET, answered, both};

pub(super) fn events() -> Example {
    let place = "4711-00000000000000fe";
    let change = json!({ "field": "scopes", "before": ["invoices:read"], "after": ["invoices:write"] });
    let data = json!({
        "epoch": 4711,
        "operation": "update",
        "key_id": ISSUED_ID,
        "key_type": "issued",
        "actor_id": "alice",
        "caller": "spiffe://example.com/operators",
        "changes": [change],
    });
    let event = json!({
        "specversion": "1.0",
        "id": place,
        "source": "urn:talos:network:00000000-0000-0000-0000-000000000000",
        "type": "talos.key.updated",
        "subject": ISSUED_ID,
        "time": "2026-01-02T03:04:05Z",
        "datacontenttype": "application/json",
        "data": data,
    });
    answered(json!({ "events": [event], "next": place, "epoch": 4711, "has_more": false }))
}

pub(super) fn explain() -> Example {
    let request = json!({
        "method": "POST",
        "host": "api.example.com",
        "path": "/orders/7",
        "credential": SECRET,
        "client_address": "192.0.2.7",
    });
    let response = json!({
        "decision": "deny",
        "reason": "insufficient_scope",
        "message": "the credential lacks a scope that this route needs",
        "rule": { "index": 0, "name": "orders", "methods": ["POST"], "path": "prefix /orders" },
        "demand": { "mode": "required", "scopes": ["orders:write"], "any_scope": [], "cost": 1 },
        "key_id": ISSUED_ID,
        "actor_id": "alice",
        "missing_scopes": ["orders:write"],
    });
    both(request, response)
}

pub(super) fn whoami() -> Example {
    answered(json!({
        "caller": "spiffe://example.com/operators",
        "is_verified": true,
        "proof": "mtls",
        "auth_mode": "mtls",
        "role": "viewer",
        "network_id": "00000000-0000-0000-0000-000000000000",
        "operations": ["adminListEvents", "adminWhoami"],
    }))
}
