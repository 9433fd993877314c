//! HTTP filters of a connection manager, and the ext_authz filters that call Talos.

use super::dump::Dump;
use super::node::Node;
use super::options::Options;

/// An HTTP filter.
pub(super) struct HttpFilter<'a> {
    /// The entry of the chain.
    pub node: Node<'a>,
    /// Name in the chain, which per-route configurations refer to.
    pub name: &'a str,
    /// Last part of the type of its configuration.
    pub kind: Option<&'a str>,
    /// The configuration.
    pub config: Node<'a>,
    /// True if disabled unless a route enables it.
    pub disabled: bool,
    /// True if its configuration is delivered separately (ECDS) and the dump doesn't have it.
    pub is_unseen: bool,
}

/// An ext_authz filter that calls Talos.
pub(super) struct ExtAuthz<'a> {
    /// Name of the filter in the chain.
    pub name: &'a str,
    /// The ext_authz configuration.
    pub config: Node<'a>,
    /// The server that it calls, as texts name it.
    pub server: String,
    /// Index of the filter in the chain.
    pub index: usize,
    /// True if it is nested in a filter that applies it to some requests only.
    pub is_conditional: bool,
    /// True if disabled unless a route enables it.
    pub is_disabled: bool,
    /// True if a filter before it removes the client's identity headers.
    pub is_identity_stripped: bool,
    /// True if every request has the metadata that enables the filter.
    pub is_always_met: bool,
    /// True if the accelerator is before it.
    pub is_accelerated: bool,
}

impl<'a> HttpFilter<'a> {
    /// Reads a filter of a chain.
    pub(super) fn new(dump: &Dump<'a>, node: Node<'a>) -> Self {
        let name = node.get("name").text().unwrap_or_default();
        let is_discovered = !node.get("config_discovery").is_absent();
        let discovered = match is_discovered {
            false => None,
            true => dump.filter(name).cloned().or_else(|| {
                let default = node.get_path("config_discovery.default_config");
                (!default.is_absent()).then_some(default)
            }),
        };
        let is_unseen = is_discovered && discovered.is_none();
        let (kind, config) = match discovered {
            // ECDS wraps the message once more, together with its name.
            Some(typed) if !typed.get("typed_config").is_absent() => {
                let path = typed.path.clone();
                typed.get("typed_config").with_path(path).unwrap_typed()
            }
            Some(typed) => typed.unwrap_typed(),
            None => {
                let (kind, config) = extension(&node);
                (kind, config.with_path(&node.path))
            }
        };
        let disabled = node.get("disabled").is_true();
        Self { node, name, kind, config, disabled, is_unseen }
    }

    /// Returns true if a filter that isn't part of a chain is an ext_authz filter that calls Talos.
    pub(super) fn calls_talos(node: &Node<'_>, options: Options<'_>) -> bool {
        let (kind, config) = node.get("typed_config").unwrap_typed();
        kind == Some("ExtAuthz") && calls_talos(&config, options)
    }

    /// Returns true for Envoy's rate limits.
    pub(super) fn is_rate_limit(&self) -> bool {
        matches!(self.kind, Some("RateLimit" | "LocalRateLimit"))
    }

    /// Returns the request header mutations of a header_mutation filter.
    pub(super) fn mutations(&self) -> Vec<Node<'a>> {
        match self.kind {
            Some("HeaderMutation") => self.config.get("mutations").items("request_mutations"),
            _ => vec![],
        }
    }

    /// Returns the request trailer mutations of a header_mutation filter.
    pub(super) fn trailer_mutations(&self) -> Vec<Node<'a>> {
        match self.kind {
            Some("HeaderMutation") => self.config.get("mutations").items("request_trailers_mutations"),
            _ => vec![],
        }
    }

    /// Returns the ext_authz filters that call Talos: the filter itself, or those nested in it.
    pub(super) fn checks(
        &self,
        index: usize,
        is_identity_stripped: bool,
        options: Options<'_>,
    ) -> Vec<ExtAuthz<'a>> {
        let check = |config: Node<'a>, is_conditional| ExtAuthz {
            name: self.name,
            server: server(&config.get("grpc_service"), options),
            config,
            index,
            is_conditional,
            is_disabled: self.disabled,
            is_identity_stripped,
            is_always_met: false,
            is_accelerated: false,
        };
        if self.kind == Some("ExtAuthz") {
            return match calls_talos(&self.config, options) {
                true => vec![check(self.config.clone(), false)],
                false => vec![],
            };
        }
        let parts = self.config.descendants().into_iter().map(|object| object.unwrap_typed());
        parts
            .filter(|(kind, config)| *kind == Some("ExtAuthz") && calls_talos(config, options))
            .map(|(_, config)| {
                let path = config.path.replace(".typed_config", "");
                check(config.with_path(path), true)
            })
            .collect()
    }
}

/// Returns type and configuration of a filter of a chain.
///
/// API v2 knows `config` without a type, which the filter's name tells.
pub(super) fn extension<'a>(node: &Node<'a>) -> (Option<&'a str>, Node<'a>) {
    let (typed, old) = (node.get("typed_config"), node.get("config"));
    if !typed.is_absent() || old.is_absent() {
        return typed.unwrap_typed();
    }
    let kind = match node.get("name").text().unwrap_or_default() {
        "envoy.http_connection_manager" | "envoy.filters.network.http_connection_manager" => {
            Some("HttpConnectionManager")
        }
        "envoy.ext_authz" | "envoy.filters.http.ext_authz" => Some("ExtAuthz"),
        _ => None,
    };
    (kind, old)
}

/// Returns true if an ext_authz configuration calls Talos.
fn calls_talos(config: &Node<'_>, options: Options<'_>) -> bool {
    let service = config.get("grpc_service");
    let cluster = service.get_path("envoy_grpc.cluster_name").text();
    !service.is_absent()
        && (options.clusters.is_empty() || cluster.is_some_and(|name| is_named(name, options)))
}

/// Returns true if a cluster is among those that the options name.
///
/// Istio's cluster names are `outbound|4423||host`; the host alone is accepted.
fn is_named(cluster: &str, options: Options<'_>) -> bool {
    options.clusters.iter().any(|wanted| cluster == wanted || cluster.rsplit('|').next() == Some(wanted))
}

/// Returns the server of a gRPC service as texts name it: Talos, if options or the name say that it
/// is, else its cluster.
pub(super) fn server(service: &Node<'_>, options: Options<'_>) -> String {
    let cluster = service.get_path("envoy_grpc.cluster_name").text();
    let name = cluster.or_else(|| service.get_path("google_grpc.target_uri").text());
    match name {
        Some(name) if name.to_ascii_lowercase().contains("talos") || is_named(name, options) => {
            "Talos".to_owned()
        }
        Some(name) => format!("the server of {name}"),
        None => "the authorization server".to_owned(),
    }
}
