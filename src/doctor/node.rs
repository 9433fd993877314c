//! A value in a configuration together with its path, for reading fields that may be missing.
//!
//! All rules read through these accessors, which take a value for what Envoy takes it for: see
//! [`Tree`] for scalars; a single value is a list of one, and `null` is absent.

use super::tree::{NULL, Tree};

/// Characters of a name that a path shows.
const MAX_NAME_LENGTH: usize = 200;

/// A value and its path. An absent value is `null`.
#[derive(Debug, Clone)]
pub(super) struct Node<'a> {
    /// The value.
    pub tree: &'a Tree<'a>,
    /// The path, as findings show it.
    pub path: String,
    /// The line of the value, or of what it is absent from.
    pub line: u32,
}

impl<'a> Node<'a> {
    /// Creates a node of a value at a path.
    pub(super) fn new(tree: &'a Tree<'a>, path: impl Into<String>) -> Self {
        Self { tree, path: path.into(), line: tree.line }
    }

    /// Creates a node of an absent value.
    pub(super) fn absent(path: impl Into<String>) -> Self {
        Self::new(&NULL, path)
    }

    /// Returns the same value with another path.
    pub(super) fn with_path(&self, path: impl Into<String>) -> Self {
        Self { tree: self.tree, path: path.into(), line: self.line }
    }

    fn child(&self, tree: Option<&'a Tree<'a>>, path: String) -> Self {
        match tree {
            Some(tree) => Self { tree, path, line: tree.line },
            None => Self { tree: &NULL, path, line: self.line },
        }
    }

    /// Returns a field by its protobuf name; the lowerCamelCase name of JSON is accepted, too.
    pub(super) fn get(&self, name: &str) -> Self {
        let mut path = String::with_capacity(self.path.len() + name.len() + 1);
        path.push_str(&self.path);
        path.push('.');
        path.push_str(name);
        self.child(field(self.tree, name), path)
    }

    /// Returns a nested field by its path, such as `a.b`.
    pub(super) fn get_path(&self, names: &str) -> Self {
        let mut names = names.split('.');
        let first = self.get(names.next().unwrap_or_default());
        names.fold(first, |node, name| node.get(name))
    }

    /// Returns an entry of a map, whose keys aren't field names.
    pub(super) fn entry(&self, key: &str) -> Self {
        let tree = self.tree.entry(key).filter(|tree| !tree.is_null());
        self.child(tree, format!("{}[{}]", self.path, short_name(key)))
    }

    /// Returns all entries of a map, by key.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, Self)> {
        self.tree
            .entries()
            .iter()
            .map(|(key, tree)| (key.as_ref(), Self::new(tree, format!("{}[{}]", self.path, short_name(key)))))
    }

    /// Returns the items of a list field; their paths have the item's `name`, else its index.
    ///
    /// Envoy takes a single value for a list of one, and a list in a list for its items.
    pub(super) fn items(&self, name: &str) -> Vec<Self> {
        let list = self.get(name);
        let mut items = vec![];
        if !list.is_absent() {
            collect_items(list.tree, &mut items);
        }
        let path = |index: usize, item: &Tree<'_>| match item.entry("name").and_then(Tree::text) {
            Some(named) if !named.is_empty() => format!("{}[{}]", list.path, short_name(named)),
            _ => format!("{}[{index}]", list.path),
        };
        items.into_iter().enumerate().map(|(index, item)| Self::new(item, path(index, item))).collect()
    }

    /// Returns true if the value is absent or null.
    pub(super) fn is_absent(&self) -> bool {
        self.tree.is_null()
    }

    /// Returns true if the value of a boolean field is true.
    pub(super) fn is_true(&self) -> bool {
        self.tree.boolean() == Some(true)
    }

    /// Returns the value of a text field, if it isn't empty.
    pub(super) fn text(&self) -> Option<&'a str> {
        self.raw_text().filter(|text| !text.is_empty())
    }

    /// Returns the value of a text field, also if it is empty.
    pub(super) fn raw_text(&self) -> Option<&'a str> {
        self.tree.text()
    }

    /// Returns the value of an unsigned field.
    pub(super) fn number(&self) -> Option<u64> {
        self.tree.number()
    }

    /// Returns the value of a floating-point field.
    pub(super) fn float(&self) -> Option<f64> {
        self.tree.float()
    }

    /// Returns a duration in seconds.
    pub(super) fn seconds(&self) -> Option<f64> {
        self.tree.seconds()
    }

    /// Returns true if an enum field has a value, given by its name and number. The number 0 is
    /// that of an absent field.
    pub(super) fn is_value(&self, name: &str, number: u64) -> bool {
        if self.is_absent() {
            return number == 0;
        }
        self.tree.scalar().is_some_and(|text| text.eq_ignore_ascii_case(name))
            || self.number() == Some(number)
    }

    /// Returns true if an enum field has one of several values.
    pub(super) fn is_one_of(&self, values: &[(&str, u64)]) -> bool {
        values.iter().any(|(name, number)| self.is_value(name, *number))
    }

    /// Returns true if the last part of the message's `@type` is `kind`.
    pub(super) fn has_type(&self, kind: &str) -> bool {
        type_name(self.tree) == Some(kind)
    }

    /// Returns the type and the message of a `typed_config`, also if wrapped in a `TypedStruct`.
    pub(super) fn unwrap_typed(self) -> (Option<&'a str>, Self) {
        match type_name(self.tree) {
            Some("TypedStruct") => {
                let kind = field(self.tree, "type_url").and_then(Tree::text).and_then(last_part);
                let inner = self.child(field(self.tree, "value"), self.path.clone());
                (kind, inner)
            }
            kind => (kind, self),
        }
    }

    /// Returns this object and all objects within it.
    pub(super) fn descendants(&self) -> Vec<Self> {
        let mut found = vec![];
        let mut open = vec![self.clone()];
        while let Some(node) = open.pop() {
            for (name, tree) in node.tree.entries() {
                open.push(Self::new(tree, format!("{}.{}", node.path, short_name(name))));
            }
            for (index, item) in node.tree.list().iter().enumerate() {
                open.push(Self::new(item, format!("{}[{index}]", node.path)));
            }
            if node.tree.is_map() {
                found.push(node);
            }
        }
        found
    }

    /// Returns true if the predicate holds for some string within the value; field names don't
    /// count.
    pub(super) fn any_text(&self, predicate: impl Fn(&str) -> bool) -> bool {
        self.tree.any_scalar(&predicate)
    }
}

/// Collects the items of a list, and those of lists in it.
fn collect_items<'a>(tree: &'a Tree<'a>, items: &mut Vec<&'a Tree<'a>>) {
    match tree.list() {
        [] if tree.list_is_empty() => {}
        [] => items.push(tree),
        list => list.iter().for_each(|item| collect_items(item, items)),
    }
}

/// Returns a field by its protobuf or its JSON name, if it isn't null.
pub(super) fn field<'a>(tree: &'a Tree<'a>, name: &str) -> Option<&'a Tree<'a>> {
    let present = |name: &str| tree.entry(name).filter(|tree| !tree.is_null());
    present(name).or_else(|| present(lower_camel_case(name)?.as_str()))
}

/// Returns the last part of a message's `@type`.
pub(super) fn type_name<'a>(tree: &'a Tree<'a>) -> Option<&'a str> {
    tree.entry("@type").and_then(Tree::text).and_then(last_part)
}

fn last_part(url: &str) -> Option<&str> {
    url.rsplit(['.', '/']).next()
}

/// Returns `failureModeAllow` for `failure_mode_allow`; none when both are the same.
fn lower_camel_case(name: &str) -> Option<String> {
    if !name.contains('_') {
        return None;
    }
    let mut words = name.split('_');
    let first = words.next()?;
    let mut result = first.to_owned();
    for word in words {
        let mut letters = word.chars();
        result.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        result.push_str(letters.as_str());
    }
    Some(result)
}

/// Formats a string as a YAML scalar, with quotes only if needed.
pub(super) fn to_yaml(text: &str) -> String {
    if serde_norway::from_str::<serde_json::Value>(text).is_ok_and(|read| read == text) {
        return text.to_owned();
    }
    quoted(text)
}

/// Formats a string as a YAML scalar in quotes.
pub(super) fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    // JSON leaves more as it is than YAML can print.
    let is_odd = |c: char| c.is_control() || matches!(c, '\u{feff}' | '\u{fffe}' | '\u{ffff}');
    let escaped = |c: char| if is_odd(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    json.chars().map(escaped).collect()
}

/// Returns a name as paths show it: without Envoy's common prefix, and shortened if very long.
pub(super) fn short_name(name: &str) -> &str {
    let name = ["envoy.filters.http.", "envoy.filters.network."]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name);
    name.char_indices().nth(MAX_NAME_LENGTH).and_then(|(end, _)| name.get(..end)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::reader::read;

    /// Reads a document of a test, which lives as long as the test's process.
    fn tree(text: &str) -> &'static Tree<'static> {
        let text: &'static str = String::from(text).leak();
        &read(text, 1).unwrap().leak()[0]
    }

    #[test]
    fn fields_have_two_spellings() {
        let node = Node::new(
            tree(
                "{failureModeAllow: true, status_on_error: {code: Forbidden}, name: it, a_b: null, aB: 1, c_d: 1, cD: 2}",
            ),
            "filter",
        );
        assert!(node.get("failure_mode_allow").is_true());
        assert_eq!(node.get_path("status_on_error.code").text(), Some("Forbidden"));
        assert_eq!(node.get("name").text(), Some("it"));
        assert_eq!((node.get("a_b").number(), node.get("c_d").number()), (Some(1), Some(1)));
        let absent = node.get_path("grpc_service.timeout");
        assert!(absent.is_absent());
        assert_eq!(absent.path, "filter.grpc_service.timeout");
    }

    #[test]
    fn lists_of_one() {
        let node = Node::new(tree("{a: {name: x}, b: [[{name: w}, z], null], c: [], d: null, e: one}"), "n");
        let paths = |name| node.items(name).into_iter().map(|item| item.path).collect::<Vec<_>>();
        assert_eq!(paths("a"), ["n.a[x]"]);
        assert_eq!(paths("b"), ["n.b[w]", "n.b[1]", "n.b[2]"]);
        assert_eq!(paths("c"), [""; 0]);
        assert_eq!(paths("d"), [""; 0]);
        assert_eq!(paths("e"), ["n.e[0]"]);
    }

    #[test]
    fn texts_are_yaml() {
        for text in [
            "talos_authz",
            "outbound|4423||talos.prod.svc.cluster.local",
            "",
            "1",
            "null",
            "a: b",
            "a #b",
            ",a",
            "- a",
            "{",
            "a\n- b",
            "\"",
            "\\",
            "\u{7f}\u{85}\u{9f}\u{feff}",
            "{{a}}",
            "ä",
        ] {
            let list = format!("- name: {}", to_yaml(text));
            let read: serde_json::Value = serde_norway::from_str(&list).unwrap();
            assert_eq!(read, serde_json::json!([{ "name": text }]), "{list}");
            assert_eq!(tree(&list).list()[0].entry("name").unwrap().scalar(), Some(text), "{list}");
        }
        assert_eq!(to_yaml("talos_authz"), "talos_authz");
    }

    #[test]
    fn enums_by_name_and_number() {
        let node = Node::new(tree("{a: REJECT_REQUEST, b: 2, c: '2', d: reject_request, e: 1}"), "");
        for (name, expected) in
            [("a", true), ("b", true), ("c", true), ("d", true), ("e", false), ("f", false)]
        {
            assert_eq!(node.get(name).is_value("REJECT_REQUEST", 2), expected, "{name}");
        }
        assert!(node.get("f").is_value("DEFAULT", 0));
    }
}
