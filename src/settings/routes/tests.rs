//! Compares the compiled rules with the reference implementation.

use proptest::prelude::{Just, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::select;

use super::*;

/// A rule with its number as audience.
fn rule(number: usize, host: Option<&str>, methods: &[&str], path: Option<(&str, String)>) -> Route {
    let mut rule = serde_json::json!({ "methods": methods, "audience": number.to_string() });
    if let Some(host) = host {
        rule["host"] = host.into();
    }
    if let Some((kind, path)) = path {
        rule["path"] = serde_json::json!({ kind: path });
    }
    serde_json::from_value(rule).unwrap()
}

fn found(routes: &Routes, host: &str, method: &str, path: &str) -> Option<usize> {
    let policy = routes.find(host.as_bytes(), method.as_bytes(), path.as_bytes()).unwrap();
    policy.map(|policy| policy.audience.as_ref().unwrap().parse().unwrap())
}

fn path(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    let slash = any::<bool>();
    (prop::collection::vec(select(words), 0..4), slash).prop_map(|(segments, slash)| {
        let end = if slash || segments.is_empty() { "/" } else { "" };
        segments.iter().map(|segment| format!("/{segment}")).collect::<String>() + end
    })
}

fn any_path() -> impl Strategy<Value = Option<(&'static str, String)>> {
    prop_oneof![
        Just(None),
        path(&["a", "b", "ab"]).prop_map(|path| Some(("exact", path))),
        path(&["a", "b", "ab"]).prop_map(|path| Some(("prefix", path))),
        path(&["a", "b", "{x}", "{y}"]).prop_map(|path| Some(("template", path))),
    ]
}

type RawRule = (Option<&'static str>, Vec<&'static str>, Option<(&'static str, String)>);

fn any_rule() -> impl Strategy<Value = RawRule> {
    let host = select(vec![None, None, Some("one.example"), Some("two.example"), Some("::1")]);
    let methods = prop::collection::vec(select(vec!["GET", "POST", "PURGE"]), 0..2);
    (host, methods, any_path())
}

proptest! {
    #[test]
    fn the_most_specific_rule_is_found(
        rules in prop::collection::vec(any_rule(), 0..12),
        requests in prop::collection::vec(
            (
                select(vec!["one.example", "two.example", "three.example", "[0::1]", "[::1]x", "one.example:1x", ""]),
                select(vec!["GET", "POST", "HEAD", "", "ODD"]),
                path(&["a", "b", "ab", "c"]),
            ),
            1..20,
        ),
    ) {
        let numbered = rules.into_iter().enumerate();
        let rules: Vec<Route> =
            numbered.map(|(number, (host, methods, path))| rule(number, host, &methods, path)).collect();
        let routes = Routes::compile(&rules);
        for (host, method, path) in requests {
            let spelled = match host.starts_with('[') {
                true => format!("{host}:8080"),
                false => format!("{}.:443", host.to_ascii_uppercase()),
            };
            prop_assert_eq!(
                found(&routes, &spelled, method, &format!("{path}?x=/../a#y")),
                reference::find(&rules, spelled.as_bytes(), method.as_bytes(), Some(path.as_bytes())),
                "{} {} {}", method, spelled, path
            );
        }
    }

    #[test]
    fn any_bytes_are_decided_or_refused(host: Vec<u8>, method: Vec<u8>, target: Vec<u8>) {
        let _ = Routes::compile(&[rule(0, None, &[], Some(("prefix", "/a".to_owned())))]).find(&host, &method, &target);
    }
}

#[test]
fn the_order_as_documented() {
    let path = |kind, path: &str| Some((kind, path.to_owned()));
    // Each rule wins over those below it, for GET http://one.example/a/b.
    let rules = [
        rule(0, Some("one.example"), &[], None),
        rule(1, None, &["GET"], path("exact", "/a/b")),
        rule(2, None, &[], path("exact", "/a/b")),
        rule(3, None, &[], path("prefix", "/a/b/")),
        rule(4, None, &["GET"], path("template", "/a/{x}")),
        rule(5, None, &[], path("template", "/{x}/b")),
        rule(6, None, &[], path("prefix", "/a")),
        rule(7, None, &[], path("template", "/{x}/{y}")),
        rule(8, None, &[], path("prefix", "/")),
        rule(9, None, &["GET"], None),
        rule(10, None, &[], None),
        rule(11, None, &[], None),
    ];
    for best in 0..rules.len() {
        let mut listed: Vec<Route> = rules[best..].to_vec();
        // Equal rules keep the order of the list.
        listed.sort_by_key(specificity);
        let expected = if best == 11 { 11 } else { best };
        assert_eq!(found(&Routes::compile(&listed), "one.example", "GET", "/a/b"), Some(expected));
    }
    assert_eq!(
        found(&Routes::compile(&rules), "two.example", "get", "/a/b"),
        Some(1),
        "letters in lower case"
    );
    assert_eq!(found(&Routes::compile(&[]), "one.example", "GET", "/a/../b"), None);
}

#[test]
fn a_malformed_host_matches_no_rule_with_a_host() {
    let rules =
        [rule(0, Some("::1"), &[], None), rule(1, Some("one.example"), &[], None), rule(2, None, &[], None)];
    let routes = Routes::compile(&rules);
    for (host, expected) in [
        ("[::1]", 0),
        ("[0:0::1]:80", 0),
        ("[::1]junk", 2),
        ("[::1]80", 2),
        ("::1", 2),
        ("one.example", 1),
        ("ONE.example.:80", 1),
        ("one.example:80x", 2),
        ("one.example/", 2),
        ("one.example, one.example", 2),
        ("", 2),
        (".", 2),
    ] {
        assert_eq!(found(&routes, host, "GET", "/"), Some(expected), "{host}");
        let naive = reference::find(&rules, host.as_bytes(), b"GET", Some(b"/"));
        assert_eq!(naive, Some(expected), "{host}");
    }
}

#[test]
fn a_path_is_judged_only_while_a_rule_has_one() {
    let by_host = Routes::compile(&[rule(0, Some("one.example"), &[], None)]);
    assert_eq!(found(&by_host, "one.example", "GET", "/a/../b;"), Some(0));
    let by_path = Routes::compile(&[rule(0, Some("one.example"), &[], Some(("exact", "/x".to_owned())))]);
    assert_eq!(by_path.find(b"two.example", b"GET", b"/a/../b"), Err(AmbiguousPath));
    assert_eq!(by_path.find(b"one.example", b"OPTIONS", b"*"), Ok(None));
}
