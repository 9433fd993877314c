//! Faults of the ext_authz filter itself.

use super::Change::{After, Before, Replace, Without};
use super::{EXT_AUTHZ, FILTER, Fault, STRIP};

pub(super) const FAULTS: &[Fault] = &[
    ("fail-open", "error", &[Replace("failure_mode_allow: false", "failure_mode_allow: true")]),
    ("fail-open-header", "note", &[After(FILTER, "failure_mode_allow_header_add: true")]),
    (
        "fail-open-header",
        "warning",
        &[
            Replace("failure_mode_allow: false", "failure_mode_allow: true"),
            After(FILTER, "failure_mode_allow_header_add: true"),
        ],
    ),
    ("status-on-error", "warning", &[Without("status_on_error:")]),
    ("status-on-error", "warning", &[Replace("code: ServiceUnavailable", "code: Forbidden")]),
    ("raw-headers", "warning", &[Replace("encode_raw_headers: true", "encode_raw_headers: false")]),
    ("validate-mutations", "warning", &[Replace("validate_mutations: true", "validate_mutations: false")]),
    ("clear-route-cache", "error", &[Replace("clear_route_cache: false", "clear_route_cache: true")]),
    ("request-body", "warning", &[After(FILTER, "with_request_body: { max_request_bytes: 1048576 }")]),
    (
        "request-body",
        "warning",
        &[Replace(
            "check_settings:",
            "check_settings:\n                                with_request_body: { max_request_bytes: 8192 }",
        )],
    ),
    ("filter-enabled", "error", &[Without("deny_at_disable:"), Replace("numerator: 100", "numerator: 50")]),
    ("filter-enabled", "warning", &[Replace("numerator: 100", "numerator: 99")]),
    (
        "deny-at-disable",
        "warning",
        &[
            Without("deny_at_disable:"),
            Replace(
                "numerator: 100, denominator: HUNDRED }",
                "numerator: 100, denominator: HUNDRED }, runtime_key: a.b",
            ),
        ],
    ),
    ("deny-at-disable-idle", "note", &[Without("filter_enabled:")]),
    (
        "conditional-check",
        "note",
        &[After(
            FILTER,
            "filter_enabled_metadata: { filter: a, path: [{ key: b }], value: { present_match: true } }",
        )],
    ),
    (
        "conditional-check",
        "error",
        &[
            Without("deny_at_disable:"),
            After(
                FILTER,
                "filter_enabled_metadata: { filter: a, path: [{ key: b }], value: { present_match: true } }",
            ),
        ],
    ),
    (
        "conditional-check",
        "note",
        &[
            Without("deny_at_disable:"),
            After(
                FILTER,
                "filter_enabled_metadata: { filter: a, path: [{ key: b }], value: { present_match: true } }",
            ),
            Before(EXT_AUTHZ, STRIP),
        ],
    ),
    ("mutations-ignored", "error", &[After(FILTER, "decoder_header_mutation_rules: { disallow_all: true }")]),
    (
        "mutations-ignored",
        "error",
        &[After(
            FILTER,
            "decoder_header_mutation_rules: { disallow_expression: { regex: 'x-(user|api-key).*' } }",
        )],
    ),
    (
        "credential-unseen",
        "error",
        &[After(FILTER, "disallowed_headers: { patterns: [{ safe_regex: { regex: 'auth.*' } }] }")],
    ),
    ("endless-streams", "note", &[Without("max_stream_duration:")]),
    ("endless-streams", "note", &[Replace("max_stream_duration: 3600s", "max_stream_duration: 0s")]),
    (
        "endless-streams",
        "warning",
        &[
            Without("max_stream_duration:"),
            After("use_remote_address: true", "upgrade_configs: [{ upgrade_type: websocket }]"),
        ],
    ),
    (
        "identity-unseen",
        "warning",
        &[After(FILTER, "allowed_headers: { patterns: [{ exact: authorization }] }")],
    ),
    ("credential-unseen", "error", &[After(FILTER, "allowed_headers: { patterns: [{ prefix: x- }] }")]),
    (
        "identity-unseen",
        "warning",
        &[After(FILTER, "disallowed_headers: { patterns: [{ prefix: x-talos }] }")],
    ),
    (
        "filter-disabled",
        "error",
        &[Replace(
            "- name: envoy.filters.http.ext_authz\n",
            "- name: envoy.filters.http.ext_authz\n                    disabled: true\n",
        )],
    ),
];
