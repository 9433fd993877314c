//! HTTP connection managers of a dump: their HTTP filters in order, the ext_authz filters among
//! them, and the targets of their routes.

use super::dump::Dump;
use super::headers;
use super::http_filter::{ExtAuthz, HttpFilter};
use super::metadata_condition;
use super::node::Node;
use super::options::Options;
use super::route_target::{self, RouteTarget};

/// An HTTP connection manager of a listener.
pub struct ConnectionManager<'a> {
    /// The configuration.
    pub node: Node<'a>,
    /// The listener that has it.
    pub listener: Node<'a>,
    /// The HTTP filters, in order.
    pub filters: Vec<HttpFilter<'a>>,
    /// The ext_authz filters that call Talos.
    pub checks: Vec<ExtAuthz<'a>>,
    /// The targets of its routes.
    pub targets: Vec<RouteTarget<'a>>,
}

impl<'a> ConnectionManager<'a> {
    /// Returns all connection managers of a dump.
    pub fn all(dump: &Dump<'a>, options: Options<'_>) -> Vec<Self> {
        let mut managers = vec![];
        for listener in &dump.listeners {
            let default = listener.get("default_filter_chain");
            let api = listener.get_path("api_listener.api_listener");
            for chain in listener.items("filter_chains").into_iter().chain([default]) {
                for filter in chain.items("filters") {
                    let (kind, config) = filter.get("typed_config").unwrap_typed();
                    if kind == Some("HttpConnectionManager") {
                        managers.push(Self::new(dump, listener, config.with_path(&chain.path), options));
                    }
                }
            }
            if api.has_type("HttpConnectionManager") {
                managers.push(Self::new(dump, listener, api, options));
            }
        }
        managers
    }

    fn new(dump: &Dump<'a>, listener: &Node<'a>, node: Node<'a>, options: Options<'_>) -> Self {
        let filters: Vec<HttpFilter<'a>> =
            node.items("http_filters").into_iter().map(|filter| HttpFilter::new(dump, filter)).collect();
        let early = node.items("early_header_mutation_extensions");
        let mut is_identity_stripped = early.iter().any(|extension| {
            headers::removes_all_identity(&extension.get("typed_config").items("mutations"))
        });
        let mut checks: Vec<ExtAuthz<'a>> = vec![];
        for (index, filter) in filters.iter().enumerate() {
            is_identity_stripped |= headers::removes_all_identity(&filter.mutations());
            checks.extend(filter.checks(index, is_identity_stripped, options));
        }
        let targets = route_target::targets(dump, &node);
        for check in &mut checks {
            check.is_always_met = metadata_condition::is_always_met(check, &filters, &targets);
        }
        Self { node, listener: listener.clone(), filters, checks, targets }
    }

    /// Returns the listener's traffic direction, which Istio sets.
    pub fn traffic_direction(&self) -> Option<&'a str> {
        self.listener.get("traffic_direction").text()
    }
}
