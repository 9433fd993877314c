//! `talos doctor`'s rules: finds what in an Envoy's configuration makes key checks unsafe or slow.
//!
//! [`examine`] takes an Envoy's `/config_dump` as JSON and returns findings; it does no I/O. The
//! document is untrusted: a part that is missing or has another form counts as absent.
//!
//! The rules are in `rules/`. The other modules find their way through a dump.

mod connection_manager;
mod dump;
mod findings;
mod headers;
mod http_filter;
mod metadata_condition;
mod node;
mod options;
mod route_target;
mod rules;
#[cfg(test)]
mod tests;

use serde::Serialize;
use serde_json::Value;

use connection_manager::ConnectionManager;
use dump::Dump;
use findings::Findings;
use http_filter::ExtAuthz;
use rules::cluster::GrpcService;

pub use dump::from_bootstrap;
pub use findings::{Finding, Severity};
pub use options::Options;

/// Result of an examination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The findings, the most severe first.
    pub findings: Vec<Finding>,
    /// Counts of what was examined.
    pub examined: Examined,
}

/// Counts of what was examined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Examined {
    /// Number of listeners.
    pub listeners: usize,
    /// Number of HTTP connection managers in their filter chains.
    pub connection_managers: usize,
    /// Number of ext_authz filters among these that call Talos.
    pub filters: usize,
    /// Number of routes of these connection managers.
    pub routes: usize,
    /// Clusters of the Talos servers.
    pub clusters: Vec<String>,
}

/// Error: the document holds no Envoy configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an Envoy configuration dump: it has no `configs` list with listeners, clusters or a bootstrap")]
pub struct NotADump;

/// Examines one or several `/config_dump` documents, also when a tool has wrapped them in objects.
///
/// # Errors
/// Fails when the document holds no dump.
pub fn examine(document: &Value, options: Options<'_>) -> Result<Report, NotADump> {
    let dumps = Dump::all(document);
    if dumps.is_empty() {
        return Err(NotADump);
    }
    let mut findings = Findings::default();
    let mut examined =
        Examined { listeners: 0, connection_managers: 0, filters: 0, routes: 0, clusters: vec![] };
    for dump in &dumps {
        examine_dump(dump, options, &mut findings, &mut examined);
    }
    Ok(Report { findings: findings.sorted(), examined })
}

fn examine_dump(dump: &Dump<'_>, options: Options<'_>, findings: &mut Findings, examined: &mut Examined) {
    let managers = ConnectionManager::all(dump, options);
    let checks: Vec<&ExtAuthz<'_>> = managers.iter().flat_map(|manager| &manager.checks).collect();

    examined.listeners += dump.listeners.len();
    examined.connection_managers += managers.len();
    examined.filters += checks.len();
    examined.routes += managers.iter().map(|manager| manager.targets.len()).sum::<usize>();
    let mut services: Vec<GrpcService<'_>> = vec![];
    for check in &checks {
        services.push(GrpcService::parse(&check.config.get("grpc_service")));
    }
    for manager in &managers {
        services.extend(rules::routes::other_services(manager));
    }
    for service in &services {
        if let Some(name) = service.cluster
            && !examined.clusters.iter().any(|known| known == name)
        {
            examined.clusters.push(name.to_owned());
        }
    }

    rules::process::examine(dump, findings);
    if checks.is_empty() {
        let why = match managers.is_empty() {
            true => "the dump has no HTTP connection manager: no request is checked here",
            false => "no ext_authz filter calls Talos: every request goes upstream as the client sent it",
        };
        findings.add(
            "no-ext-authz",
            Severity::Error,
            &dump.root("listeners"),
            why,
            rules::filter::RECOMMENDED,
        );
    }
    for manager in &managers {
        if manager.checks.is_empty() {
            continue;
        }
        rules::manager::examine(dump, manager, options, findings);
        rules::streams::examine(manager, options, findings);
        for check in &manager.checks {
            rules::filter::examine(check, options, findings);
        }
    }
    rules::routes::examine(&managers, findings);
    for service in &services {
        rules::cluster::examine(dump, service, findings);
    }
}
