//! `talos doctor`'s knowledge: what in an Envoy's configuration makes the check of keys unsafe or slow.
//!
//! Pure: [`examine`] takes an Envoy's `/config_dump` as JSON and gives findings. It believes nothing about the
//! document: what isn't there or has another form counts as absent.

mod chain;
mod cluster;
mod condition;
mod dump;
mod filter;
mod headers;
mod manager;
mod node;
mod routes;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use serde::Serialize;
use serde_json::Value;

use crate::config::Authz;
use chain::Manager;
use dump::Dump;
use node::Node;

pub use dump::from_bootstrap;

/// What is asked about a dump.
#[derive(Debug, Default, Clone, Copy)]
pub struct Question<'a> {
    /// The clusters behind which Talos is; empty means that every ext_authz filter that speaks gRPC asks Talos.
    pub clusters: &'a [String],
    /// Talos' own settings, if they are to be compared.
    pub authz: Option<&'a Authz>,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Somebody gets in who shouldn't, becomes somebody else, or nobody gets in.
    Error,
    /// A door that one more mistake or an outage opens, or requests that fail or wait without need.
    Warning,
    /// Worth knowing.
    Note,
}

/// One thing that should be otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is, for scripts: it stays the same over versions.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Where in the dump.
    pub path: String,
    /// What goes wrong.
    pub why: String,
    /// A piece of Envoy's configuration, in YAML, as it should be.
    pub fix: String,
}

/// What was found, the worst first, and what was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
    /// What the dump has.
    pub examined: Examined,
}

/// What a dump has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Examined {
    /// Listeners.
    pub listeners: usize,
    /// HTTP connection managers in their filter chains.
    pub connection_managers: usize,
    /// ext_authz filters in these that ask Talos.
    pub filters: usize,
    /// Routes of these connection managers.
    pub routes: usize,
    /// The clusters behind which Talos is.
    pub clusters: Vec<String>,
}

/// Why a document can't be examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is no Envoy configuration dump: it has no `configs` with an Envoy's listeners, clusters or bootstrap"
)]
pub struct NotADump;

/// Examines an Envoy's `/config_dump`, also where a tool has wrapped one or several into objects of its own.
///
/// # Errors
/// When the document holds no dump.
pub fn examine(document: &Value, question: Question<'_>) -> Result<Report, NotADump> {
    let dumps = Dump::all(document);
    if dumps.is_empty() {
        return Err(NotADump);
    }
    let mut found = Findings::default();
    let mut examined =
        Examined { listeners: 0, connection_managers: 0, filters: 0, routes: 0, clusters: vec![] };
    for dump in &dumps {
        one(dump, question, &mut found, &mut examined);
    }
    Ok(Report { findings: found.sorted(), examined })
}

fn one(dump: &Dump<'_>, question: Question<'_>, found: &mut Findings, examined: &mut Examined) {
    let managers = Manager::all(dump, question);
    let asking: Vec<&chain::ExtAuthz<'_>> =
        managers.iter().flat_map(|manager| manager.every_check()).collect();

    examined.listeners += dump.listeners.len();
    examined.connection_managers += managers.len();
    examined.filters += asking.len();
    examined.routes += managers.iter().map(|manager| manager.leaves.len()).sum::<usize>();
    let mut services: Vec<cluster::Service<'_>> = vec![];
    for check in &asking {
        services.push(cluster::Service::of(&check.config.get("grpc_service")));
    }
    for manager in &managers {
        services.extend(routes::other_services(manager));
    }
    for service in &services {
        if let Some(name) = service.cluster
            && !examined.clusters.iter().any(|known| known == name)
        {
            examined.clusters.push(name.to_owned());
        }
    }

    dump::process(dump, found);
    if asking.is_empty() {
        let what = match managers.is_empty() {
            true => "the dump has no HTTP connection manager, so no request is checked here",
            false => "no ext_authz filter asks Talos, so every request goes upstream as the client sent it",
        };
        found.add("no-ext-authz", Severity::Error, &dump.root("listeners"), what, filter::WHOLE);
    }
    for manager in &managers {
        if manager.checks.is_empty() {
            continue;
        }
        manager::examine(dump, manager, question, found);
        for check in manager.every_check() {
            filter::examine(check, question, found);
        }
    }
    routes::examine(&managers, found);
    for service in &services {
        cluster::examine(dump, service, found);
    }
}

/// Findings in the making; the same one at the same place counts once.
#[derive(Default)]
struct Findings {
    list: Vec<Finding>,
    seen: HashSet<(&'static str, String)>,
}

impl Findings {
    fn add(
        &mut self,
        id: &'static str,
        severity: Severity,
        at: &Node<'_>,
        why: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let path = at.path.clone();
        if self.seen.insert((id, path.clone())) {
            self.list.push(Finding { id, severity, path, why: why.into(), fix: fix.into() });
        }
    }

    fn sorted(mut self) -> Vec<Finding> {
        self.list.sort_by(|a, b| (a.severity, a.id, &a.path).cmp(&(b.severity, b.id, &b.path)));
        self.list
    }
}
