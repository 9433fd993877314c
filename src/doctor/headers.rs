//! The headers that upstream believes, and what in an Envoy's configuration sets or removes headers.

use super::node::Node;
use crate::service::upstream::{HEADER_PREFIX, IDENTITY_HEADERS};

/// How many of a dump's regular expressions could match can't be told without running them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    Yes,
    No,
    /// A regular expression, which isn't run here.
    Unknown,
}

/// Whether a name is one of ours.
pub fn is_ours(name: &str) -> bool {
    name.to_ascii_lowercase().replace('_', "-").starts_with(HEADER_PREFIX)
}

/// Whether `envoy.type.matcher.v3.ListStringMatcher` lets a name through.
pub fn list_matches(list: &Node<'_>, name: &str) -> Match {
    let mut best = Match::No;
    for pattern in list.items("patterns") {
        match string_matches(&pattern, name) {
            Match::Yes => return Match::Yes,
            Match::Unknown => best = Match::Unknown,
            Match::No => {}
        }
    }
    best
}

/// The regular expression by which what we ship matches our names, however they are spelled. No
/// other one is read here.
pub const OUR_NAMES: &str = "x[-_]talos[-_].*";

/// Whether `envoy.type.matcher.v3.StringMatcher` matches a name.
pub fn string_matches(matcher: &Node<'_>, name: &str) -> Match {
    let ignores_case = matcher.get("ignore_case").is_true();
    let fold = |text: &str| if ignores_case { text.to_ascii_lowercase() } else { text.to_owned() };
    let name = fold(name);
    for (field, matches) in [
        ("exact", (|name, text| name == text) as fn(&str, &str) -> bool),
        ("prefix", |name, text| name.starts_with(text)),
        ("suffix", |name, text| name.ends_with(text)),
        ("contains", |name, text| name.contains(text)),
    ] {
        if let Some(text) = matcher.get(field).value.as_str() {
            return if matches(&name, &fold(text)) { Match::Yes } else { Match::No };
        }
    }
    match matcher.find("safe_regex.regex").value.as_str() {
        Some(OUR_NAMES) if is_ours(&name) => Match::Yes,
        Some(OUR_NAMES) => Match::No,
        _ => Match::Unknown,
    }
}

/// Whether a list of header mutations takes away one header.
fn strips(mutations: &[Node<'_>], header: &str) -> bool {
    mutations.iter().any(|mutation| {
        let removed = mutation.get("remove").text().is_some_and(|name| name.eq_ignore_ascii_case(header));
        let matcher = mutation.find("remove_on_match.key_matcher");
        removed || (!matcher.is_absent() && string_matches(&matcher, header) == Match::Yes)
    })
}

/// Whether a list of header mutations takes away all that upstream believes: identity headers and
/// the token's.
pub fn strip_all(mutations: &[Node<'_>], token_header: &str) -> bool {
    strip_identity(mutations) && strips(mutations, token_header)
}

/// Whether a list of header mutations (`envoy.config.common.mutation_rules.v3.HeaderMutation`) takes away every identity
/// header that a client may have sent.
pub fn strip_identity(mutations: &[Node<'_>]) -> bool {
    IDENTITY_HEADERS.iter().all(|header| strips(mutations, header))
}

/// The mutation among these that sets one of our headers.
pub fn sets_identity<'a>(mutations: &[Node<'a>]) -> Option<Node<'a>> {
    mutations
        .iter()
        .map(|mutation| mutation.find("append.header.key"))
        .find(|key| key.text().is_some_and(is_ours))
}

/// Whether a list of names (`request_headers_to_remove`) has all identity headers.
pub fn removes_identity(node: &Node<'_>) -> bool {
    let list = node.get("request_headers_to_remove");
    let names = list.value.as_array().map(Vec::as_slice).unwrap_or_default();
    IDENTITY_HEADERS.iter().all(|header| {
        names.iter().any(|name| name.as_str().is_some_and(|name| name.eq_ignore_ascii_case(header)))
    })
}

/// The YAML that takes identity headers away from a request that nobody checked.
pub fn removal() -> String {
    let names: String = IDENTITY_HEADERS.iter().map(|name| format!("\n  - {name}")).collect();
    format!("request_headers_to_remove:{names}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn matchers_of_names() {
        let list = json!({ "patterns": [
            { "exact": "Authorization", "ignore_case": true }, { "prefix": "x-ta" }, { "suffix": "-key" },
        ] });
        let list = Node::new(&list, "");
        for (name, expected) in [
            ("authorization", Match::Yes),
            ("x-talos-key-id", Match::Yes),
            ("x-api-key", Match::Yes),
            ("cookie", Match::No),
        ] {
            assert_eq!(list_matches(&list, name), expected, "{name}");
        }
        let list = json!({ "patterns": [{ "safe_regex": { "regex": ".*" } }] });
        assert_eq!(list_matches(&Node::new(&list, ""), "cookie"), Match::Unknown);
    }

    #[test]
    fn all_identity_headers_or_none() {
        let all = json!([{ "remove_on_match": { "key_matcher": { "prefix": "x-talos-" } } }]);
        let however_spelled =
            json!([{ "remove_on_match": { "key_matcher": { "safe_regex": { "regex": OUR_NAMES } } } }]);
        let unread = json!([{ "remove_on_match": { "key_matcher": { "safe_regex": { "regex": ".*" } } } }]);
        let some = json!([{ "remove": "x-talos-key-id" }]);
        for (mutations, expected) in [(all, true), (however_spelled, true), (unread, false), (some, false)] {
            let wrapped = json!({ "list": mutations });
            assert_eq!(strip_identity(&Node::new(&wrapped, "").items("list")), expected);
        }
    }
}
