//! Faults of what stands beside the check: other ways to its upstreams, what writes identity after
//! it, and what shows keys.

use super::Change::{After, Before, Replace, Tls};
use super::{EXT_AUTHZ, Fault, LAST_ROUTE, OTHER_LISTENER, ROUTER, TRAILERS};

const TCP_LISTENER: &str = "\
- name: raw
  address:
    socket_address: { address: 127.0.0.1, port_value: 0 }
  filter_chains:
    - filters:
        - name: tcp
          typed_config:
            \"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
            stat_prefix: raw
            cluster: upstream";

/// A cluster with the server of `upstream`.
const SAME_SERVER: &str = "\
- name: aliased
  type: STATIC
  connect_timeout: 1s
  load_assignment:
    cluster_name: aliased
    endpoints:
      - lb_endpoints:
          - endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 10080 } } }";

/// A cluster with Envoy's admin interface.
const ADMIN: &str = "\
- name: itself
  type: STATIC
  connect_timeout: 1s
  load_assignment:
    cluster_name: itself
    endpoints:
      - lb_endpoints:
          - endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 10001 } } }";

const UPSTREAM_FILTERS: &str = "\
http_filters:
  - name: late
    typed_config:
      \"@type\": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
      mutations: { request_mutations: [{ append: { header: { key: x-talos-actor-id, value: admin } } }] }
  - name: codec
    typed_config:
      \"@type\": type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec";

/// Filters of the router that run after the choice of the upstream.
const ROUTER_FILTERS: &str = "upstream_http_filters: [{ name: late, typed_config: { \"@type\": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation, mutations: { request_mutations: [{ append: { header: { key: x-talos-actor-id, value: admin } } }] } } }, { name: codec, typed_config: { \"@type\": type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec } }]";

/// An aggregate of `upstream`.
const AGGREGATE: &str = "\
- name: both
  connect_timeout: 1s
  lb_policy: CLUSTER_PROVIDED
  cluster_type:
    name: envoy.clusters.aggregate
    typed_config:
      \"@type\": type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig
      clusters: [upstream]";

/// A route whose requests become tunnels to `upstream`.
const TUNNEL: &str = "\
- match: { connect_matcher: {} }
  route: { cluster: upstream, upgrade_configs: [{ upgrade_type: CONNECT, connect_config: {} }] }";

/// A filter that injects a header after the check.
const INJECTOR: &str = "\
- name: injector
  typed_config:
    \"@type\": type.googleapis.com/envoy.extensions.filters.http.credential_injector.v3.CredentialInjector
    overwrite: true
    credential:
      name: generic
      typed_config:
        \"@type\": type.googleapis.com/envoy.extensions.http.injected_credentials.generic.v3.Generic
        credential: { name: identity }
        header: X-Talos-Actor-Id";

const IDENTITY_SECRET: &str =
    "secrets: [{ name: identity, generic_secret: { secret: { inline_string: root } } }]";

/// Plaintext for every server, whatever else the cluster has.
const PLAINTEXT_FOR_ALL: &str = "\
transport_socket_matches:
  - name: plaintext
    match: {}
    transport_socket:
      name: raw
      typed_config:
        \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";

pub(super) const FAULTS: &[Fault] = &[
    (
        "unprotected-route",
        "error",
        &[
            Before("- name: edge", OTHER_LISTENER),
            Before("- name: upstream", AGGREGATE),
            Replace("route: { cluster: upstream }", "route: { cluster: both }"),
        ],
    ),
    (
        "unprotected-route",
        "error",
        &[
            Before("- name: edge", OTHER_LISTENER),
            Replace("route: { cluster: upstream }", "route: { cluster_header: x-destination }"),
        ],
    ),
    (
        "unprotected-route",
        "error",
        &[
            Before("- name: edge", OTHER_LISTENER),
            Before("- name: upstream", ADMIN),
            Replace(
                "route: { cluster: upstream }",
                "route: { cluster: itself, request_mirror_policies: [{ cluster: upstream }] }",
            ),
        ],
    ),
    ("unprotected-route", "error", &[Before(LAST_ROUTE, TUNNEL)]),
    (
        "admin-exposed",
        "error",
        &[
            Before(
                LAST_ROUTE,
                "- match: { prefix: /admin }\n  route: { cluster: itself, prefix_rewrite: / }",
            ),
            Before("- name: upstream", ADMIN),
        ],
    ),
    ("identity-overwritten", "error", &[Before("listeners:", IDENTITY_SECRET), Before(ROUTER, INJECTOR)]),
    (
        "plaintext",
        "warning",
        &[
            Replace("address: 127.0.0.1, port_value: 4423", "address: 192.0.2.1, port_value: 4423"),
            Before("connect_timeout: 0.2s", PLAINTEXT_FOR_ALL),
            Tls(""),
        ],
    ),
    ("unprotected-route", "error", &[Before("- name: edge", TCP_LISTENER)]),
    (
        "unprotected-route",
        "error",
        &[
            Before("- name: edge", OTHER_LISTENER),
            Before("- name: upstream", SAME_SERVER),
            Replace("route: { cluster: upstream }", "route: { cluster: aliased }"),
        ],
    ),
    (
        "admin-exposed",
        "error",
        &[
            Before("- name: edge", OTHER_LISTENER),
            Before("- name: upstream", ADMIN),
            Replace("route: { cluster: upstream }", "route: { cluster: itself }"),
        ],
    ),
    (
        "identity-overwritten",
        "error",
        &[Before(
            LAST_ROUTE,
            "- match: { prefix: /x }\n  route: { cluster: upstream }\n  typed_per_filter_config:\n    talos.trailers:\n      \"@type\": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute\n      mutations: { request_mutations: [{ append: { header: { key: X-Talos-Actor-Id, value: admin } } }] }",
        )],
    ),
    (
        "identity-removed",
        "warning",
        &[Before(
            LAST_ROUTE,
            "- match: { prefix: /x }\n  route: { cluster: upstream }\n  typed_per_filter_config:\n    talos.trailers:\n      \"@type\": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute\n      mutations: { request_mutations: [{ remove_on_match: { key_matcher: { prefix: x-talos- } } }] }",
        )],
    ),
    (
        "identity-overwritten",
        "warning",
        &[
            Before(
                ROUTER,
                "- name: script\n  typed_config:\n    \"@type\": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            ),
            Before(
                LAST_ROUTE,
                "- match: { prefix: /x }\n  route: { cluster: upstream }\n  typed_per_filter_config:\n    script:\n      \"@type\": type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute\n      source_code:\n        inline_string: function envoy_on_request(h) h:headers():replace('x-talos-actor-id', 'a') end",
            ),
        ],
    ),
    (
        "identity-overwritten",
        "error",
        &[After(
            "\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            ROUTER_FILTERS,
        )],
    ),
    (
        "identity-overwritten",
        "error",
        &[
            After(
                "- name: upstream",
                "  typed_extension_protocol_options:\n    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n      \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n      explicit_http_config: { http_protocol_options: {} }",
            ),
            After("explicit_http_config: { http_protocol_options: {} }", UPSTREAM_FILTERS),
        ],
    ),
    (
        "identity-overwritten",
        "error",
        &[Before(
            EXT_AUTHZ,
            "- name: copy\n  typed_config:\n    \"@type\": type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config\n    request_rules: [{ header: x-user, on_header_present: { metadata_namespace: envoy.filters.http.ext_authz, key: actor_id } }]",
        )],
    ),
    (
        "identity-overwritten",
        "error",
        &[Before(
            TRAILERS,
            "- name: set\n  typed_config:\n    \"@type\": type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config\n    metadata: [{ metadata_namespace: envoy.filters.http.ext_authz, allow_overwrite: true, value: { actor_id: admin } }]",
        )],
    ),
    (
        "key-logged",
        "warning",
        &[Before("time: \"%START_TIME%\"", "auth: \"%REQ(AUTHORIZATION):20% %REQ(X-USER?X-API-KEY)%\"")],
    ),
    (
        "key-logged",
        "warning",
        &[Before(
            "access_log:",
            "tracing: { custom_tags: [{ tag: key, request_header: { name: X-API-Key } }] }",
        )],
    ),
    (
        "filter-enabled",
        "error",
        &[
            Replace("denominator: HUNDRED } }", "denominator: HUNDRED }, runtime_key: ext_authz.enabled }"),
            Before(
                "overload_manager:",
                "layered_runtime: { layers: [{ name: fixed, static_layer: { ext_authz: { enabled: 0 }, ext_authz.deny_at_disable: false } }] }",
            ),
        ],
    ),
    (
        "key-copied",
        "error",
        &[After(
            "stat_prefix: edge",
            "early_header_mutation_extensions:\n  - name: early\n    typed_config:\n      \"@type\": type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation\n      mutations: [{ append: { header: { key: x-copy, value: \"%REQ(x-api-key)%\" } } }]",
        )],
    ),
    (
        "key-copied",
        "error",
        &[Before(
            EXT_AUTHZ,
            "- name: copy\n  typed_config:\n    \"@type\": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation\n    mutations: { request_mutations: [{ append: { header: { key: x-original-authorization, value: \"%REQ(authorization)%\" } } }] }",
        )],
    ),
    (
        "key-copied",
        "warning",
        &[Before(
            EXT_AUTHZ,
            "- name: metadata\n  typed_config:\n    \"@type\": type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config\n    request_rules:\n      - header: X-API-Key\n        on_header_present: { metadata_namespace: app, key: caller, type: STRING }",
        )],
    ),
    (
        "key-copied",
        "warning",
        &[Before(
            EXT_AUTHZ,
            "- name: state\n  typed_config:\n    \"@type\": type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config\n    on_request_headers:\n      - object_key: caller\n        factory_key: envoy.string\n        format_string: { text_format_source: { inline_string: \"%REQ(authorization)%\" } }",
        )],
    ),
    (
        "limit-without-key",
        "error",
        &[
            Before(
                ROUTER,
                "- name: limit\n  typed_config:\n    \"@type\": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit\n    stat_prefix: limit",
            ),
            After(
                "domains:",
                "rate_limits: [{ actions: [{ request_headers: { header_name: X-API-Key, descriptor_key: caller } }] }]",
            ),
        ],
    ),
];
