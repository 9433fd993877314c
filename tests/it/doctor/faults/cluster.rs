//! Faults of the way to Talos: timeouts, retries, the cluster.

use super::Change::{Before, Replace, Without};
use super::{Fault, tls};

pub(super) const FAULTS: &[Fault] = &[
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
];
