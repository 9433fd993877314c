//! Faults of an Envoy's configuration, as changes of the shipped one, with the doctor's names for
//! them.

mod beside;
mod cluster;
mod filter;
mod manager;
mod routes;
mod subtle;

/// A change to the text of `envoy/envoy.yaml`. What it names must be there once at least.
#[derive(Clone, Copy)]
pub enum Change {
    /// Another text.
    Replace(&'static str, &'static str),
    /// Removes the line that begins with the text, and the lines below that belong to it.
    Without(&'static str),
    /// Inserts lines before the one that begins with the text, in the same column.
    Before(&'static str, &'static str),
    /// Inserts lines after the one that begins with the text.
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

use Change::After;

const EXT_AUTHZ: &str = "- name: envoy.filters.http.ext_authz";
const ROUTER: &str = "- name: envoy.filters.http.router";
const FILTER: &str = "transport_api_version: V3";
const LAST_ROUTE: &str = "- match: { prefix: / }";
const TRAILERS: &str = "- name: talos.trailers";
const HTTP2_UPSTREAM: Change = After(
    "- name: upstream",
    "  typed_extension_protocol_options:\n    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n      \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n      explicit_http_config: { http2_protocol_options: {} }",
);

/// A fault: its name, its severity, and the changes that cause it.
pub type Fault = (&'static str, &'static str, &'static [Change]);

/// Returns all faults.
pub fn faults() -> impl Iterator<Item = &'static Fault> {
    let all =
        [filter::FAULTS, routes::FAULTS, manager::FAULTS, cluster::FAULTS, subtle::FAULTS, beside::FAULTS];
    all.into_iter().flatten()
}

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
