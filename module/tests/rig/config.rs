//! Envoy's configuration with the module.

/// Two listeners on one upstream: without the module, and with it.
pub fn config(upstream: u16, filter: &str, route: &str) -> String {
    let plain = listener("{port0}", "", "{}");
    let with = listener("{port1}", filter, route);
    format!("static_resources:\n  listeners:\n{plain}\n{with}\n  clusters:\n{}", cluster(upstream))
}

/// A configuration whose listeners are in a file.
pub fn with_listeners_from(file: &std::path::Path, upstream: u16) -> String {
    format!(
        "node: {{ id: a, cluster: b }}\ndynamic_resources: {{ lds_config: {{ path_config_source: {{ path: \"{}\" }} }} }}\n\
         static_resources:\n  clusters:\n{}",
        file.display(),
        cluster(upstream)
    )
}

/// The file with the listener that has the module.
pub fn listeners(port: u16, filter: &str, route: &str) -> String {
    let listener = listener(&port.to_string(), filter, route);
    let named = "    - \"@type\": type.googleapis.com/envoy.config.listener.v3.Listener\n      name: edge\n      address";
    format!("resources:\n{}", listener.replacen("    - address", named, 1))
}

fn cluster(upstream: u16) -> String {
    format!(
        "
    - name: upstream
      type: STATIC
      connect_timeout: 5s
      load_assignment:
        cluster_name: upstream
        endpoints:
          - lb_endpoints:
              - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {upstream} }} }} }}
"
    )
}

fn listener(port: &str, filter: &str, route: &str) -> String {
    format!(
        r#"
    - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: edge
                use_remote_address: true
                generate_request_id: false
                http_filters: [{filter}
                  {{ name: router, typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }} }}]
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      typed_per_filter_config: {route}
                      routes:
                        - match: {{ prefix: / }}
                          route: {{ cluster: upstream }}"#
    )
}

/// The module as a filter, with its configuration as JSON.
pub fn filter(json: &str) -> String {
    format!(
        r#"{{ name: talos, typed_config: {{
        "@type": type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter,
        dynamic_module_config: {{ name: talos_module, do_not_close: true }}, filter_name: accelerator,
        filter_config: {{ "@type": type.googleapis.com/google.protobuf.StringValue, value: '{json}' }} }} }},"#
    )
}

/// The configuration of a route, as JSON.
pub fn route(json: &str) -> String {
    format!(
        r#"{{ talos: {{
        "@type": type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilterPerRoute,
        dynamic_module_config: {{ name: talos_module, do_not_close: true }}, 
        filter_config: {{ "@type": type.googleapis.com/google.protobuf.StringValue, value: '{json}' }} }} }}"#
    )
}

/// Filter whose server is not there.
pub const SOCKET: &str = r#"{"socket": "/nonexistent/talos.sock", "max_bytes": 1048576}"#;
/// Route that has opted in, with a policy.
pub const OPTED_IN: &str = r#"{"accelerate": true, "settings": {"talos.scopes": "reports:read"}}"#;

/// The ext_authz filter behind the module: it asks about what the module didn't let pass. Its
/// server is not there.
pub fn ext_authz() -> String {
    r#"{ name: envoy.filters.http.ext_authz, typed_config: {
        "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz,
        transport_api_version: V3, status_on_error: { code: ServiceUnavailable },
        grpc_service: { google_grpc: { target_uri: "127.0.0.1:1", stat_prefix: authz }, timeout: 0.1s },
        filter_enabled_metadata: { filter: envoy.filters.http.ext_authz, path: [{ key: decision }],
          value: { string_match: { exact: allow } }, invert: true } } },"#
        .to_owned()
}
