//! The parts of a dump that are looked at, wherever they lie in it, and what concerns the process as a whole.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::node::{Node, field, kind_of};
use super::{Findings, Severity};

/// How deep a tool may have wrapped a dump into objects of its own.
const MAX_WRAPPING: usize = 4;

/// One Envoy's configuration.
pub struct Dump<'a> {
    /// What paths begin with, when there are several dumps in a document.
    prefix: String,
    pub listeners: Vec<Node<'a>>,
    pub bootstrap: Node<'a>,
    clusters: HashMap<&'a str, Node<'a>>,
    /// Route configurations by their names.
    routes: HashMap<&'a str, Node<'a>>,
    /// Lists of scoped routes, by the name that the connection manager has for them.
    scopes: HashMap<&'a str, Vec<Node<'a>>>,
    endpoints: HashMap<&'a str, Node<'a>>,
    /// Filters that come by themselves (ECDS), by their names.
    filters: HashMap<&'a str, Node<'a>>,
}

impl<'a> Dump<'a> {
    /// Every dump in a document.
    pub fn all(document: &'a Value) -> Vec<Self> {
        let mut found = vec![];
        search(document, String::new(), 0, &mut found);
        found
    }

    /// Nothing, at the place where a part of the dump would be.
    pub fn root(&self, name: &str) -> Node<'a> {
        Node::absent(format!("{}{name}", self.prefix))
    }

    pub fn cluster(&self, name: &str) -> Option<&Node<'a>> {
        self.clusters.get(name)
    }

    pub fn route_config(&self, name: &str) -> Option<&Node<'a>> {
        self.routes.get(name)
    }

    pub fn scoped(&self, name: &str) -> &[Node<'a>] {
        self.scopes.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// The endpoints of a cluster, as they came apart from it.
    pub fn endpoints(&self, cluster: &str) -> Option<&Node<'a>> {
        self.endpoints.get(cluster)
    }

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
            match kind_of(config.value) {
                Some("BootstrapConfigDump") => {
                    dump.bootstrap = config.get("bootstrap").at(place("bootstrap"));
                }
                Some("ListenersConfigDump") => {
                    let dynamic = config.items("dynamic_listeners");
                    // What is being warmed is what comes next.
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
                                dump.routes.insert(name, routes.at(place(&format!("routes[{name}]"))));
                            }
                        }
                    }
                }
                Some("ScopedRoutesConfigDump") => {
                    for list in ["inline_scoped_route_configs", "dynamic_scoped_route_configs"] {
                        for set in config.items(list) {
                            if let Some(name) = set.get("name").text() {
                                let scopes = set.at(place(&format!("scoped_routes[{name}]")));
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
                                    .insert(name, endpoints.at(place(&format!("endpoints[{name}]"))));
                            }
                        }
                    }
                }
                Some("EcdsConfigDump") => {
                    for filter in config.items("ecds_filters") {
                        let filter = filter.get("ecds_filter");
                        if let Some(name) = filter.get("name").text() {
                            dump.filters.insert(name, filter.at(place(&format!("ecds[{name}]"))));
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
            self.listeners.push(listener.at(path));
        }
    }

    fn add_cluster(&mut self, cluster: Node<'a>) {
        if let Some(name) = cluster.get("name").text() {
            self.clusters.insert(name, cluster.at(format!("{}clusters[{name}]", self.prefix)));
        }
    }
}

fn search<'a>(value: &'a Value, prefix: String, depth: usize, found: &mut Vec<Dump<'a>>) {
    let Some(fields) = value.as_object() else { return };
    let configs = fields.get("configs").and_then(Value::as_array);
    let is_dump =
        |kind: &str| ["BootstrapConfigDump", "ListenersConfigDump", "ClustersConfigDump"].contains(&kind);
    match configs {
        Some(configs) if configs.iter().filter_map(kind_of).any(is_dump) => {
            found.push(Dump::read(configs, prefix));
        }
        _ if depth < MAX_WRAPPING => {
            for (name, value) in fields {
                search(value, format!("{prefix}{name}."), depth + 1, found);
            }
        }
        _ => {}
    }
}

/// A bootstrap configuration (what `envoy -c` reads) as the dump that an Envoy would give of it; anything else as it is.
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

/// What concerns the whole process.
pub fn process(dump: &Dump<'_>, found: &mut Findings) {
    let bootstrap = &dump.bootstrap;
    if bootstrap.is_absent() {
        return;
    }
    let address = bootstrap.find("admin.address.socket_address.address");
    if address.text().is_some_and(|address| !is_loopback(address)) {
        found.add(
            "admin-exposed",
            Severity::Error,
            &address,
            "whoever reaches Envoy's admin interface stops it, turns filters off by runtime keys and reads its \
             configuration",
            "admin:\n  address: { socket_address: { address: 127.0.0.1, port_value: 9901 } }",
        );
    }
    let monitors = bootstrap.find("overload_manager").items("resource_monitors");
    let has_limit = monitors.iter().any(|monitor| {
        monitor.get("name").text().is_some_and(|name| name.contains("downstream_max_connections"))
    });
    let limits = bootstrap.get("layered_runtime").any_text(|_| true)
        && bootstrap.get("layered_runtime").objects().iter().any(|layer| {
            let layer = layer.value.as_object();
            layer.is_some_and(|layer| layer.contains_key("overload.global_downstream_max_connections"))
        });
    if !has_limit && !limits {
        found.add(
            "no-connection-limit",
            Severity::Note,
            &bootstrap.get("overload_manager"),
            "clients can open connections until the process has no file descriptors left, those to Talos included",
            "overload_manager:\n  resource_monitors:\n    - name: envoy.resource_monitors.global_downstream_max_connections\n      \
             typed_config:\n        \"@type\": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig\n        \
             max_active_downstream_connections: 10000",
        );
    }
}

/// Whether an address of a socket is this machine's own.
pub fn is_loopback(address: &str) -> bool {
    address.parse::<std::net::IpAddr>().map_or(address == "localhost", |address| address.is_loopback())
}
