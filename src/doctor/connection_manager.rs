//! HTTP connection managers of a dump: their HTTP filters in order, the ext_authz filters among
//! them, and the targets of their routes.

use super::accelerator;
use super::dump::Dump;
use super::headers;
use super::http_filter::{ExtAuthz, HttpFilter, extension};
use super::metadata_condition;
use super::node::Node;
use super::options::Options;
use super::route_target::{self, RouteTarget};

/// Maximum number of targets of routes in a dump, those that several listeners share counted for
/// each.
pub(super) const MAX_TARGETS: usize = 300_000;

/// An HTTP connection manager of a listener.
pub(super) struct ConnectionManager<'a> {
    /// The configuration.
    pub node: Node<'a>,
    /// The listener that has it.
    pub listener: Node<'a>,
    /// The filter chain that has it; absent for an API listener.
    pub chain: Node<'a>,
    /// The network filter that it is the configuration of.
    pub filter: Node<'a>,
    /// The HTTP filters, in order.
    pub filters: Vec<HttpFilter<'a>>,
    /// The ext_authz filters that call Talos.
    pub checks: Vec<ExtAuthz<'a>>,
    /// The targets of its routes.
    pub targets: Vec<RouteTarget<'a>>,
    /// True if targets were left out, as the dump has too many.
    pub has_more_targets: bool,
}

impl<'a> ConnectionManager<'a> {
    /// Returns all connection managers of a dump.
    pub(super) fn all(dump: &Dump<'a>, options: Options<'_>) -> Vec<Self> {
        let mut managers = vec![];
        let mut room = MAX_TARGETS;
        for listener in &dump.listeners {
            let default = listener.get("default_filter_chain");
            for chain in listener.items("filter_chains").into_iter().chain([default]) {
                for filter in chain.items("filters") {
                    let (kind, config) = extension(&filter);
                    if kind == Some("HttpConnectionManager") {
                        let node = config.with_path(&chain.path);
                        let place = Place { listener, chain: &chain, filter };
                        managers.push(Self::new(dump, place, node, options, &mut room));
                    }
                }
            }
            let api = listener.get_path("api_listener.api_listener");
            if api.has_type("HttpConnectionManager") {
                let chain = listener.get("api_listener");
                let place = Place { listener, chain: &chain, filter: chain.clone() };
                managers.push(Self::new(dump, place, api, options, &mut room));
            }
        }
        managers
    }

    fn new(
        dump: &Dump<'a>,
        place: Place<'a, '_>,
        node: Node<'a>,
        options: Options<'_>,
        room: &mut usize,
    ) -> Self {
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
        let targets = route_target::targets(dump, &node, *room);
        let has_more_targets = targets.len() >= *room;
        *room = room.saturating_sub(targets.len());
        for check in &mut checks {
            check.is_always_met = metadata_condition::is_always_met(check, &filters, &targets);
            check.is_accelerated = filters.iter().take(check.index).any(accelerator::is_accelerator);
        }
        let Place { listener, chain, filter } = place;
        let (listener, chain) = (listener.clone(), chain.clone());
        Self { node, listener, chain, filter, filters, checks, targets, has_more_targets }
    }

    /// Returns true for the listeners of Istio's sidecars that receive requests from other
    /// workloads.
    pub(super) fn is_inbound(&self) -> bool {
        self.listener.get("traffic_direction").is_value("INBOUND", 1)
    }

    /// Returns true for the outbound listeners of Istio's sidecars, which receive requests from
    /// their own workload.
    pub(super) fn is_outbound(&self) -> bool {
        self.listener.get("traffic_direction").is_value("OUTBOUND", 2)
    }
}

/// Place of a connection manager in a listener.
struct Place<'a, 'p> {
    listener: &'p Node<'a>,
    chain: &'p Node<'a>,
    filter: Node<'a>,
}
