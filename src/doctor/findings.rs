//! Findings, and their collection without repetitions.

use std::collections::HashSet;

use serde::Serialize;

use super::node::Node;

/// Severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Unauthorised clients get in or take another identity, or nobody gets in.
    Error,
    /// One more mistake or an outage lets clients in, or requests fail or wait without need.
    Warning,
    /// Worth knowing.
    Note,
}

/// One problem in an Envoy configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Identifier for scripts, stable over versions.
    pub id: &'static str,
    /// Severity.
    pub severity: Severity,
    /// Path of the setting in the dump.
    pub path: String,
    /// Consequence of the problem.
    pub why: String,
    /// Corrected Envoy configuration, in YAML.
    pub fix: String,
}

/// Collects findings. The same finding at the same path counts once.
#[derive(Default)]
pub struct Findings {
    list: Vec<Finding>,
    seen: HashSet<(&'static str, String)>,
}

impl Findings {
    /// Adds a finding about the setting at `node`.
    pub fn add(
        &mut self,
        id: &'static str,
        severity: Severity,
        node: &Node<'_>,
        why: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let path = node.path.clone();
        if self.seen.insert((id, path.clone())) {
            self.list.push(Finding { id, severity, path, why: why.into(), fix: fix.into() });
        }
    }

    /// Returns the findings, the most severe first.
    pub fn sorted(mut self) -> Vec<Finding> {
        self.list.sort_by(|a, b| (a.severity, a.id, &a.path).cmp(&(b.severity, b.id, &b.path)));
        self.list
    }
}
