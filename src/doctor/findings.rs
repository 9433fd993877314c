//! Findings, and their collection without repetitions.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use serde::Serialize;

use super::node::Node;

/// Maximum number of findings with the same identifier that are kept. The others are counted.
const MAX_FINDINGS_PER_ID: usize = 1_000;

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
    /// Line of the setting, or of what it is absent from, in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Consequence of the problem.
    pub why: Cow<'static, str>,
    /// Corrected Envoy configuration, in YAML.
    pub fix: Cow<'static, str>,
}

/// Numbers of findings, also of those that aren't kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Findings with the severity error.
    pub errors: usize,
    /// Findings with the severity warning.
    pub warnings: usize,
    /// Findings with the severity note.
    pub notes: usize,
    /// Findings that are counted, but not listed, as there are too many of the kind.
    pub not_listed: usize,
}

/// Collects findings. The same finding at the same path counts once.
#[derive(Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    summary: Summary,
    /// Hashes of identifiers with their paths.
    seen: HashSet<u64>,
    hasher: RandomState,
    numbers: HashMap<(&'static str, Severity), usize>,
}

impl Findings {
    /// Adds a finding about the setting at `node`.
    pub(super) fn add(
        &mut self,
        id: &'static str,
        severity: Severity,
        node: &Node<'_>,
        why: impl Into<Cow<'static, str>>,
        fix: impl Into<Cow<'static, str>>,
    ) {
        if !self.seen.insert(self.hasher.hash_one((id, &node.path))) {
            return;
        }
        *match severity {
            Severity::Error => &mut self.summary.errors,
            Severity::Warning => &mut self.summary.warnings,
            Severity::Note => &mut self.summary.notes,
        } += 1;
        let number = self.numbers.entry((id, severity)).or_default();
        *number += 1;
        if *number > MAX_FINDINGS_PER_ID {
            self.summary.not_listed += 1;
            return;
        }
        let line = (node.line > 0).then_some(node.line);
        self.list.push(Finding {
            id,
            severity,
            path: node.path.clone(),
            line,
            why: why.into(),
            fix: fix.into(),
        });
    }

    /// Returns the findings, the most severe first, and their numbers.
    pub(super) fn sorted(mut self) -> (Vec<Finding>, Summary) {
        self.list.sort_by(|a, b| (a.severity, a.id, &a.path).cmp(&(b.severity, b.id, &b.path)));
        (self.list, self.summary)
    }
}
