//! Settings that look right and aren't.

use super::Change::{After, Before, Replace, Without};
use super::{BY_METADATA, FILTER, Fault, LAST_ROUTE};

pub(super) const FAULTS: &[Fault] = &[
    ("no-retry", "warning", &[Replace("num_retries: 1", "num_retries: 0")]),
    (
        "credential-unseen",
        "warning",
        &[After(
            FILTER,
            "allowed_headers: { patterns: [{ exact: authorization }, { prefix: x-talos- }, { prefix: x_talos_ }] }",
        )],
    ),
    (
        "request-body",
        "warning",
        &[After(FILTER, "with_request_body: { max_request_bytes: 8192, allow_partial_message: true }")],
    ),
    ("per-route-ignored", "error", &[Replace("  envoy.filters.http.ext_authz:\n", "  ext_authz:\n")]),
    ("per-route-ignored", "warning", &[Replace("  envoy.filters.http.cors:\n", "  cors:\n")]),
    ("metadata-unsent", "error", &[Before(LAST_ROUTE, BY_METADATA)]),
    (
        "unknown-extension",
        "error",
        &[
            After(FILTER, "route_metadata_context_namespaces: [talos]"),
            Before(LAST_ROUTE, BY_METADATA),
            Replace("talos: { mode: optional }", "talos: { talos.scope: a }"),
        ],
    ),
    (
        "bad-extension",
        "error",
        &[
            After(FILTER, "route_metadata_context_namespaces: [talos]"),
            Before(LAST_ROUTE, BY_METADATA),
            Replace("talos: { mode: optional }", "talos: { mode: of }"),
        ],
    ),
    (
        "bad-extension",
        "error",
        &[
            After(FILTER, "route_metadata_context_namespaces: [talos]"),
            Before(LAST_ROUTE, BY_METADATA),
            Replace("talos: { mode: optional }", "talos: { mode: off }"),
        ],
    ),
    (
        "http-service",
        "error",
        &[
            After(
                FILTER,
                "http_service: { server_uri: { uri: http://127.0.0.1:10080, cluster: upstream, timeout: 0.25s } }",
            ),
            Without("grpc_service:"),
            Without("encode_raw_headers:"),
        ],
    ),
];
