//! `talos doctor`'s rules: finds what in an Envoy's configuration makes key checks unsafe or slow.
//!
//! [`examine`] takes the text of an Envoy's `/config_dump` or configuration file and returns
//! findings; it does no I/O. The text is untrusted: a part that is missing or has another form
//! counts as absent.
//!
//! The rules are in `rules/`. The other modules read the text as Envoy does, and find their way
//! through it.

mod accelerator;
mod carriers;
mod connection_manager;
mod document;
mod dump;
mod findings;
mod headers;
mod http_filter;
mod metadata_condition;
mod node;
mod options;
mod reader;
mod route_target;
mod rules;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::HashSet;

use serde::Serialize;

use connection_manager::ConnectionManager;
use document::{Embedded, Found};
use dump::Dump;
use findings::Findings;
use http_filter::ExtAuthz;
use rules::cluster::GrpcService;

pub use document::NotADump;
pub use findings::{Finding, Severity, Summary};
pub use options::Options;

/// Result of an examination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The findings, the most severe first.
    pub findings: Vec<Finding>,
    /// Numbers of findings.
    pub summary: Summary,
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

/// Examines Envoy configurations: the answer to `/config_dump`, also when a tool has wrapped it in
/// objects, the input of `envoy -c`, parts of these, or ConfigMaps that hold them.
///
/// # Errors
/// Fails when the text can't be read, or holds no Envoy configuration.
pub fn examine(text: &str, options: Options<'_>) -> Result<Report, NotADump> {
    let documents = document::read(text)?;
    let embedded: Vec<Embedded<'_>> = document::embedded(&documents);
    let inner = embedded.iter().map(Embedded::read).collect::<Result<Vec<_>, _>>()?;
    let mut found = Found::new();
    for (index, document) in documents.iter().enumerate() {
        let prefix = if index == 0 { String::new() } else { format!("document {}: ", index + 1) };
        found.collect(document, &prefix);
    }
    for (of, documents) in embedded.iter().zip(&inner) {
        documents.iter().for_each(|document| found.collect(document, of.prefix()));
    }
    if found.is_empty() {
        return Err(found.why_none(&documents));
    }
    let mut findings = Findings::default();
    let mut examined =
        Examined { listeners: 0, connection_managers: 0, filters: 0, routes: 0, clusters: vec![] };
    rules::coverage::check_documents(&documents, &found, &mut findings);
    for dump in &found.into_dumps() {
        examine_dump(dump, options, &mut findings, &mut examined);
    }
    let (findings, summary) = findings.sorted();
    Ok(Report { findings, summary, examined })
}

/// Runs all rules on a dump, and counts what was examined.
fn examine_dump(dump: &Dump<'_>, options: Options<'_>, findings: &mut Findings, examined: &mut Examined) {
    let managers = ConnectionManager::all(dump, options);
    let checks: Vec<&ExtAuthz<'_>> = managers.iter().flat_map(|manager| &manager.checks).collect();

    examined.listeners += dump.listeners.len();
    examined.connection_managers += managers.len();
    examined.filters += checks.len();
    examined.routes += managers.iter().map(|manager| manager.targets.len()).sum::<usize>();
    let mut services: Vec<GrpcService<'_>> = vec![];
    let mut named: HashSet<&str> = HashSet::new();
    for check in &checks {
        services.push(GrpcService::parse(&check.config.get("grpc_service"), options));
    }
    for manager in &managers {
        services.extend(rules::routes::other_services(manager, options));
    }
    for service in &services {
        if let Some(name) = service.cluster
            && named.insert(name)
        {
            examined.clusters.push(name.to_owned());
        }
    }

    rules::process::examine(dump, findings);
    rules::coverage::examine(dump, &managers, options, findings);
    for manager in &managers {
        rules::api::examine(manager, findings);
        // Where no request is checked, the settings of the filter to come are told at once.
        if manager.checks.is_empty() && !(checks.is_empty() && rules::coverage::is_for_clients(manager)) {
            continue;
        }
        rules::manager::examine(dump, manager, options, findings);
        rules::streams::examine(manager, options, findings);
        if !manager.checks.is_empty() {
            rules::overwrites::examine(dump, manager, findings);
            rules::logged_keys::examine(manager, options, findings);
            rules::copied_keys::examine(manager, options, findings);
            rules::rate_limits::examine(manager, options, findings);
        }
        rules::accelerator::examine(manager, findings);
        for check in &manager.checks {
            rules::filter::examine(check, options, findings);
            rules::runtime::examine(dump, check, findings);
        }
    }
    rules::routes::examine(dump, &managers, findings);
    rules::policy::examine(&managers, findings);
    rules::cluster::examine(dump, &services, findings);
}
