//! Configuration that several findings recommend.
//!
//! A cure is pasted into the message that has the setting: its keys replace those of the same name,
//! messages within it are merged unless they have an `@type`. A list replaces the old one, but
//! what is in `http_filters`, `clusters` or `resource_monitors` is added. A comment
//! `# remove NAME` is to be followed. What stands behind a comment `# or` is another way.

/// Timeout that the cures of the gRPC call use, in seconds.
pub(crate) const TIMEOUT_SECONDS: f64 = 0.25;

/// The recommended filters.
const FILTERS: &str = "\
http_filters: # before the router
  - name: envoy.filters.http.ext_authz
    typed_config:
      \"@type\": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
      transport_api_version: V3
      grpc_service:
        envoy_grpc: { cluster_name: talos_authz }
        timeout: 0.25s
        retry_policy:
          retry_on: unavailable,reset
          num_retries: 1
          retry_back_off: { base_interval: 0.01s, max_interval: 0.25s }
      failure_mode_allow: false
      status_on_error: { code: ServiceUnavailable }
      encode_raw_headers: true
      validate_mutations: true
";

/// The recommended cluster.
const CLUSTER: &str = "\
static_resources:
  clusters:
    - name: talos_authz
      type: STRICT_DNS
      connect_timeout: 0.2s
      load_assignment:
        cluster_name: talos_authz
        endpoints:
          - lb_endpoints: # the address of Talos; on another machine with TLS
              - endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 4423 } } }
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config:
            http2_protocol_options:
              connection_keepalive: { interval: 5s, timeout: 1s }
      health_checks:
        - timeout: 0.5s
          interval: 1s
          no_traffic_interval: 1s
          unhealthy_threshold: 2
          healthy_threshold: 1
          grpc_health_check: { service_name: envoy.service.auth.v3.Authorization }
      common_lb_config:
        healthy_panic_threshold: { value: 0 }
      circuit_breakers:
        thresholds:
          - max_requests: 4096
            max_pending_requests: 1024
            retry_budget: { budget_percent: { value: 20 }, min_retry_concurrency: 16 }
";

/// Returns the recommended filter, with the cluster of Talos.
pub(crate) fn recommended() -> String {
    format!("{FILTERS}{CLUSTER}")
}

/// Returns a cluster of Talos with the name that a filter uses.
pub(crate) fn cluster(name: &str) -> String {
    CLUSTER.replace("talos_authz", name)
}

/// Returns the recommended filter under the name of one that is there.
pub(crate) fn filter(name: &str) -> String {
    recommended().replacen("- name: envoy.filters.http.ext_authz", &format!("- name: {name}"), 1)
}
