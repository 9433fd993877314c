//! Other ways to upstreams that trust identity headers: TCP proxies, and clusters with another name
//! for the same servers; and ways to Envoy's admin interface.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::doctor::connection_manager::ConnectionManager;
use crate::doctor::dump::Dump;
use crate::doctor::findings::{Findings, Severity};
use crate::doctor::headers;
use crate::doctor::http_filter::extension;
use crate::doctor::node::{Node, quoted};

/// Clusters that trust identity headers, as checked routes lead there.
#[derive(Default)]
pub(super) struct TrustingClusters<'m> {
    /// By name, each with a checked route.
    routes: HashMap<&'m str, &'m str>,
    /// By the address of a server.
    servers: HashMap<String, &'m str>,
}

impl<'m> TrustingClusters<'m> {
    /// Adds the cluster of a checked route.
    pub(super) fn insert(&mut self, dump: &Dump<'_>, cluster: &'m str, route: &'m str) {
        if self.routes.contains_key(cluster) {
            return;
        }
        self.routes.insert(cluster, route);
        for server in servers(dump, cluster) {
            self.servers.entry(server).or_insert(cluster);
        }
    }

    /// Returns one of the clusters, the first by name.
    pub(super) fn example(&self) -> &'m str {
        self.routes.keys().copied().min().unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Returns why a cluster trusts identity headers. `None` if it doesn't, as far as is known.
    pub(super) fn reason(&self, dump: &Dump<'_>, cluster: &str) -> Option<String> {
        let members = members(dump, cluster);
        if let Some((member, route)) =
            members.iter().find_map(|member| Some((member, self.routes.get(member)?)))
        {
            let member = if *member == cluster { "" } else { &format!(" by {member}") };
            return Some(format!(
                "{cluster}{member}, which trusts x-talos-* headers because the checked route {route} leads there, too"
            ));
        }
        servers(dump, cluster).into_iter().find_map(|server| {
            let other = self.servers.get(&server)?;
            Some(format!(
                "{cluster}, which has the server {server} in common with {other}: it trusts x-talos-* headers, as the \
                 checked route {} leads there",
                self.routes.get(other).copied().unwrap_or_default()
            ))
        })
    }
}

/// Returns a cluster and, if it is an aggregate, those that it consists of.
fn members<'a>(dump: &Dump<'a>, cluster: &'a str) -> Vec<&'a str> {
    let mut found = vec![cluster];
    let mut next = 0;
    while let Some(name) = found.get(next).copied() {
        next += 1;
        let Some(node) = dump.cluster(name) else { continue };
        let (_, config) = node.get_path("cluster_type.typed_config").unwrap_typed();
        for member in config.items("clusters").iter().filter_map(Node::text) {
            if !found.contains(&member) {
                found.push(member);
            }
        }
    }
    found
}

/// Returns the addresses of a cluster's servers, as far as the dump has them.
fn servers(dump: &Dump<'_>, cluster: &str) -> Vec<String> {
    members(dump, cluster).into_iter().flat_map(|member| own_servers(dump, member)).collect()
}

fn own_servers(dump: &Dump<'_>, cluster: &str) -> Vec<String> {
    let Some(node) = dump.cluster(cluster) else { return vec![] };
    let service = node.get_path("eds_cluster_config.service_name").text().unwrap_or(cluster);
    let lists = [Some(node.get("load_assignment")), dump.endpoints(service).cloned()];
    let endpoints = lists.iter().flatten().flat_map(|list| list.items("endpoints"));
    let addresses = endpoints
        .flat_map(|group| group.items("lb_endpoints"))
        .map(|endpoint| endpoint.get_path("endpoint.address"));
    addresses.filter_map(|address| server(&address)).collect()
}

fn server(address: &Node<'_>) -> Option<String> {
    let socket = address.get("socket_address");
    match (socket.get("address").text(), socket.get("port_value").number()) {
        (Some(host), Some(port)) => Some(format!("{}:{port}", canonical(host))),
        _ => address.get_path("pipe.path").text().map(str::to_owned),
    }
}

/// Returns the usual form of a host, so that two forms of one address are equal.
fn canonical(host: &str) -> String {
    let host = if host.eq_ignore_ascii_case("localhost") { "127.0.0.1" } else { host };
    host.parse::<IpAddr>().map_or_else(|_| host.to_ascii_lowercase(), |ip| ip.to_canonical().to_string())
}

/// Examines the TCP proxies of all listeners.
pub(super) fn check_tcp_proxies(dump: &Dump<'_>, trusting: &TrustingClusters<'_>, findings: &mut Findings) {
    if trusting.is_empty() {
        return;
    }
    for listener in &dump.listeners {
        // The outbound listeners of an Istio sidecar don't receive requests from clients.
        if listener.get("traffic_direction").is_value("OUTBOUND", 2) {
            continue;
        }
        let default = listener.get("default_filter_chain");
        for chain in listener.items("filter_chains").into_iter().chain([default]) {
            for filter in chain.items("filters") {
                if let (Some("TcpProxy"), config) = extension(&filter) {
                    check_tcp_proxy(dump, listener, &config.with_path(&filter.path), trusting, findings);
                }
            }
        }
    }
}

fn check_tcp_proxy(
    dump: &Dump<'_>,
    listener: &Node<'_>,
    config: &Node<'_>,
    trusting: &TrustingClusters<'_>,
    findings: &mut Findings,
) {
    let weighted = config.get("weighted_clusters").items("clusters");
    let names = weighted.iter().map(|cluster| cluster.get("name")).chain([config.get("cluster")]);
    for name in names {
        let Some((cluster, reason)) = name.text().and_then(|text| Some((text, trusting.reason(dump, text)?)))
        else {
            continue;
        };
        // A sidecar has such a chain for what it doesn't take for HTTP.
        let severity = match listener.get("traffic_direction").is_value("INBOUND", 1) {
            true => Severity::Warning,
            false => Severity::Error,
        };
        findings.add(
            "unprotected-route",
            severity,
            &name,
            format!("the TCP proxy leads unchecked to {reason}: a client can send any identity"),
            instead(cluster),
        );
    }
}

/// Checks that no route leads to Envoy's admin interface as a whole.
pub(super) fn check_admin_routes(
    dump: &Dump<'_>,
    managers: &[ConnectionManager<'_>],
    findings: &mut Findings,
) {
    let Some(admin) = server(&dump.bootstrap.get_path("admin.address")) else { return };
    let mut leads_there: HashMap<&str, bool> = HashMap::new();
    for target in managers.iter().flat_map(|manager| &manager.targets) {
        // Weighted cluster, route, virtual host, route configuration.
        let (Some(cluster), Some(route)) = (target.cluster, target.levels.iter().rev().nth(2)) else {
            continue;
        };
        let is_admin = *leads_there.entry(cluster).or_insert_with(|| servers(dump, cluster).contains(&admin));
        if is_admin && let Some((setting, cure)) = leads_to_all_paths(route) {
            findings.add(
                "admin-exposed",
                Severity::Error,
                &setting,
                format!(
                    "the route leads to Envoy's admin interface ({admin}): whoever gets there can stop Envoy, turn filters \
                     off by runtime keys and read its configuration"
                ),
                cure,
            );
        }
    }
}

/// Returns the setting by which a route leads to all paths of its cluster, if any, and the cure.
fn leads_to_all_paths<'a>(route: &Node<'a>) -> Option<(Node<'a>, String)> {
    let (condition, action) = (route.get("match"), route.get("route"));
    let prefix = condition.get("prefix");
    if prefix.text() == Some("/") {
        return Some((prefix, "# remove prefix\npath: /stats/prometheus # only what may be seen".to_owned()));
    }
    // An exact path leads to one path.
    if !condition.get("path").is_absent() {
        return None;
    }
    let only = "prefix_rewrite: /stats/prometheus # only what may be seen";
    let by_prefix = action.get("prefix_rewrite");
    if by_prefix.text() == Some("/") {
        return Some((by_prefix, only.to_owned()));
    }
    ["regex_rewrite", "path_rewrite", "path_rewrite_policy"]
        .into_iter()
        .map(|name| (name, action.get(name)))
        .find(|(_, rewrite)| !rewrite.is_absent())
        .map(|(name, rewrite)| (rewrite, format!("# remove {name}\n{only}")))
}

/// Returns the connection manager that removes identity headers, in place of a TCP proxy.
fn instead(cluster: &str) -> String {
    let removal = headers::removal_yaml().replace('\n', "\n          ");
    format!(
        "filters: # if this is HTTP, without keys; where TLS ends at the upstream, give that another port\n  \
         - name: envoy.filters.network.http_connection_manager\n    typed_config:\n      \
         \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n      \
         stat_prefix: unchecked\n      http_filters:\n        - name: envoy.filters.http.router\n          typed_config:\n            \
         \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router\n      route_config:\n        \
         virtual_hosts:\n          - name: all\n            domains: [\"*\"]\n            routes:\n              \
         - match: {{ prefix: / }}\n                route: {{ cluster: {} }}\n        {removal}",
        quoted(cluster)
    )
}
