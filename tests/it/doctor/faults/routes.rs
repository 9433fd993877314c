//! Faults of routes, and of the filters around ext_authz.

use super::Change::{After, Before, Replace, Without};
use super::{EXT_AUTHZ, Fault, HTTP2_UPSTREAM, LAST_ROUTE, OTHER_LISTENER, ROUTER, STRIP, TRAILERS};

/// The regular expression of earlier configurations, which other spellings pass.
const OLDER_TRAILERS: super::Change = Replace("x[^a-z0-9]talos[^a-z0-9].*", "x[-_]talos[-_].*");

pub(super) const FAULTS: &[Fault] = &[
    (
        "route-disabled",
        "error",
        &[
            Without("check_settings:"),
            After(
                "\"@type\": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
                "disabled: true",
            ),
        ],
    ),
    (
        "route-disabled",
        "error",
        &[Replace(
            "typed_per_filter_config:\n",
            "typed_per_filter_config:\n                        envoy.filters.http.ext_authz:\n                          \"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig\n                          disabled: true\n                          config: {}\n",
        )],
    ),
    (
        "route-disabled",
        "note",
        &[
            Without("check_settings:"),
            After(
                "\"@type\": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
                "disabled: true",
            ),
            Before(EXT_AUTHZ, STRIP),
        ],
    ),
    ("unknown-extension", "error", &[Replace("talos.scopes:", "talos.scope:")]),
    ("unknown-extension", "error", &[Replace("talos.scopes:", "Talos.Scopes:")]),
    ("unknown-extension", "error", &[Replace("talos.scopes:", "talos_scopes:")]),
    (
        "identity-overwritten",
        "error",
        &[Before(
            LAST_ROUTE,
            "- match: { prefix: /x }\n  route: { cluster: upstream }\n  request_headers_to_add: [{ header: { key: X-Talos-Actor-Id, value: admin } }]",
        )],
    ),
    (
        "identity-removed",
        "warning",
        &[Before(
            LAST_ROUTE,
            "- match: { prefix: /x }\n  route: { cluster: upstream }\n  request_headers_to_remove: [x-talos-actor-id]",
        )],
    ),
    (
        "identity-overwritten",
        "error",
        &[Before(
            ROUTER,
            "- name: after\n  typed_config:\n    \"@type\": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation\n    mutations: { request_mutations: [{ append: { header: { key: x-talos-scopes, value: all } } }] }",
        )],
    ),
    (
        "identity-overwritten",
        "warning",
        &[Before(
            ROUTER,
            "- name: script\n  typed_config:\n    \"@type\": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua\n    default_source_code:\n      inline_string: function envoy_on_request(h) h:headers():replace('x-talos-actor-id', 'a') end",
        )],
    ),
    ("identity-removed", "warning", &[Before(ROUTER, STRIP)]),
    (
        "cors-after-check",
        "warning",
        &[Before(
            ROUTER,
            "- name: late\n  typed_config:\n    \"@type\": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors",
        )],
    ),
    (
        "acts-before-check",
        "note",
        &[Before(
            EXT_AUTHZ,
            "- name: rbac\n  typed_config:\n    \"@type\": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC\n    rules: { policies: { all: { permissions: [{ any: true }], principals: [{ any: true }] } } }",
        )],
    ),
    (
        "identity-too-early",
        "error",
        &[Before(
            EXT_AUTHZ,
            "- name: rbac\n  typed_config:\n    \"@type\": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC\n    rules: { policies: { all: { permissions: [{ any: true }], principals: [{ header: { name: x-talos-actor-id, string_match: { exact: admin } } }] } } }",
        )],
    ),
    (
        "acts-before-check",
        "warning",
        &[Before(
            EXT_AUTHZ,
            "- name: buffer\n  typed_config:\n    \"@type\": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer\n    max_request_bytes: 1048576",
        )],
    ),
    (
        "unchecked-upgrade",
        "error",
        &[Before(
            "use_remote_address:",
            "upgrade_configs:\n  - upgrade_type: websocket\n    filters:\n      - name: envoy.filters.http.router\n        typed_config:\n          \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        )],
    ),
    ("forged-trailers", "note", &[Without(TRAILERS)]),
    ("forged-trailers", "note", &[Replace("- remove: authorization", "- remove: te")]),
    ("forged-trailers", "note", &[OLDER_TRAILERS]),
    ("forged-trailers", "warning", &[OLDER_TRAILERS, HTTP2_UPSTREAM]),
    ("forged-trailers", "error", &[Without(TRAILERS), HTTP2_UPSTREAM]),
    (
        "forged-trailers",
        "error",
        &[
            Without(TRAILERS),
            After(
                "- name: upstream",
                "  typed_extension_protocol_options:\n    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n      \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n      use_downstream_protocol_config: {}",
            ),
        ],
    ),
    (
        "forged-trailers",
        "error",
        &[
            HTTP2_UPSTREAM,
            Before(
                LAST_ROUTE,
                "- match: { prefix: /x }\n  route: { cluster: upstream }\n  typed_per_filter_config:\n    talos.trailers:\n      \"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig\n      disabled: true\n      config: {}",
            ),
        ],
    ),
    ("no-ext-authz", "error", &[Without(EXT_AUTHZ)]),
    ("unprotected-route", "error", &[Before("- name: edge", OTHER_LISTENER)]),
];
