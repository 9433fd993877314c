//! `--format jsonpath=…` and `jsonpointer=…`: selects a part of a JSON document by RFC 9535, by the
//! dialects of kubectl and gjson, or by a JSON pointer.

use serde_json::Value;
use serde_json_path::JsonPath;

/// A query for a part of a JSON document.
#[derive(Debug, Clone)]
pub(super) enum Query {
    /// All values at a path.
    Path(JsonPath),
    /// Length of each list at a path (gjson's final `#`).
    Count(JsonPath),
    /// One value, by RFC 6901.
    Pointer(String),
}

impl Query {
    /// Parses a path: RFC 9535 (`$.a[0].b`), kubectl's form (`{.a.b}`, `.a.b`), or gjson's
    /// (`a.0.b`, `a.#.b`).
    ///
    /// # Errors
    /// Returns a message when the text is none of them.
    pub(super) fn parse_path(text: &str) -> Result<Self, String> {
        let inner = match text.strip_prefix('{').map(|rest| rest.strip_suffix('}')) {
            Some(Some(inner)) if !inner.contains(['{', '}']) => inner,
            Some(_) => return Err("may have only one pair of braces, around the whole path".to_owned()),
            None => text,
        };
        let rfc = |path: &str| JsonPath::parse(path).map_err(|error| error.to_string());
        match inner.chars().next() {
            None => Err("must be a path such as $.key_id".to_owned()),
            Some('$') => rfc(inner).map(Self::Path),
            Some('.') if inner == "." => rfc("$").map(Self::Path),
            Some('.' | '[') => rfc(&format!("${inner}")).map(Self::Path),
            Some(_) => {
                let mut segments = split_segments(inner);
                let counts = segments.last().is_some_and(|segment| segment == "#");
                if counts {
                    segments.pop();
                }
                let path: Result<String, String> =
                    segments.iter().map(|segment| to_rfc9535(segment)).collect();
                let path = rfc(&format!("${}", path?))?;
                Ok(if counts { Self::Count(path) } else { Self::Path(path) })
            }
        }
    }

    /// Parses a JSON pointer (RFC 6901): empty, or beginning with a slash.
    ///
    /// # Errors
    /// Returns a message when the text isn't a pointer.
    pub(super) fn parse_pointer(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.starts_with('/') {
            Ok(Self::Pointer(text.to_owned()))
        } else {
            Err("must begin with a slash, as in /secret".to_owned())
        }
    }

    /// Returns the values that match: strings without quotes, other values as JSON.
    pub(super) fn find(&self, document: &Value) -> Vec<String> {
        let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match self {
            Self::Path(path) => path.query(document).iter().map(|value| plain(value)).collect(),
            Self::Count(path) => {
                let lists = path.query(document);
                lists.iter().filter_map(|value| value.as_array()).map(|list| list.len().to_string()).collect()
            }
            Self::Pointer(pointer) => document.pointer(pointer).map(plain).into_iter().collect(),
        }
    }
}

/// Splits a gjson path at its dots; a backslash escapes the next character.
fn split_segments(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, parts.last_mut()) {
            ('.', _) => parts.push(String::new()),
            ('\\', Some(part)) => part.extend(characters.next()),
            (_, Some(part)) => part.push(character),
            (_, None) => {}
        }
    }
    parts
}

/// Translates one segment of a gjson path to RFC 9535.
fn to_rfc9535(part: &str) -> Result<String, String> {
    match part {
        "" => Err("a name is missing between two dots".to_owned()),
        "#" | "*" => Ok("[*]".to_owned()),
        _ if part.starts_with('@') || part.starts_with("#(") => {
            Err("gjson's modifiers and queries are not supported; use RFC 9535, as in $.list[?@.a == 'b']"
                .to_owned())
        }
        // `a.0` is the first item of a list. A number with a leading zero is a name in gjson.
        _ if part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0')) => {
            Ok(format!("[{part}]"))
        }
        // A JSON string has the quotes and escapes that the RFC requires.
        _ => Ok(format!("[{}]", Value::String(part.to_owned()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, proptest};
    use serde_json::json;

    #[test]
    fn every_dialect() {
        let document = json!({
            "secret": "s", "n": 3, "a": { "b": "c", "d.e": true, "naïve\"": 1 },
            "items": [{ "name": "x", "scopes": [] }, { "name": "y" }],
        });
        for (query, found) in [
            ("$.secret", vec!["s"]),
            ("$.items[*].name", vec!["x", "y"]),
            ("$.items[?@.name == 'y'].name", vec!["y"]),
            ("$..name", vec!["x", "y"]),
            ("{.secret}", vec!["s"]),
            ("{.items[*].name}", vec!["x", "y"]),
            ("{$.a.b}", vec!["c"]),
            (".a.b", vec!["c"]),
            (
                ".",
                vec![
                    r#"{"secret":"s","n":3,"a":{"b":"c","d.e":true,"naïve\"":1},"items":[{"name":"x","scopes":[]},{"name":"y"}]}"#,
                ],
            ),
            ("['a'].b", vec!["c"]),
            ("n", vec!["3"]),
            ("a.b", vec!["c"]),
            (r"a.d\.e", vec!["true"]),
            ("a.naïve\"", vec!["1"]),
            ("items.0.name", vec!["x"]),
            ("items.#.name", vec!["x", "y"]),
            ("items.#", vec!["2"]),
            ("items.0.scopes", vec!["[]"]),
            ("items.9.name", vec![]),
            ("nothing", vec![]),
        ] {
            assert_eq!(Query::parse_path(query).unwrap().find(&document), found, "{query}");
        }
        assert_eq!(Query::parse_pointer("/items/1/name").unwrap().find(&document), ["y"]);
        assert!(Query::parse_pointer("").unwrap().find(&document)[0].starts_with('{'));
    }

    #[test]
    fn invalid_paths_are_refused() {
        for bad in ["", "{}", "{.a}{.b}", "{.a", "$.", "$[", ".a[", "a..b", "a.@this", "a.#(b==1)", "a."] {
            assert!(Query::parse_path(bad).is_err(), "{bad}");
        }
        assert!(Query::parse_pointer("a").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>()) {
            if let Ok(query) = Query::parse_path(&text) {
                query.find(&json!({ "a": [1] }));
            }
        }

        #[test]
        fn any_name_can_be_asked_for(name in "[^\\PC.\\\\#*@{}$\\[0-9]{1,12}") {
            let document = json!({ name.clone(): "found" });
            proptest::prop_assert_eq!(Query::parse_path(&name).unwrap().find(&document), ["found"]);
        }
    }
}
