//! HTTP connection managers: their filters in order, the checks among these, and where their routes lead.

use super::Question;
use super::condition;
use super::dump::Dump;
use super::headers;
use super::node::Node;

/// One HTTP connection manager of a listener.
pub struct Manager<'a> {
    pub node: Node<'a>,
    pub listener: Node<'a>,
    pub filters: Vec<Filter<'a>>,
    /// The filters that ask Talos.
    pub checks: Vec<ExtAuthz<'a>>,
    pub leaves: Vec<Leaf<'a>>,
}

/// One HTTP filter.
pub struct Filter<'a> {
    /// As the chain has it, and as per-route configurations name it.
    pub name: &'a str,
    /// The last part of its type.
    pub kind: Option<&'a str>,
    pub config: Node<'a>,
    pub disabled: bool,
}

/// An ext_authz filter that asks Talos.
pub struct ExtAuthz<'a> {
    pub name: &'a str,
    pub config: Node<'a>,
    /// Its place in the chain.
    pub index: usize,
    /// It is part of a filter that applies it to some requests only.
    pub is_conditional: bool,
    /// Off, unless a route turns it on.
    pub is_disabled: bool,
    /// Identity headers of the client's are gone before it.
    pub is_stripped: bool,
    /// Every request has the metadata on which it depends.
    pub is_always_met: bool,
}

/// One way that a request can take: a route, or one of its weighted clusters.
pub struct Leaf<'a> {
    /// The weighted cluster, the route, the virtual host and the route configuration, so far as there are.
    pub levels: Vec<Node<'a>>,
    /// Where it leads, if the dump says so.
    pub cluster: Option<&'a str>,
    /// Envoy answers itself.
    pub is_answered: bool,
}

impl<'a> Manager<'a> {
    /// Every connection manager of a dump.
    pub fn all(dump: &Dump<'a>, question: Question<'_>) -> Vec<Self> {
        let mut found = vec![];
        for listener in &dump.listeners {
            let default = listener.get("default_filter_chain");
            let api = listener.find("api_listener.api_listener");
            for chain in listener.items("filter_chains").into_iter().chain([default]) {
                for filter in chain.items("filters") {
                    let (kind, config) = filter.get("typed_config").unwrapped();
                    if kind == Some("HttpConnectionManager") {
                        found.push(Self::new(dump, listener, config.at(&chain.path), question));
                    }
                }
            }
            if api.is_a("HttpConnectionManager") {
                found.push(Self::new(dump, listener, api, question));
            }
        }
        found
    }

    fn new(dump: &Dump<'a>, listener: &Node<'a>, node: Node<'a>, question: Question<'_>) -> Self {
        let filters: Vec<Filter<'a>> =
            node.items("http_filters").into_iter().map(|filter| Filter::new(dump, filter)).collect();
        let early = node.items("early_header_mutation_extensions");
        let mut is_stripped = early
            .iter()
            .any(|extension| headers::strip_identity(&extension.get("typed_config").items("mutations")));
        let mut checks: Vec<ExtAuthz<'a>> = vec![];
        for (index, filter) in filters.iter().enumerate() {
            is_stripped |= headers::strip_identity(&filter.mutations());
            checks.extend(filter.checks(index, is_stripped, question));
        }
        let leaves = leaves(dump, &node);
        for check in &mut checks {
            check.is_always_met = condition::is_always_met(check, &filters, &leaves);
        }
        Self { node, listener: listener.clone(), filters, checks, leaves }
    }

    /// The checks of its chain.
    pub fn every_check(&self) -> impl Iterator<Item = &ExtAuthz<'a>> {
        self.checks.iter()
    }

    /// Which way requests go through its listener, so far as Istio says.
    pub fn direction(&self) -> Option<&'a str> {
        self.listener.get("traffic_direction").text()
    }
}

impl Leaf<'_> {
    /// Whether a route, or what is around it, turns a filter off.
    pub fn turns_off(&self, filter: &str) -> bool {
        self.levels
            .iter()
            .any(|level| level.get("typed_per_filter_config").entry(filter).get("disabled").is_true())
    }
}

impl<'a> Filter<'a> {
    fn new(dump: &Dump<'a>, node: Node<'a>) -> Self {
        let name = node.get("name").text().unwrap_or_default();
        let discovered = match node.get("config_discovery").is_absent() {
            true => None,
            false => dump.filter(name).cloned().or_else(|| {
                let default = node.find("config_discovery.default_config");
                (!default.is_absent()).then(|| Node::new(default.value, default.path))
            }),
        };
        let (kind, config) = match discovered {
            // ECDS: the message is wrapped once more, with its name.
            Some(typed) if !typed.get("typed_config").is_absent() => {
                let path = typed.path.clone();
                typed.get("typed_config").at(path).unwrapped()
            }
            Some(typed) => typed.unwrapped(),
            None => node.get("typed_config").at(&node.path).unwrapped(),
        };
        Self { name, kind, config, disabled: node.get("disabled").is_true() }
    }

    /// Whether a filter that stands elsewhere than in a chain asks Talos.
    pub fn asks_talos(node: &Node<'_>, question: Question<'_>) -> bool {
        let (kind, config) = node.get("typed_config").unwrapped();
        kind == Some("ExtAuthz") && asks_talos(&config, question)
    }

    /// What a header_mutation filter does to requests.
    pub fn mutations(&self) -> Vec<Node<'a>> {
        match self.kind {
            Some("HeaderMutation") => self.config.get("mutations").items("request_mutations"),
            _ => vec![],
        }
    }

    /// What a header_mutation filter does to the trailers of requests.
    pub fn trailer_mutations(&self) -> Vec<Node<'a>> {
        match self.kind {
            Some("HeaderMutation") => self.config.get("mutations").items("request_trailers_mutations"),
            _ => vec![],
        }
    }

    /// The checks by Talos that it makes, itself or in a part of it.
    fn checks(&self, index: usize, is_stripped: bool, question: Question<'_>) -> Vec<ExtAuthz<'a>> {
        let check = |config: Node<'a>, is_conditional| ExtAuthz {
            name: self.name,
            config,
            index,
            is_conditional,
            is_disabled: self.disabled,
            is_stripped,
            is_always_met: false,
        };
        if self.kind == Some("ExtAuthz") {
            return match asks_talos(&self.config, question) {
                true => vec![check(self.config.clone(), false)],
                false => vec![],
            };
        }
        let parts = self.config.objects().into_iter().map(|object| object.unwrapped());
        parts
            .filter(|(kind, config)| *kind == Some("ExtAuthz") && asks_talos(config, question))
            .map(|(_, config)| {
                let path = config.path.replace(".typed_config", "");
                check(config.at(path), true)
            })
            .collect()
    }
}

/// Whether an ext_authz configuration asks Talos.
fn asks_talos(config: &Node<'_>, question: Question<'_>) -> bool {
    let service = config.get("grpc_service");
    let cluster = service.find("envoy_grpc.cluster_name").text();
    // Istio's names are `outbound|4423||host`: the host alone will do.
    let is_meant = |wanted: &String| {
        cluster.is_some_and(|name| name == wanted || name.rsplit('|').next() == Some(wanted))
    };
    !service.is_absent() && (question.clusters.is_empty() || question.clusters.iter().any(is_meant))
}

/// Every way through the routes of a connection manager, inline or from elsewhere in the dump.
fn leaves<'a>(dump: &Dump<'a>, manager: &Node<'a>) -> Vec<Leaf<'a>> {
    let mut tables = vec![];
    let inline = manager.get("route_config");
    if !inline.is_absent() {
        tables.push(inline);
    }
    let by_name = |name: Node<'a>| dump.route_config(name.text()?).cloned();
    tables.extend(by_name(manager.find("rds.route_config_name")));
    let scoped = manager.get("scoped_routes");
    let inline = scoped.get("scoped_route_configurations_list").items("scoped_route_configurations");
    let named = scoped.get("name").text().map(|name| dump.scoped(name)).unwrap_or_default();
    for scope in inline.iter().chain(named) {
        let routes = scope.get("route_configuration");
        tables.extend(if routes.is_absent() {
            by_name(scope.get("route_configuration_name"))
        } else {
            Some(routes)
        });
    }
    let mut found = vec![];
    for table in tables {
        for host in table.items("virtual_hosts") {
            let matched = host.get("matcher").objects().into_iter().filter(|object| object.is_a("Route"));
            for route in host.items("routes").into_iter().chain(matched) {
                add_leaves(&table, &host, route, &mut found);
            }
        }
    }
    found
}

fn add_leaves<'a>(table: &Node<'a>, host: &Node<'a>, route: Node<'a>, found: &mut Vec<Leaf<'a>>) {
    let action = route.get("route");
    let is_answered = action.is_absent();
    let weighted = action.get("weighted_clusters").items("clusters");
    if weighted.is_empty() {
        let cluster = action.get("cluster").text();
        found.push(Leaf { levels: vec![route, host.clone(), table.clone()], cluster, is_answered });
        return;
    }
    for one in weighted {
        let cluster = one.get("name").text();
        let levels = vec![one, route.clone(), host.clone(), table.clone()];
        found.push(Leaf { levels, cluster, is_answered });
    }
}
