//! Compiled `authz.routes`: finds the policy of the most specific rule for a request.
//!
//! Of all rules that match, one with a host wins over one without. Then the path decides: exact,
//! then the larger number of literal segments, a template before a prefix, any path before none.
//! Then a rule with methods wins over one without, and last the first in the list.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use super::path::{AmbiguousPath, normal_path};
use super::policy::Policy;
pub use crate::config::Route;

use crate::config::PathMatch;
use crate::host::name_of;

/// Rules of one settings snapshot.
#[derive(Debug, Default)]
pub struct Routes {
    by_host: HashMap<Box<str>, Group>,
    for_any_host: Group,
    has_paths: bool,
    unmatched: Policy,
}

/// Rule as it was configured, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleOrigin {
    /// Position in `authz.routes`, from 0.
    pub index: usize,
    /// Conditions and policy.
    pub route: Arc<Route>,
}

/// Rules for the same host, the most specific first.
#[derive(Debug, Default)]
struct Group {
    rules: Vec<Rule>,
    /// Origins of the rules, by rank.
    origins: Vec<RuleOrigin>,
    /// Rules without a path.
    pathless: Vec<Rank>,
    tree: Node,
}

#[derive(Debug)]
struct Rule {
    /// In upper case; empty means any.
    methods: Box<[Box<[u8]>]>,
    policy: Policy,
}

/// Position of a rule in its group: the smaller one wins.
type Rank = usize;

/// Node of a tree of path segments. Its lists of rules are sorted.
#[derive(Debug, Default)]
struct Node {
    /// Children for literal segments, sorted.
    literals: Vec<(Box<[u8]>, Node)>,
    /// Child for any segment.
    any: Option<Box<Node>>,
    /// Rules for a path that ends here.
    ends: Vec<Rank>,
    /// Rules for every path through here.
    prefixes: Vec<Rank>,
}

impl Routes {
    /// Compiles rules.
    pub fn compile(routes: &[Route]) -> Self {
        let mut hosts: HashMap<Option<Box<str>>, Vec<(usize, &Route)>> = HashMap::new();
        for (index, route) in routes.iter().enumerate() {
            let host = route.host.as_ref().map(|host| normalized_host(host));
            hosts.entry(host).or_default().push((index, route));
        }
        let for_any_host = hosts.remove(&None).map(Group::compile).unwrap_or_default();
        let by_host = hosts.into_iter().filter_map(|(host, routes)| Some((host?, Group::compile(routes))));
        let has_paths = routes.iter().any(|route| route.path.is_some());
        Self { by_host: by_host.collect(), for_any_host, has_paths, unmatched: Policy::default() }
    }

    /// Policy of requests that no rule matches.
    pub const fn unmatched(&self) -> &Policy {
        &self.unmatched
    }

    /// Finds the policy for a request; None when no rule matches.
    ///
    /// # Errors
    /// When some rule has a path, and the path of the request is ambiguous.
    pub fn find(&self, host: &[u8], method: &[u8], target: &[u8]) -> Result<Option<&Policy>, AmbiguousPath> {
        let path = if self.has_paths { normal_path(target, method)? } else { None };
        let mut groups = self.groups(host);
        Ok(groups.find_map(|group| group.find(method, path.as_deref())))
    }

    /// Finds the rule of a request as it was configured; None when no rule matches.
    ///
    /// # Errors
    /// Like [`Routes::find`].
    pub fn find_origin(
        &self,
        host: &[u8],
        method: &[u8],
        target: &[u8],
    ) -> Result<Option<&RuleOrigin>, AmbiguousPath> {
        let path = if self.has_paths { normal_path(target, method)? } else { None };
        let mut groups = self.groups(host);
        Ok(groups.find_map(|group| {
            let rank = group.find_rank(method, path.as_deref())?;
            group.origins.get(rank)
        }))
    }

    /// Returns the groups that a request to this host may match, the more specific first.
    fn groups(&self, host: &[u8]) -> impl Iterator<Item = &Group> {
        let for_host = match self.by_host.is_empty() {
            true => None,
            // A malformed host matches no rule that has a host.
            false => name_of(host).and_then(|name| self.by_host.get(&*name)),
        };
        for_host.into_iter().chain([&self.for_any_host])
    }
}

/// Host of a rule in the form in which hosts of requests are compared. A rule's host has no port,
/// and an IPv6 address has no brackets.
fn normalized_host(host: &str) -> Box<str> {
    let name = match host.contains(':') {
        true => name_of(&format!("[{host}]")).map(Cow::into_owned),
        false => name_of(host).map(Cow::into_owned),
    };
    // The configuration has only valid hosts.
    name.unwrap_or_default().into()
}

impl Group {
    /// Compiles rules, given in the order of the list.
    fn compile(mut routes: Vec<(usize, &Route)>) -> Self {
        // A stable sort keeps the order of the list among equals.
        routes.sort_by_key(|(_, route)| Reverse(specificity(route)));
        let mut group = Self::default();
        for (rank, (index, route)) in routes.into_iter().enumerate() {
            match &route.path {
                None => group.pathless.push(rank),
                Some(PathMatch::Exact(path)) => group.tree.at(literals(path)).ends.push(rank),
                Some(PathMatch::Template(path)) => group.tree.at(pattern(path)).ends.push(rank),
                Some(PathMatch::Prefix(path)) => group.tree.at(literals(trimmed(path))).prefixes.push(rank),
            }
            let methods = route.methods.iter().map(|method| method.as_bytes().into()).collect();
            group.rules.push(Rule { methods, policy: Policy::of_route(route) });
            group.origins.push(RuleOrigin { index, route: Arc::new(route.clone()) });
        }
        group
    }

    fn find(&self, method: &[u8], path: Option<&[u8]>) -> Option<&Policy> {
        self.find_rank(method, path).map(|rank| &self.rules[rank].policy)
    }

    fn find_rank(&self, method: &[u8], path: Option<&[u8]>) -> Option<Rank> {
        let mut best = self.first(&self.pathless, method);
        if let Some(path) = path {
            self.walk(&self.tree, path.strip_prefix(b"/"), method, &mut best);
        }
        best
    }

    /// Follows the rest of a path through the tree, and keeps the best rule that matches. The rest
    /// is None after the end of the path.
    fn walk(&self, node: &Node, rest: Option<&[u8]>, method: &[u8], best: &mut Option<Rank>) {
        let better = |ranks: &[Rank], best: &mut Option<Rank>| {
            *best = self.first(ranks, method).into_iter().chain(*best).min();
        };
        better(&node.prefixes, best);
        let Some(rest) = rest else {
            better(&node.ends, best);
            return;
        };
        let (segment, rest) = match rest.iter().position(|byte| *byte == b'/') {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => (rest, None),
        };
        if let Ok(index) = node.literals.binary_search_by(|(literal, _)| (**literal).cmp(segment)) {
            self.walk(&node.literals[index].1, rest, method, best);
        }
        if let Some(any) = node.any.as_ref().filter(|_| !segment.is_empty()) {
            self.walk(any, rest, method, best);
        }
    }

    /// The first of these rules that allows the method. Case is ignored, as some servers ignore it.
    fn first(&self, ranks: &[Rank], method: &[u8]) -> Option<Rank> {
        let allows = |rank: &Rank| {
            let methods = &self.rules[*rank].methods;
            methods.is_empty() || methods.iter().any(|one| one.eq_ignore_ascii_case(method))
        };
        ranks.iter().copied().find(allows)
    }
}

impl Node {
    /// The node at the end of these segments, made if it is missing. None stands for any segment.
    fn at<'a>(&mut self, segments: impl Iterator<Item = Option<&'a str>>) -> &mut Self {
        segments.fold(self, |node, segment| match segment {
            None => node.any.get_or_insert_default(),
            Some(literal) => {
                let literal = literal.as_bytes();
                let found = node.literals.binary_search_by(|(other, _)| (**other).cmp(literal));
                let index = found.unwrap_or_else(|index| {
                    node.literals.insert(index, (literal.into(), Self::default()));
                    index
                });
                &mut node.literals[index].1
            }
        })
    }
}

/// Sort key of rules for the same host: the greater one wins.
fn specificity(route: &Route) -> (bool, bool, usize, bool, bool) {
    let count = |segments: &mut dyn Iterator<Item = Option<&str>>| {
        segments.flatten().filter(|literal| !literal.is_empty()).count()
    };
    let (is_exact, literals, is_template) = match &route.path {
        None => (false, 0, false),
        Some(PathMatch::Exact(path)) => (true, count(&mut literals(path)), false),
        Some(PathMatch::Template(path)) => (false, count(&mut pattern(path)), true),
        Some(PathMatch::Prefix(path)) => (false, count(&mut literals(trimmed(path))), false),
    };
    (route.path.is_some(), is_exact, literals, is_template, !route.methods.is_empty())
}

/// A prefix without the slash at its end, which has no meaning.
fn trimmed(prefix: &str) -> &str {
    prefix.strip_suffix('/').unwrap_or(prefix)
}

fn literals(path: &str) -> impl Iterator<Item = Option<&str>> {
    path.split('/').skip(1).map(Some)
}

fn pattern(path: &str) -> impl Iterator<Item = Option<&str>> {
    path.split('/').skip(1).map(|segment| (!segment.starts_with('{')).then_some(segment))
}

#[cfg(any(test, feature = "fuzzing"))]
pub mod reference;
#[cfg(test)]
mod tests;
