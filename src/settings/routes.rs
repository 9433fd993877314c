//! `authz.routes`, made ready: from host, method and path of a request to the policy of the most specific rule.
//!
//! Of all rules that match, one with a host wins over one without; then the path decides: exact, then whichever has
//! more literal segments, a template before a prefix, and any path before none; then a rule with methods wins over one
//! without, and at last the first in the list.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;

use super::path::{AmbiguousPath, normal_path};
use super::policy::Policy;
use crate::config::{PathMatch, Route};
use crate::host::name_of;

/// The rules of one settings snapshot.
#[derive(Debug, Default)]
pub struct Routes {
    by_host: HashMap<Box<str>, Group>,
    of_any_host: Group,
    has_paths: bool,
    unmatched: Policy,
}

/// Rules for the same hosts, the most specific first.
#[derive(Debug, Default)]
struct Group {
    rules: Vec<Rule>,
    /// Rules without a path.
    anywhere: Vec<Rank>,
    tree: Node,
}

#[derive(Debug)]
struct Rule {
    /// In upper case; none means any.
    methods: Box<[Box<[u8]>]>,
    policy: Policy,
}

/// The place of a rule among those of its group: a smaller one wins.
type Rank = usize;

/// Rules by the segments of their paths. Each list is in order.
#[derive(Debug, Default)]
struct Node {
    /// Literal segments that may follow, sorted.
    literals: Vec<(Box<[u8]>, Node)>,
    /// What follows a segment of any text.
    any: Option<Box<Node>>,
    /// Rules for the path that ends here.
    ends: Vec<Rank>,
    /// Rules for every path that comes by here.
    prefixes: Vec<Rank>,
}

impl Routes {
    /// Makes rules ready.
    pub fn compile(routes: &[Route]) -> Self {
        let mut hosts: HashMap<Option<Box<str>>, Vec<&Route>> = HashMap::new();
        for route in routes {
            let host = route.host.as_ref().map(|host| name_of_rule(host));
            hosts.entry(host).or_default().push(route);
        }
        let of_any_host = hosts.remove(&None).map(Group::compile).unwrap_or_default();
        let by_host = hosts.into_iter().filter_map(|(host, routes)| Some((host?, Group::compile(routes))));
        let has_paths = routes.iter().any(|route| route.path.is_some());
        Self { by_host: by_host.collect(), of_any_host, has_paths, unmatched: Policy::default() }
    }

    /// The policy of what no rule matches.
    pub const fn unmatched(&self) -> &Policy {
        &self.unmatched
    }

    /// The policy for a request; None when no rule matches.
    ///
    /// # Errors
    /// When some rule has a path, and that of the request is ambiguous.
    pub fn find(&self, host: &[u8], method: &[u8], target: &[u8]) -> Result<Option<&Policy>, AmbiguousPath> {
        let path = if self.has_paths { normal_path(target, method)? } else { None };
        let of_host = match self.by_host.is_empty() {
            true => None,
            // What is no host's name is that of no rule.
            false => name_of(host).and_then(|name| self.by_host.get(&*name)),
        };
        let mut groups = of_host.into_iter().chain([&self.of_any_host]);
        Ok(groups.find_map(|group| group.find(method, path.as_deref())))
    }
}

/// The rule's host as those of requests are compared: it has no port, and an IPv6 address stands without brackets.
fn name_of_rule(host: &str) -> Box<str> {
    let name = match host.contains(':') {
        true => name_of(&format!("[{host}]")).map(Cow::into_owned),
        false => name_of(host).map(Cow::into_owned),
    };
    // The configuration has none that is no name; a request would have none, either.
    name.unwrap_or_default().into()
}

impl Group {
    /// Takes the rules in the order of the list.
    fn compile(mut routes: Vec<&Route>) -> Self {
        // Stable: the first in the list stays first among equals.
        routes.sort_by_key(|route| Reverse(specificity(route)));
        let mut group = Self::default();
        for (rank, route) in routes.into_iter().enumerate() {
            match &route.path {
                None => group.anywhere.push(rank),
                Some(PathMatch::Exact(path)) => group.tree.at(literals(path)).ends.push(rank),
                Some(PathMatch::Template(path)) => group.tree.at(pattern(path)).ends.push(rank),
                Some(PathMatch::Prefix(path)) => group.tree.at(literals(trimmed(path))).prefixes.push(rank),
            }
            let methods = route.methods.iter().map(|method| method.as_bytes().into()).collect();
            group.rules.push(Rule { methods, policy: Policy::of_route(route) });
        }
        group
    }

    fn find(&self, method: &[u8], path: Option<&[u8]>) -> Option<&Policy> {
        let mut best = self.first(&self.anywhere, method);
        if let Some(path) = path {
            self.walk(&self.tree, path.strip_prefix(b"/"), method, &mut best);
        }
        best.map(|rank| &self.rules[rank].policy)
    }

    /// Follows the rest of a path, None after its end, from here on to all rules that match it.
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

    /// The first of these rules that is for this method. Letters in lower case don't make another method of it: there
    /// are servers to which they don't.
    fn first(&self, ranks: &[Rank], method: &[u8]) -> Option<Rank> {
        let takes = |rank: &Rank| {
            let methods = &self.rules[*rank].methods;
            methods.is_empty() || methods.iter().any(|one| one.eq_ignore_ascii_case(method))
        };
        ranks.iter().copied().find(takes)
    }
}

impl Node {
    /// The node after these segments, None standing for any one.
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

/// What makes a rule win over others for the same host: the greater one does.
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

/// A prefix without the slash at its end, which means nothing.
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
