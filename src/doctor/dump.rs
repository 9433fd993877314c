//! The parts of a configuration dump that the rules examine, indexed by name.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::node::{Node, field, type_name};

/// Depth of objects that a tool may have wrapped around a dump.
const MAX_WRAPPING: usize = 4;

/// The configuration of one Envoy.
pub struct Dump<'a> {
    /// Prefix of all paths, which tells several dumps of a document apart.
    prefix: String,
    /// All listeners.
    pub listeners: Vec<Node<'a>>,
    /// The bootstrap configuration, if the dump has it.
    pub bootstrap: Node<'a>,
    clusters: HashMap<&'a str, Node<'a>>,
    /// Route configurations, by name.
    routes: HashMap<&'a str, Node<'a>>,
    /// Lists of scoped routes, by the name that connection managers refer to.
    scopes: HashMap<&'a str, Vec<Node<'a>>>,
    /// Endpoints (EDS), by the name of their cluster.
    endpoints: HashMap<&'a str, Node<'a>>,
    /// HTTP filters delivered separately (ECDS), by name.
    filters: HashMap<&'a str, Node<'a>>,
}

impl<'a> Dump<'a> {
    /// Returns all dumps in a document.
    pub fn all(document: &'a Value) -> Vec<Self> {
        let mut dumps = vec![];
        collect_dumps(document, String::new(), 0, &mut dumps);
        dumps
    }

    /// Returns an absent node with the path of a part of the dump.
    pub fn root(&self, name: &str) -> Node<'a> {
        Node::absent(format!("{}{name}", self.prefix))
    }

    /// Returns a cluster by name.
    pub fn cluster(&self, name: &str) -> Option<&Node<'a>> {
        self.clusters.get(name)
    }

    /// Returns a route configuration by name.
    pub fn route_config(&self, name: &str) -> Option<&Node<'a>> {
        self.routes.get(name)
    }

    /// Returns a list of scoped routes by name.
    pub fn scoped(&self, name: &str) -> &[Node<'a>] {
        self.scopes.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns the endpoints of a cluster that were delivered separately (EDS).
    pub fn endpoints(&self, cluster: &str) -> Option<&Node<'a>> {
        self.endpoints.get(cluster)
    }

    /// Returns an HTTP filter that was delivered separately (ECDS), by name.
    pub fn filter(&self, name: &str) -> Option<&Node<'a>> {
        self.filters.get(name)
    }

    fn read(configs: &'a [Value], prefix: String) -> Self {
        let place = |name: &str| format!("{prefix}{name}");
        let mut dump = Self {
            listeners: vec![],
            bootstrap: Node::absent(place("bootstrap")),
            clusters: HashMap::new(),
            routes: HashMap::new(),
            scopes: HashMap::new(),
            endpoints: HashMap::new(),
            filters: HashMap::new(),
            prefix: prefix.clone(),
        };
        for config in configs {
            let config = Node::new(config, prefix.clone());
            match type_name(config.value) {
                Some("BootstrapConfigDump") => {
                    dump.bootstrap = config.get("bootstrap").with_path(place("bootstrap"));
                }
                Some("ListenersConfigDump") => {
                    let dynamic = config.items("dynamic_listeners");
                    // A warming listener will become active.
                    let states = ["active_state", "warming_state"].map(|state| {
                        dynamic.iter().map(|one| one.get(state).get("listener")).collect::<Vec<_>>()
                    });
                    let fixed = config.items("static_listeners").into_iter().map(|one| one.get("listener"));
                    for listener in fixed.chain(states.into_iter().flatten()) {
                        dump.add_listener(listener);
                    }
                }
                Some("ClustersConfigDump") => {
                    for list in ["static_clusters", "dynamic_warming_clusters", "dynamic_active_clusters"] {
                        for cluster in config.items(list) {
                            dump.add_cluster(cluster.get("cluster"));
                        }
                    }
                }
                Some("RoutesConfigDump") => {
                    for list in ["static_route_configs", "dynamic_route_configs"] {
                        for routes in config.items(list) {
                            let routes = routes.get("route_config");
                            if let Some(name) = routes.get("name").text() {
                                dump.routes.insert(name, routes.with_path(place(&format!("routes[{name}]"))));
                            }
                        }
                    }
                }
                Some("ScopedRoutesConfigDump") => {
                    for list in ["inline_scoped_route_configs", "dynamic_scoped_route_configs"] {
                        for set in config.items(list) {
                            if let Some(name) = set.get("name").text() {
                                let scopes = set.with_path(place(&format!("scoped_routes[{name}]")));
                                dump.scopes.insert(name, scopes.items("scoped_route_configs"));
                            }
                        }
                    }
                }
                Some("EndpointsConfigDump") => {
                    for list in ["static_endpoint_configs", "dynamic_endpoint_configs"] {
                        for endpoints in config.items(list) {
                            let endpoints = endpoints.get("endpoint_config");
                            if let Some(name) = endpoints.get("cluster_name").text() {
                                dump.endpoints
                                    .insert(name, endpoints.with_path(place(&format!("endpoints[{name}]"))));
                            }
                        }
                    }
                }
                Some("EcdsConfigDump") => {
                    for filter in config.items("ecds_filters") {
                        let filter = filter.get("ecds_filter");
                        if let Some(name) = filter.get("name").text() {
                            dump.filters.insert(name, filter.with_path(place(&format!("ecds[{name}]"))));
                        }
                    }
                }
                _ => {}
            }
        }
        dump
    }

    fn add_listener(&mut self, listener: Node<'a>) {
        if listener.is_absent() {
            return;
        }
        let name = listener.get("name").text().unwrap_or("-");
        let path = format!("{}listeners[{name}]", self.prefix);
        if !self.listeners.iter().any(|known| known.path == path && known.value == listener.value) {
            self.listeners.push(listener.with_path(path));
        }
    }

    fn add_cluster(&mut self, cluster: Node<'a>) {
        if let Some(name) = cluster.get("name").text() {
            self.clusters.insert(name, cluster.with_path(format!("{}clusters[{name}]", self.prefix)));
        }
    }
}

/// Collects the dumps in a value, down to [`MAX_WRAPPING`] levels of objects.
fn collect_dumps<'a>(value: &'a Value, prefix: String, depth: usize, dumps: &mut Vec<Dump<'a>>) {
    let Some(fields) = value.as_object() else { return };
    let configs = fields.get("configs").and_then(Value::as_array);
    let is_dump =
        |kind: &str| ["BootstrapConfigDump", "ListenersConfigDump", "ClustersConfigDump"].contains(&kind);
    match configs {
        Some(configs) if configs.iter().filter_map(type_name).any(is_dump) => {
            dumps.push(Dump::read(configs, prefix));
        }
        _ if depth < MAX_WRAPPING => {
            for (name, value) in fields {
                collect_dumps(value, format!("{prefix}{name}."), depth + 1, dumps);
            }
        }
        _ => {}
    }
}

/// Converts a bootstrap configuration (the input of `envoy -c`) to a dump; returns other documents
/// unchanged.
pub fn from_bootstrap(document: Value) -> Value {
    if field(&document, "static_resources").is_none() && field(&document, "dynamic_resources").is_none() {
        return document;
    }
    let list = |list: &str, wrapper: &str| -> Vec<Value> {
        let items = field(&document, "static_resources").and_then(|resources| field(resources, list));
        let items = items.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        items.iter().map(|item| Value::Object(Map::from_iter([(wrapper.to_owned(), item.clone())]))).collect()
    };
    let (listeners, clusters) = (list("listeners", "listener"), list("clusters", "cluster"));
    json!({ "configs": [
        { "@type": "envoy.admin.v3.BootstrapConfigDump", "bootstrap": document },
        { "@type": "envoy.admin.v3.ListenersConfigDump", "static_listeners": listeners },
        { "@type": "envoy.admin.v3.ClustersConfigDump", "static_clusters": clusters },
    ] })
}

/// Returns true for loopback addresses and `localhost`.
pub fn is_loopback(address: &str) -> bool {
    address.parse::<std::net::IpAddr>().map_or(address == "localhost", |address| address.is_loopback())
}
