//! Findings about what a configuration doesn't show, and about requests that nothing checks.

use super::cure;
use crate::doctor::connection_manager::{ConnectionManager, MAX_TARGETS};
use crate::doctor::document::Found;
use crate::doctor::dump::{Dump, Origin};
use crate::doctor::findings::{Findings, Severity};
use crate::doctor::node::{Node, field, to_yaml};
use crate::doctor::options::Options;
use crate::doctor::route_target;
use crate::doctor::tree::Tree;

/// Port of Envoy's admin interface in most examples.
const USUAL_ADMIN: &str = "127.0.0.1:9901";

/// Reports documents from which nothing was read.
pub(crate) fn check_documents(documents: &[Tree<'_>], found: &Found<'_>, findings: &mut Findings) {
    let is_bootstrap = |tree: &Tree<'_>| field(tree, "static_resources").is_some();
    if let [first, second, ..] = documents
        && is_bootstrap(first)
    {
        findings.add(
            "second-document",
            Severity::Warning,
            &Node { line: second.line, ..Node::absent("document 2") },
            "Envoy reads the first document of a file only",
            "# remove the line `---`, or put each document into a file",
        );
    }
    for object in found.sources() {
        findings.add(
            "unseen",
            Severity::Note,
            &Node { line: object.line, ..Node::absent(object.name.as_str()) },
            format!("{}: {}", object.name, object.advice),
            "# examine the configuration that Envoy has",
        );
    }
}

/// Reports parts of a configuration that are elsewhere, and requests that nothing checks.
pub(crate) fn examine(
    dump: &Dump<'_>,
    managers: &[ConnectionManager<'_>],
    options: Options<'_>,
    findings: &mut Findings,
) {
    let is_complete = check_listeners(dump, findings);
    for manager in managers {
        check_routes(dump, manager, findings);
        check_discovered(dump, manager, findings);
    }
    if managers.iter().any(|manager| manager.has_more_targets) {
        findings.add(
            "unseen",
            Severity::Warning,
            &dump.root("routes"),
            format!("only the first {MAX_TARGETS} routes were examined, those that listeners share counted for each"),
            "# examine a part, such as /config_dump?resource=dynamic_listeners&name_regex=NAME",
        );
    }
    let is_discovered = managers.iter().any(|manager| manager.filters.iter().any(|filter| filter.is_unseen));
    if is_complete && !is_discovered && managers.iter().all(|manager| manager.checks.is_empty()) {
        check_absence(dump, managers, options, findings);
    }
}

/// Returns true for a connection manager that receives requests of clients.
pub(crate) fn is_for_clients(manager: &ConnectionManager<'_>) -> bool {
    !manager.is_outbound()
}

/// Reports listeners that are elsewhere. Returns true if those that are here are judged alone.
fn check_listeners(dump: &Dump<'_>, findings: &mut Findings) -> bool {
    if dump.has_listeners || (dump.origin == Origin::Parts && !dump.listeners.is_empty()) {
        return true;
    }
    let source = dump.bootstrap.get_path("dynamic_resources.lds_config");
    let (place, why) = match source.is_absent() {
        false => (
            source.clone(),
            format!("the listeners come from {}, so this file doesn't tell if requests are checked", origin(&source)),
        ),
        true => (
            dump.root("listeners"),
            "the listeners are not in this part of a configuration, so it doesn't tell if requests are checked".to_owned(),
        ),
    };
    findings.add("unseen", Severity::Warning, &place, why, ask_envoy(dump));
    false
}

/// Reports routes that are elsewhere.
fn check_routes(dump: &Dump<'_>, manager: &ConnectionManager<'_>, findings: &mut Findings) {
    let (tables, unseen) = route_target::tables(dump, &manager.node);
    for name in unseen {
        let of = name.text().map(|name| format!(" {name}")).unwrap_or_default();
        findings.add(
            "unseen",
            Severity::Warning,
            &name,
            format!(
                "the routes{of} come from {}: what they disable, which policies they have and where they lead isn't \
                 known here",
                origin(&manager.node.get_path("rds.config_source"))
            ),
            ask_envoy(dump),
        );
    }
    for table in tables {
        let on_demand = table.get("vhds");
        if !on_demand.is_absent() {
            findings.add(
                "unseen",
                Severity::Note,
                &on_demand,
                "more virtual hosts come on demand (VHDS)",
                ask_envoy(dump),
            );
        }
    }
}

/// Reports filters that are elsewhere.
fn check_discovered(dump: &Dump<'_>, manager: &ConnectionManager<'_>, findings: &mut Findings) {
    for filter in manager.filters.iter().filter(|filter| filter.is_unseen) {
        let source = filter.node.get("config_discovery");
        findings.add(
            "unseen",
            Severity::Warning,
            &source,
            format!(
                "the filter's configuration comes from {}: it may be the one that calls Talos",
                origin(&source.get("config_source"))
            ),
            ask_envoy(dump),
        );
    }
}

/// Reports connection managers of which none has a check.
fn check_absence(
    dump: &Dump<'_>,
    managers: &[ConnectionManager<'_>],
    options: Options<'_>,
    findings: &mut Findings,
) {
    let mut is_reported = false;
    for manager in managers.iter().filter(|manager| is_for_clients(manager)) {
        is_reported = true;
        let mut services = manager.filters.iter().filter(|filter| filter.kind == Some("ExtAuthz"));
        let of_http = services.clone().find(|filter| !filter.config.get("http_service").is_absent());
        if let Some(filter) = of_http {
            let service = filter.config.get("http_service");
            let uri = service.get_path("server_uri.uri").text().unwrap_or("an HTTP service");
            findings.add(
                "http-service",
                Severity::Error,
                &service,
                format!("this ext_authz filter calls {uri} by HTTP; Talos answers gRPC only"),
                cure::filter(&to_yaml(filter.name)),
            );
            continue;
        }
        let why = match services.next() {
            Some(other) => format!(
                "no ext_authz filter calls {}: that of this chain calls {}",
                options.clusters.join(", "),
                other.config.get_path("grpc_service.envoy_grpc.cluster_name").text().unwrap_or("none"),
            ),
            None => "no ext_authz filter calls Talos: every request goes upstream as the client sent it"
                .to_owned(),
        };
        findings.add(
            "no-ext-authz",
            Severity::Error,
            &manager.node.get("http_filters"),
            why,
            cure::recommended(),
        );
    }
    if !is_reported {
        findings.add(
            "no-ext-authz",
            Severity::Error,
            &dump.root("listeners"),
            match managers.is_empty() {
                true => "there is no HTTP connection manager: no request is checked here",
                false => "no ext_authz filter calls Talos: every request goes upstream as the client sent it",
            },
            cure::recommended(),
        );
    }
}

/// Returns where a configuration source has its resources from.
pub(crate) fn origin(source: &Node<'_>) -> String {
    let path = source.get_path("path_config_source.path").text().or_else(|| source.get("path").text());
    let api = source.get("api_config_source");
    let service = api.items("grpc_services");
    let cluster = service.iter().find_map(|one| one.get_path("envoy_grpc.cluster_name").text());
    match (path, cluster) {
        (Some(path), _) => format!("the file {path}"),
        (None, Some(cluster)) => format!("the xDS server of the cluster {cluster}"),
        (None, None) => "an xDS server".to_owned(),
    }
}

/// Returns how to examine the running Envoy.
pub(crate) fn ask_envoy(dump: &Dump<'_>) -> String {
    let address = dump.bootstrap.get_path("admin.address.socket_address");
    let port = address.get("port_value").number().filter(|port| *port > 0);
    let host = address.get("address").text().filter(|host| host.parse::<std::net::IpAddr>().is_ok());
    let admin = match (host, port) {
        (Some("0.0.0.0" | "::"), Some(port)) => format!("127.0.0.1:{port}"),
        (Some(host), Some(port)) if host.contains(':') => format!("[{host}]:{port}"),
        (Some(host), Some(port)) => format!("{host}:{port}"),
        _ => USUAL_ADMIN.to_owned(),
    };
    format!("# ask the running Envoy, at its admin interface:\n# talos doctor http://{admin}")
}
