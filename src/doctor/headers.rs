//! Identity headers that upstreams trust, and Envoy's matchers and mutations of header names.

use regex::RegexBuilder;

use super::node::Node;
use crate::authz::header_names::{HEADER_PREFIX, fold, is_reserved};
use crate::authz::identity_headers::IDENTITY_HEADERS;

/// Result of matching a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    /// The matcher matches.
    Yes,
    /// The matcher doesn't match.
    No,
    /// Unknown: the matcher is a regular expression that isn't valid or too large.
    Unknown,
}

/// Returns true for `x-talos-` names, in any spelling that servers take for them.
pub(super) fn is_talos_header(name: &str) -> bool {
    is_reserved(name.as_bytes())
}

/// Returns true if a text, such as a script, has an `x-talos-` name in it.
pub(super) fn mentions_talos(text: &str) -> bool {
    let text: String = text.chars().map(|c| u8::try_from(c).map_or(c, |byte| fold(byte).into())).collect();
    text.contains(HEADER_PREFIX)
}

/// Matches a name against an `envoy.type.matcher.v3.ListStringMatcher`.
pub(super) fn list_matches(list: &Node<'_>, name: &str) -> Match {
    let patterns = list.items("patterns");
    let mut best = if patterns.len() > MAX_PATTERNS { Match::Unknown } else { Match::No };
    for pattern in patterns.into_iter().take(MAX_PATTERNS) {
        match string_matches(&pattern, name) {
            Match::Yes => return Match::Yes,
            Match::Unknown => best = Match::Unknown,
            Match::No => {}
        }
    }
    best
}

/// The regular expression for `x-talos-` names in the configurations that this project ships.
///
/// It matches what [`is_talos_header`] is true for: Envoy holds names in lower case.
pub(super) const TALOS_HEADER_REGEX: &str = "x[^a-z0-9]talos[^a-z0-9].*";

/// Longest regular expression that is evaluated, and size of a compiled one, in bytes.
const MAX_REGEX: usize = 1024;
/// Patterns of a list that are matched; more are as good as unknown. Each name of a list compiles
/// its expressions anew.
const MAX_PATTERNS: usize = 64;
const MAX_COMPILED_REGEX: usize = 64 * 1024;

/// Spellings of an identity header that many servers take for it.
const SPELLINGS: [&str; 2] = ["x_talos_actor_id", "x.talos.actor.id"];

/// Matches a name against an `envoy.type.matcher.v3.StringMatcher`.
pub(super) fn string_matches(matcher: &Node<'_>, name: &str) -> Match {
    let ignores_case = matcher.get("ignore_case").is_true();
    let fold = |text: &str| if ignores_case { text.to_ascii_lowercase() } else { text.to_owned() };
    let name = fold(name);
    for (field, matches) in [
        ("exact", (|name, text| name == text) as fn(&str, &str) -> bool),
        ("prefix", |name, text| name.starts_with(text)),
        ("suffix", |name, text| name.ends_with(text)),
        ("contains", |name, text| name.contains(text)),
    ] {
        if let Some(text) = matcher.get(field).raw_text() {
            return Match::from(matches(&name, &fold(text)));
        }
    }
    regex_matches(&matcher.get("safe_regex"), &name)
}

/// Matches a name against an `envoy.type.matcher.v3.RegexMatcher`, which matches whole texts.
///
/// Envoy's expressions are those of RE2. Those that the `regex` crate reads mean the same there.
pub(super) fn regex_matches(matcher: &Node<'_>, name: &str) -> Match {
    let Some(text) = matcher.get("regex").raw_text().filter(|text| text.len() <= MAX_REGEX) else {
        return Match::Unknown;
    };
    let whole = format!(r"\A(?:{text})\z");
    match RegexBuilder::new(&whole).size_limit(MAX_COMPILED_REGEX).build() {
        Ok(regex) => Match::from(regex.is_match(name)),
        Err(_) => Match::Unknown,
    }
}

impl From<bool> for Match {
    fn from(matches: bool) -> Self {
        if matches { Self::Yes } else { Self::No }
    }
}

/// Returns true if a list of header mutations removes a header.
fn removes(mutations: &[Node<'_>], header: &str) -> bool {
    mutations.iter().any(|mutation| {
        let removed = mutation.get("remove").text().is_some_and(|name| name.eq_ignore_ascii_case(header));
        let matcher = mutation.get_path("remove_on_match.key_matcher");
        removed || (!matcher.is_absent() && string_matches(&matcher, header) == Match::Yes)
    })
}

/// Returns true if a list of header mutations removes all headers that upstreams trust: the
/// identity headers and the token header.
pub(super) fn removes_all_trusted(mutations: &[Node<'_>], token_header: &str) -> bool {
    removes_all_identity(mutations) && removes(mutations, token_header)
}

/// Returns true if a list of header mutations
/// (`envoy.config.common.mutation_rules.v3.HeaderMutation`) removes all identity headers.
pub(super) fn removes_all_identity(mutations: &[Node<'_>]) -> bool {
    IDENTITY_HEADERS.iter().all(|header| removes(mutations, header))
}

/// Returns true if a list of header mutations removes other spellings of identity headers, too.
pub(super) fn removes_spellings(mutations: &[Node<'_>]) -> bool {
    SPELLINGS.iter().all(|name| removes(mutations, name))
}

/// Returns the name in the first mutation that sets an `x-talos-` header.
pub(super) fn find_identity_override<'a>(mutations: &[Node<'a>]) -> Option<Node<'a>> {
    mutations
        .iter()
        .map(|mutation| mutation.get_path("append.header.key"))
        .find(|key| key.text().is_some_and(is_talos_header))
}

/// Returns true if `request_headers_to_remove` lists all identity headers.
pub(super) fn lists_all_identity(node: &Node<'_>) -> bool {
    let names = node.items("request_headers_to_remove");
    IDENTITY_HEADERS.iter().all(|header| {
        names.iter().any(|name| name.text().is_some_and(|name| name.eq_ignore_ascii_case(header)))
    })
}

/// Returns the YAML that removes identity headers from unchecked requests.
pub(super) fn removal_yaml() -> String {
    let names: String = IDENTITY_HEADERS.iter().map(|name| format!("\n  - {name}")).collect();
    format!("request_headers_to_remove:{names}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::reader::read;

    #[test]
    fn matchers_of_names() {
        let list =
            read("patterns: [{exact: Authorization, ignore_case: yes}, {prefix: x-ta}, {suffix: -key}]", 1);
        let list = list.unwrap();
        let list = Node::new(&list[0], "");
        for (name, expected) in [
            ("authorization", Match::Yes),
            ("x-talos-key-id", Match::Yes),
            ("x-api-key", Match::Yes),
            ("cookie", Match::No),
        ] {
            assert_eq!(list_matches(&list, name), expected, "{name}");
        }
        let many = format!("patterns: [{}]", "{exact: a}, ".repeat(MAX_PATTERNS + 1));
        let list = read(&many, 1).unwrap();
        assert_eq!(list_matches(&Node::new(&list[0], ""), "cookie"), Match::Unknown);
        for (regex, expected) in [
            (".*", Match::Yes),
            ("cook", Match::No),
            ("cookie|authorization", Match::Yes),
            ("(?i)COOKIE", Match::Yes),
            ("(", Match::Unknown),
            ("[a-z]{1000}{1000}", Match::Unknown),
        ] {
            let text = format!("patterns: {{ safe_regex: {{ regex: '{regex}' }} }}");
            let list = read(&text, 1).unwrap();
            assert_eq!(list_matches(&Node::new(&list[0], ""), "cookie"), expected, "{regex}");
        }
    }

    #[test]
    fn all_identity_headers_or_none() {
        let regex = |regex| {
            format!("{{ remove_on_match: {{ key_matcher: {{ safe_regex: {{ regex: '{regex}' }} }} }} }}")
        };
        for (mutation, expected, spellings) in [
            ("{ remove_on_match: { key_matcher: { prefix: x-talos- } } }", true, false),
            (&regex(TALOS_HEADER_REGEX), true, true),
            (&regex("x[-_]talos[-_].*"), true, false),
            (&regex(".*"), true, true),
            (&regex("x-.*(?=y)"), false, false),
            ("{ remove: x-talos-key-id }", false, false),
        ] {
            let text = format!("list: [{mutation}]");
            let tree = read(&text, 1).unwrap();
            let list = Node::new(&tree[0], "").items("list");
            assert_eq!(removes_all_identity(&list), expected, "{text}");
            assert_eq!(removes_spellings(&list), spellings, "{text}");
        }
    }
}
