//! The parts of a configuration that the rules examine, indexed by name.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use super::node::{Node, short_name, type_name};
use super::tree::Tree;

/// Origin of a configuration, which says what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The input of `envoy -c`.
    Bootstrap,
    /// The `/config_dump` of a running Envoy.
    Running,
    /// Listeners, clusters or routes alone.
    Parts,
}

/// The configuration of one Envoy.
pub(super) struct Dump<'a> {
    /// Prefix of all paths, which tells several dumps of a document apart.
    prefix: String,
    /// Origin of the configuration.
    pub origin: Origin,
    /// All listeners.
    pub listeners: Vec<Node<'a>>,
    /// The bootstrap configuration, if the dump has it.
    pub bootstrap: Node<'a>,
    /// True if the dump has all listeners.
    pub has_listeners: bool,
    /// True if the dump has all clusters.
    pub has_clusters: bool,
    clusters: HashMap<&'a str, Node<'a>>,
    /// Route configurations, by name.
    routes: HashMap<&'a str, Node<'a>>,
    /// Lists of scoped routes, by the name that connection managers refer to.
    scopes: HashMap<&'a str, Vec<Node<'a>>>,
    /// Endpoints (EDS), by the name of their cluster.
    endpoints: HashMap<&'a str, Node<'a>>,
    /// HTTP filters delivered separately (ECDS), by name.
    filters: HashMap<&'a str, Node<'a>>,
    /// Secrets (SDS), by name.
    secrets: HashMap<&'a str, Node<'a>>,
    /// Hashes of the listeners with their names, to find repetitions.
    known: HashSet<u64>,
    hasher: RandomState,
    /// Number of listeners that have a path.
    paths: HashMap<String, usize>,
}

impl<'a> Dump<'a> {
    /// Creates a configuration without parts.
    pub(super) fn new(prefix: String, origin: Origin) -> Self {
        Self {
            bootstrap: Node::absent(format!("{prefix}bootstrap")),
            prefix,
            origin,
            listeners: vec![],
            has_listeners: false,
            has_clusters: false,
            clusters: HashMap::new(),
            routes: HashMap::new(),
            scopes: HashMap::new(),
            endpoints: HashMap::new(),
            filters: HashMap::new(),
            secrets: HashMap::new(),
            known: HashSet::new(),
            hasher: RandomState::new(),
            paths: HashMap::new(),
        }
    }

    /// Reads a bootstrap configuration, the input of `envoy -c`.
    pub(super) fn from_bootstrap(tree: &'a Tree<'a>, prefix: String) -> Self {
        let mut dump = Self::new(prefix, Origin::Bootstrap);
        let bootstrap = Node::new(tree, dump.place("bootstrap"));
        dump.bootstrap = bootstrap;
        dump.finish();
        dump
    }

    /// Takes listeners and clusters from the bootstrap configuration, if it is all that is there.
    pub(super) fn finish(&mut self) {
        let fixed = self.bootstrap.get("static_resources");
        let dynamic = self.bootstrap.get("dynamic_resources");
        if !self.has_listeners && !self.bootstrap.is_absent() {
            self.has_listeners = dynamic.get("lds_config").is_absent();
            fixed.items("listeners").into_iter().for_each(|listener| self.add_listener(listener));
        }
        if !self.has_clusters && !self.bootstrap.is_absent() {
            self.has_clusters = dynamic.get("cds_config").is_absent();
            fixed.items("clusters").into_iter().for_each(|cluster| self.add_cluster(cluster));
        }
        fixed.items("secrets").into_iter().for_each(|secret| self.add_secret(secret));
    }

    /// Takes over the parts of another configuration, as files that a bootstrap refers to.
    pub(super) fn absorb(&mut self, parts: Self) {
        self.has_listeners |= !parts.listeners.is_empty();
        self.has_clusters |= !parts.clusters.is_empty();
        self.listeners.extend(parts.listeners);
        self.clusters.extend(parts.clusters);
        self.routes.extend(parts.routes);
        self.scopes.extend(parts.scopes);
        self.endpoints.extend(parts.endpoints);
        self.filters.extend(parts.filters);
        self.secrets.extend(parts.secrets);
    }

    /// Returns an absent node with the path of a part of the dump.
    pub(super) fn root(&self, name: &str) -> Node<'a> {
        Node { line: self.bootstrap.line, ..Node::absent(self.place(name)) }
    }

    /// Returns true if nothing was found.
    pub(super) fn is_empty(&self) -> bool {
        let maps = [&self.clusters, &self.routes, &self.endpoints, &self.filters, &self.secrets];
        self.listeners.is_empty() && self.scopes.is_empty() && maps.iter().all(|map| map.is_empty())
    }

    /// Returns a cluster by name.
    pub(super) fn cluster(&self, name: &str) -> Option<&Node<'a>> {
        self.clusters.get(name)
    }

    /// Returns a route configuration by name.
    pub(super) fn route_config(&self, name: &str) -> Option<&Node<'a>> {
        self.routes.get(name)
    }

    /// Returns a list of scoped routes by name.
    pub(super) fn scoped(&self, name: &str) -> &[Node<'a>] {
        self.scopes.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns the endpoints of a cluster that were delivered separately (EDS).
    pub(super) fn endpoints(&self, cluster: &str) -> Option<&Node<'a>> {
        self.endpoints.get(cluster)
    }

    /// Returns an HTTP filter that was delivered separately (ECDS), by name.
    pub(super) fn filter(&self, name: &str) -> Option<&Node<'a>> {
        self.filters.get(name)
    }

    /// Returns a secret by name.
    pub(super) fn secret(&self, name: &str) -> Option<&Node<'a>> {
        self.secrets.get(name)
    }

    /// Adds a part of a `/config_dump`, or a resource as a file of an xDS source has it. Returns
    /// false if it is none.
    pub(super) fn add(&mut self, tree: &'a Tree<'a>) -> bool {
        let part = Node::new(tree, self.prefix.clone());
        let of = |lists: &[&str], name: &str| -> Vec<Node<'a>> {
            lists.iter().flat_map(|list| part.items(list)).map(|one| one.get(name)).collect()
        };
        let Some(kind) = type_name(tree).or_else(|| untyped_kind(&part)) else { return false };
        match kind {
            "BootstrapConfigDump" => {
                self.bootstrap = part.get("bootstrap").with_path(self.place("bootstrap"));
            }
            "ListenersConfigDump" => {
                self.has_listeners = true;
                for listener in of(&["static_listeners"], "listener") {
                    self.add_listener(listener);
                }
                part.items("dynamic_listeners")
                    .iter()
                    .for_each(|listener| self.add_dynamic_listener(listener));
            }
            "DynamicListener" => self.add_dynamic_listener(&part),
            "StaticListener" => self.add_listener(part.get("listener")),
            "Listener" => self.add_listener(part),
            "ClustersConfigDump" => {
                self.has_clusters = true;
                let lists = ["static_clusters", "dynamic_warming_clusters", "dynamic_active_clusters"];
                of(&lists, "cluster").into_iter().for_each(|cluster| self.add_cluster(cluster));
            }
            "StaticCluster" | "DynamicCluster" => self.add_cluster(part.get("cluster")),
            "Cluster" => self.add_cluster(part),
            "RoutesConfigDump" => {
                let lists = ["static_route_configs", "dynamic_route_configs"];
                of(&lists, "route_config").into_iter().for_each(|routes| self.add_routes(routes));
            }
            "StaticRouteConfig" | "DynamicRouteConfig" => self.add_routes(part.get("route_config")),
            "RouteConfiguration" => self.add_routes(part),
            "ScopedRoutesConfigDump" => {
                for list in ["inline_scoped_route_configs", "dynamic_scoped_route_configs"] {
                    part.items(list).into_iter().for_each(|set| self.add_scopes(&set));
                }
            }
            "InlineScopedRouteConfigs" | "DynamicScopedRouteConfigs" => self.add_scopes(&part),
            "EndpointsConfigDump" => {
                let lists = ["static_endpoint_configs", "dynamic_endpoint_configs"];
                of(&lists, "endpoint_config").into_iter().for_each(|endpoints| self.add_endpoints(endpoints));
            }
            "ClusterLoadAssignment" => self.add_endpoints(part),
            "EcdsConfigDump" => {
                of(&["ecds_filters"], "ecds_filter").into_iter().for_each(|one| self.add_filter(one))
            }
            "TypedExtensionConfig" => self.add_filter(part),
            "SecretsConfigDump" => {
                let lists = ["static_secrets", "dynamic_active_secrets"];
                of(&lists, "secret").into_iter().for_each(|secret| self.add_secret(secret));
            }
            "StaticSecret" | "DynamicSecret" => self.add_secret(part.get("secret")),
            "Secret" => self.add_secret(part),
            _ => return false,
        }
        true
    }

    fn place(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Adds the states of a listener: a warming one will become active.
    fn add_dynamic_listener(&mut self, listener: &Node<'a>) {
        for state in ["active_state", "warming_state"] {
            self.add_listener(listener.get(state).get("listener"));
        }
    }

    /// Adds a listener. Its path has its name, or its address if it has none.
    fn add_listener(&mut self, listener: Node<'a>) {
        if listener.is_absent() || !self.known.insert(self.hasher.hash_one(listener.tree)) {
            return;
        }
        let name = listener.get("name").text().map_or_else(|| address(&listener), str::to_owned);
        let mut path = self.place(&format!("listeners[{}]", short_name(&name)));
        let number = self.paths.entry(path.clone()).or_default();
        *number += 1;
        let number = *number;
        if number > 1 {
            path = self.place(&format!("listeners[{}, {number}]", short_name(&name)));
        }
        self.listeners.push(listener.with_path(path));
    }

    fn add_cluster(&mut self, cluster: Node<'a>) {
        if let Some(name) = cluster.get("name").text() {
            let path = self.place(&format!("clusters[{}]", short_name(name)));
            self.clusters.insert(name, cluster.with_path(path));
        }
    }

    fn add_routes(&mut self, routes: Node<'a>) {
        if let Some(name) = routes.get("name").text() {
            let path = self.place(&format!("routes[{}]", short_name(name)));
            self.routes.insert(name, routes.with_path(path));
        }
    }

    fn add_scopes(&mut self, set: &Node<'a>) {
        if let Some(name) = set.get("name").text() {
            let scopes = set.with_path(self.place(&format!("scoped_routes[{}]", short_name(name))));
            self.scopes.insert(name, scopes.items("scoped_route_configs"));
        }
    }

    fn add_endpoints(&mut self, endpoints: Node<'a>) {
        if let Some(name) = endpoints.get("cluster_name").text() {
            let path = self.place(&format!("endpoints[{}]", short_name(name)));
            self.endpoints.insert(name, endpoints.with_path(path));
        }
    }

    fn add_filter(&mut self, filter: Node<'a>) {
        if let Some(name) = filter.get("name").text() {
            let path = self.place(&format!("ecds[{}]", short_name(name)));
            self.filters.insert(name, filter.with_path(path));
        }
    }

    fn add_secret(&mut self, secret: Node<'a>) {
        if let Some(name) = secret.get("name").text() {
            let path = self.place(&format!("secrets[{}]", short_name(name)));
            self.secrets.insert(name, secret.with_path(path));
        }
    }
}

/// Returns the kind of a resource without a type, as `istioctl proxy-config` prints it.
fn untyped_kind(part: &Node<'_>) -> Option<&'static str> {
    let has = |name: &str| !part.get(name).is_absent();
    if has("api_version") {
        return None; // a Kubernetes object
    }
    [
        ("Listener", has("filter_chains") || has("default_filter_chain")),
        ("RouteConfiguration", has("virtual_hosts")),
        (
            "Cluster",
            has("name") && (has("load_assignment") || has("eds_cluster_config") || has("connect_timeout")),
        ),
    ]
    .into_iter()
    .find_map(|(kind, is_it)| is_it.then_some(kind))
}

/// Returns the address of a listener as a path shows it.
fn address(listener: &Node<'_>) -> String {
    let address = listener.get("address");
    let socket = address.get("socket_address");
    let port = socket.get("port_value").number().map(|port| port.to_string());
    let port = port.or_else(|| socket.get("named_port").text().map(str::to_owned));
    match (socket.get("address").text(), port) {
        (Some(host), port) => format!("{host}:{}", port.unwrap_or_else(|| "0".to_owned())),
        _ => address.get_path("pipe.path").text().unwrap_or("-").to_owned(),
    }
}

/// Returns true for loopback addresses and `localhost`.
pub(super) fn is_loopback(address: &str) -> bool {
    address.parse::<std::net::IpAddr>().map_or(address == "localhost", |address| address.is_loopback())
}
