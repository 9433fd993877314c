//! Terms of a key: texts of its scopes and metadata by which an index finds it.
//!
//! A term may be coarser than what it stands for: who looks a key up by a term compares the key
//! itself afterwards.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Key, Metadata};

/// Most values of a key's metadata that can be searched for.
pub const MAX_METADATA_VALUES: usize = 64;
/// Characters of a value, and of its path, that are part of a term.
const MAX_PART: usize = 64;
/// Character between a value and its path. In no database does it sort before a space.
const SEPARATOR: char = '\u{7f}';

/// Value within metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataValue {
    /// Names of the members that lead to it, with dots between. Elements of a list have the path of
    /// the list.
    pub path: String,
    /// The text, or the JSON of a number or boolean.
    pub value: String,
}

/// Returns the values of metadata that can be searched for, in the order of the object: texts,
/// numbers and booleans, at most [`MAX_METADATA_VALUES`].
pub fn metadata_values(metadata: &Metadata) -> Vec<MetadataValue> {
    let mut values = vec![];
    let object = metadata.object();
    let mut members: Vec<(String, &Value)> =
        object.iter().rev().map(|(name, value)| (name.clone(), value)).collect();
    while let Some((path, value)) = members.pop() {
        if values.len() == MAX_METADATA_VALUES {
            break;
        }
        match value {
            Value::Null => {}
            Value::String(text) => values.push(MetadataValue { path, value: text.clone() }),
            Value::Bool(_) | Value::Number(_) => {
                values.push(MetadataValue { path, value: value.to_string() });
            }
            Value::Array(items) => members.extend(items.iter().rev().map(|item| (path.clone(), item))),
            Value::Object(object) => {
                let inner = object.iter().rev().map(|(name, value)| (format!("{path}.{name}"), value));
                members.extend(inner);
            }
        }
    }
    values
}

/// Returns the terms of a key, each once.
pub fn terms_of(key: &Key) -> BTreeSet<String> {
    let scopes = key.scopes.iter().map(|scope| scope_term(scope.as_str()));
    let values = key.metadata.as_ref().map(metadata_values).unwrap_or_default();
    scopes.chain(values.iter().map(|found| metadata_term(&found.path, &found.value))).collect()
}

/// Returns the term of a scope.
pub fn scope_term(scope: &str) -> String {
    format!("s{scope}")
}

/// Returns the term of a value of metadata.
///
/// It doesn't end with a space: MySQL ignores spaces at the end of a text, and would refuse a
/// second term of a key that differs in nothing else.
pub fn metadata_term(path: &str, value: &str) -> String {
    format!("{}{SEPARATOR}{}", value_term_prefix(value), part(path).trim_end_matches(' '))
}

/// Returns the beginning of the terms of all values of metadata that begin with a text.
pub fn value_term_prefix(text: &str) -> String {
    format!("m{}", part(&text.to_ascii_lowercase()))
}

/// Returns the beginning of a text, without characters that some database can't store.
fn part(text: &str) -> String {
    text.chars().take(MAX_PART).map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(json: &str) -> Metadata {
        Metadata::from_json(json.to_owned()).unwrap()
    }

    #[test]
    fn values_have_the_path_of_their_names() {
        let json = r#"{"team":"Blue","tags":["a",1],"deep":{"er":{"on":true,"none":null}}}"#;
        let found: Vec<_> =
            metadata_values(&metadata(json)).into_iter().map(|found| (found.path, found.value)).collect();
        let expected = [("deep.er.on", "true"), ("tags", "a"), ("tags", "1"), ("team", "Blue")];
        let expected = expected.map(|(path, value)| (path.to_owned(), value.to_owned()));
        let (mut found, mut expected) = (found, expected.to_vec());
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn values_and_terms_are_bounded() {
        let list = format!("{{\"list\":[{}0]}}", "1,".repeat(500));
        assert_eq!(metadata_values(&metadata(&list)).len(), MAX_METADATA_VALUES);
        let term = metadata_term(&"p".repeat(500), &"Ü".repeat(500));
        assert_eq!(term.chars().count(), 2 + 2 * MAX_PART);
        assert!(!metadata_term("a\nb", "c\0").contains(['\n', '\0']));
        assert!(metadata_term("team", "Blue sky").starts_with(&value_term_prefix("blue S")));
    }

    #[test]
    fn no_term_ends_with_a_space() {
        let start = "p".repeat(MAX_PART - 1);
        let cut = format!("{start} b");
        let cut = (cut.as_str(), start.as_str());
        for (path, same) in [("a ", "a"), ("a  ", "a"), (" a ", " a"), (" ", ""), cut] {
            assert_eq!(metadata_term(path, "x "), metadata_term(same, "x "), "{path:?}");
            assert!(!metadata_term(path, "x ").ends_with(' '), "{path:?}");
        }
        assert_ne!(metadata_term("a", "x "), metadata_term("a", "x"), "the value's own spaces stay");
        assert!(metadata_term("a", "blue sky").starts_with(&value_term_prefix("blue ")));
    }
}
