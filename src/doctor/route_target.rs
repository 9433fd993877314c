//! The targets that the routes of a connection manager lead to.

use super::dump::Dump;
use super::node::Node;

/// A target of a route: its cluster, or one of its weighted clusters.
pub(super) struct RouteTarget<'a> {
    /// The weighted cluster (if any), the route, the virtual host and the route configuration.
    pub levels: Vec<Node<'a>>,
    /// The upstream cluster, if the dump names it.
    pub cluster: Option<&'a str>,
    /// True if Envoy answers itself, with a redirect or direct response.
    pub is_answered_locally: bool,
}

impl RouteTarget<'_> {
    /// Returns true if some level of the route disables a filter.
    pub(super) fn disables(&self, filter: &str) -> bool {
        self.levels
            .iter()
            .any(|level| level.get("typed_per_filter_config").entry(filter).get("disabled").is_true())
    }
}

impl<'a> RouteTarget<'a> {
    /// Returns the header of the request that names the cluster, if the route leaves that to it.
    pub(super) fn cluster_header(&self) -> Option<&'a str> {
        let level = self.levels.first()?;
        level.get("cluster_header").text().or_else(|| level.get_path("route.cluster_header").text())
    }

    /// Returns the setting by which the route ends CONNECT in Envoy and leads the tunnel's bytes,
    /// which are no longer requests, to the cluster.
    pub(super) fn connect_config(&self) -> Option<Node<'a>> {
        let upgrades = self.levels.iter().flat_map(|level| level.get("route").items("upgrade_configs"));
        upgrades.map(|upgrade| upgrade.get("connect_config")).find(|config| !config.is_absent())
    }
}

/// Returns the targets of all routes of a connection manager, inline or from RDS; `max` at most.
pub(super) fn targets<'a>(dump: &Dump<'a>, manager: &Node<'a>, max: usize) -> Vec<RouteTarget<'a>> {
    let mut found = vec![];
    if max == 0 {
        return found;
    }
    for table in tables(dump, manager).0 {
        for host in table.items("virtual_hosts") {
            let matched =
                host.get("matcher").descendants().into_iter().filter(|object| object.has_type("Route"));
            for route in host.items("routes").into_iter().chain(matched) {
                if found.len() >= max {
                    found.truncate(max);
                    return found;
                }
                push_targets(&table, &host, route, &mut found);
            }
        }
    }
    found
}

/// Returns the route configurations of a connection manager, and the settings that name one which
/// the dump doesn't have.
pub(super) fn tables<'a>(dump: &Dump<'a>, manager: &Node<'a>) -> (Vec<Node<'a>>, Vec<Node<'a>>) {
    let (mut tables, mut unseen) = (vec![], vec![]);
    let inline = manager.get("route_config");
    if !inline.is_absent() {
        tables.push(inline);
    }
    let mut by_name = |name: Node<'a>, tables: &mut Vec<Node<'a>>| match name.text() {
        None => {}
        Some(text) => match dump.route_config(text) {
            Some(table) => tables.push(table.clone()),
            None => unseen.push(name),
        },
    };
    by_name(manager.get_path("rds.route_config_name"), &mut tables);
    let scoped = manager.get("scoped_routes");
    let inline = scoped.get("scoped_route_configurations_list").items("scoped_route_configurations");
    let named = scoped.get("name").text().map(|name| dump.scoped(name)).unwrap_or_default();
    for scope in inline.iter().chain(named) {
        let routes = scope.get("route_configuration");
        match routes.is_absent() {
            true => by_name(scope.get("route_configuration_name"), &mut tables),
            false => tables.push(routes),
        }
    }
    if !scoped.get("scoped_rds").is_absent() && named.is_empty() {
        unseen.push(scoped.get("scoped_rds"));
    }
    (tables, unseen)
}

fn push_targets<'a>(table: &Node<'a>, host: &Node<'a>, route: Node<'a>, found: &mut Vec<RouteTarget<'a>>) {
    let action = route.get("route");
    let is_answered_locally = action.is_absent();
    let mirrors = [&action, host, table].map(|level| level.items("request_mirror_policies"));
    for mirror in mirrors.iter().flatten() {
        let levels = vec![route.clone(), host.clone(), table.clone()];
        found.push(RouteTarget { levels, cluster: mirror.get("cluster").text(), is_answered_locally: false });
    }
    let weighted = action.get("weighted_clusters").items("clusters");
    if weighted.is_empty() {
        let cluster = action.get("cluster").text();
        found.push(RouteTarget {
            levels: vec![route, host.clone(), table.clone()],
            cluster,
            is_answered_locally,
        });
        return;
    }
    for one in weighted {
        let cluster = one.get("name").text();
        let levels = vec![one, route.clone(), host.clone(), table.clone()];
        found.push(RouteTarget { levels, cluster, is_answered_locally });
    }
}
