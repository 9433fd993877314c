//! Faults of an Envoy's configuration, as changes of the shipped one, with the doctor's names for
//! them.
// long: a table

/// A change to the text of `envoy/envoy.yaml`. What it names must be there once at least.
#[derive(Clone, Copy)]
pub enum Change {
    /// Another text.
    Replace(&'static str, &'static str),
    /// Without the line that begins with it, and all that belongs to it.
    Without(&'static str),
    /// Lines before the one that begins with it, in the same column.
    Before(&'static str, &'static str),
    /// Lines after it.
    After(&'static str, &'static str),
    /// TLS to Talos, with this field in its `common_tls_context`.
    Tls(&'static str),
}

impl Change {
    #[track_caller]
    pub fn made_to(&self, config: &str) -> String {
        if let Self::Tls(validation) = self {
            assert!(config.contains(TALOS_CLUSTER), "envoy/envoy.yaml has no {TALOS_CLUSTER:?} any more");
            let socket = format!(
                "      transport_socket:\n        name: envoy.transport_sockets.tls\n        typed_config:\n          \
                 \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\n          \
                 common_tls_context: {{ {validation} }}\n      {TALOS_CLUSTER}"
            );
            return config.replacen(&format!("      {TALOS_CLUSTER}"), &socket, 1);
        }
        let (Self::Replace(what, _)
        | Self::Without(what)
        | Self::Before(what, _)
        | Self::After(what, _)
        | Self::Tls(what)) = self;
        if let Self::Replace(old, new) = self {
            assert!(config.contains(old), "envoy/envoy.yaml has no {old:?} any more");
            return config.replacen(old, new, 1);
        }
        let column = |line: &str| line.len() - line.trim_start().len();
        let lines: Vec<&str> = config.lines().collect();
        let at = lines.iter().position(|line| line.trim_start().starts_with(what));
        let Some(at) = at else { panic!("envoy/envoy.yaml has no line that begins with {what:?} any more") };
        let indented = |text: &str| -> Vec<String> {
            text.lines().map(|line| format!("{}{line}", " ".repeat(column(lines[at])))).collect()
        };
        let belongs = |line: &&&str| column(line) > column(lines[at]) || line.trim().is_empty();
        let end = at + 1 + lines[at + 1..].iter().take_while(belongs).count();
        let (kept, added) = match self {
            Self::Before(_, text) => (at..at, indented(text)),
            Self::After(_, text) => (at + 1..at + 1, indented(text)),
            _ => (at..end, vec![]),
        };
        let mut result: Vec<String> = lines[..kept.start].iter().map(|line| (*line).to_owned()).collect();
        result.extend(added);
        result.extend(lines[kept.end..].iter().map(|line| (*line).to_owned()));
        result.join("\n") + "\n"
    }
}

/// Begins a line of the cluster of Talos.
const TALOS_CLUSTER: &str = "connect_timeout: 0.2s";

use Change::{After, Before, Replace, Without};

const EXT_AUTHZ: &str = "- name: envoy.filters.http.ext_authz";
const ROUTER: &str = "- name: envoy.filters.http.router";
const FILTER: &str = "transport_api_version: V3";
const LAST_ROUTE: &str = "- match: { prefix: / }";
const TRAILERS: &str = "- name: talos.trailers";
const HTTP2_UPSTREAM: Change = After(
    "- name: upstream",
    "  typed_extension_protocol_options:\n    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n      \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n      explicit_http_config: { http2_protocol_options: {} }",
);

/// Each fault's name and severity, and the changes that cause it.
pub const FAULTS: &[(&str, &str, &[Change])] = &[
    // The filter.
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
    // Routes.
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
    // Around the filter.
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
    // The connection manager.
    ("normalize-path", "error", &[Without("normalize_path:")]),
    ("merge-slashes", "warning", &[Without("merge_slashes:")]),
    (
        "escaped-slashes",
        "warning",
        &[Replace(
            "path_with_escaped_slashes_action: REJECT_REQUEST",
            "path_with_escaped_slashes_action: KEEP_UNCHANGED",
        )],
    ),
    (
        "underscores",
        "warning",
        &[Replace(
            "headers_with_underscores_action: REJECT_REQUEST",
            "headers_with_underscores_action: ALLOW",
        )],
    ),
    ("slow-headers", "note", &[Without("request_headers_timeout:")]),
    ("use-remote-address", "warning", &[Without("use_remote_address:")]),
    ("internal-addresses", "warning", &[After("use_remote_address:", "internal_address_config: {}")]),
    (
        "internal-addresses",
        "warning",
        &[After(
            "use_remote_address:",
            "internal_address_config: { cidr_ranges: [{ address_prefix: 0.0.0.0, prefix_len: 0 }] }",
        )],
    ),
    // The way to Talos.
    ("timeout", "error", &[Replace("timeout: 0.25s", "timeout: 600s")]),
    ("timeout", "error", &[Replace("timeout: 0.25s", "timeout: 0s")]),
    ("timeout", "warning", &[Replace("timeout: 0.25s", "timeout: 5s")]),
    ("timeout", "note", &[Without("timeout: 0.25s")]),
    ("no-retry", "warning", &[Without("retry_policy:")]),
    ("no-retry", "warning", &[Replace("retry_on: unavailable,reset", "retry_on: cancelled")]),
    ("retry-too-late", "warning", &[Without("retry_back_off:")]),
    ("retry-cuts-off", "warning", &[Replace("max_interval: 0.25s", "max_interval: 0.05s")]),
    (
        "no-http2",
        "error",
        &[
            Without("typed_extension_protocol_options:"),
            Without("- timeout: 0.5s"),
            Replace("health_checks:", "health_checks: []"),
        ],
    ),
    (
        "no-keepalive",
        "warning",
        &[Replace("connection_keepalive: { interval: 5s, timeout: 1s }", "max_concurrent_streams: 100")],
    ),
    (
        "bad-authority",
        "error",
        &[
            Replace("{ cluster_name: talos_authz }", "{ cluster_name: talos/authz, authority: talos }"),
            Replace("- name: talos_authz", "- name: talos/authz"),
        ],
    ),
    (
        "bad-authority",
        "error",
        &[
            Replace("{ cluster_name: talos_authz }", "{ cluster_name: talos|authz }"),
            Replace("- name: talos_authz", "- name: talos|authz"),
            Replace("{ service_name:", "{ authority: talos, service_name:"),
        ],
    ),
    (
        "no-health-check",
        "warning",
        &[Without("- timeout: 0.5s"), Replace("health_checks:", "health_checks: []")],
    ),
    (
        "weak-health-check",
        "note",
        &[Replace(
            "grpc_health_check: { service_name: envoy.service.auth.v3.Authorization }",
            "tcp_health_check: {}",
        )],
    ),
    ("slow-health-check", "note", &[Without("no_traffic_interval:")]),
    ("panic-threshold", "warning", &[Without("common_lb_config:")]),
    ("circuit-breaker", "warning", &[Without("circuit_breakers:")]),
    ("circuit-breaker", "warning", &[Replace("max_requests: 4096", "max_requests: 512")]),
    ("connect-timeout", "warning", &[Replace("connect_timeout: 0.2s", "connect_timeout: 5s")]),
    (
        "plaintext",
        "warning",
        &[Replace("address: 127.0.0.1, port_value: 4423", "address: 192.0.2.1, port_value: 4423")],
    ),
    (
        "tls-unverified",
        "warning",
        &[Before(
            "connect_timeout: 0.2s",
            "transport_socket:\n  name: envoy.transport_sockets.tls\n  typed_config:\n    \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        )],
    ),
    ("tls-unverified", "warning", &[tls("validation_context: {}")]),
    (
        "tls-unverified",
        "warning",
        &[tls(
            "validation_context: { trusted_ca: { filename: /etc/ssl/certs/ca-certificates.crt }, trust_chain_verification: ACCEPT_UNTRUSTED, match_typed_subject_alt_names: [{ san_type: DNS, matcher: { exact: a } }] }",
        )],
    ),
    (
        "tls-any-name",
        "warning",
        &[tls("validation_context: { trusted_ca: { filename: /etc/ssl/certs/ca-certificates.crt } }")],
    ),
    (
        "tls-any-name",
        "warning",
        &[tls(
            "validation_context: { trusted_ca: { filename: /etc/ssl/certs/ca-certificates.crt }, match_typed_subject_alt_names: [{ san_type: DNS, matcher: { safe_regex: { regex: .* } } }] }",
        )],
    ),
    (
        "tls-any-name",
        "warning",
        &[
            tls(
                "combined_validation_context: { default_validation_context: {}, validation_context_sds_secret_config: { name: talos_ca } }",
            ),
            Before(
                "clusters:",
                "secrets: [{ name: talos_ca, validation_context: { trusted_ca: { filename: /etc/ssl/certs/ca-certificates.crt } } }]",
            ),
        ],
    ),
    // Settings that look right and aren't.
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
    // The process.
    (
        "admin-exposed",
        "error",
        &[Replace("address: 127.0.0.1, port_value: 10001", "address: 0.0.0.0, port_value: 10001")],
    ),
    ("no-connection-limit", "note", &[Without("overload_manager:")]),
];

/// TLS to Talos, with a way to validate its certificate.
const fn tls(validation: &'static str) -> Change {
    Change::Tls(validation)
}

const BY_METADATA: &str = "- match: { prefix: /x }\n  route: { cluster: upstream }\n  metadata: { filter_metadata: { talos: { mode: optional } } }";

const STRIP: &str = "\
- name: strip
  typed_config:
    \"@type\": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
    mutations:
      request_mutations:
        - remove: x-talos-key-id
        - remove: x-talos-actor-id
        - remove: x-talos-scopes
        - remove: x-talos-network-id";

const OTHER_LISTENER: &str = "\
- name: other
  address:
    socket_address: { address: 127.0.0.1, port_value: 0 }
  filter_chains:
    - filters:
        - name: envoy.filters.network.http_connection_manager
          typed_config:
            \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
            stat_prefix: other
            http_filters:
              - name: envoy.filters.http.router
                typed_config:
                  \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
            route_config:
              virtual_hosts:
                - name: all
                  domains: [\"*\"]
                  routes:
                    - match: { prefix: / }
                      route: { cluster: upstream }";
