//! `--format jsonpath=…` and `jsonpointer=…`: one part of an answer, asked for in any of the languages that scripts use.

use serde_json::Value;
use serde_json_path::JsonPath;

/// A part of a JSON document.
#[derive(Debug, Clone)]
pub enum Query {
    /// Every place that fits.
    Path(JsonPath),
    /// How many items the list at that place has (gjson's closing `#`).
    Count(JsonPath),
    /// One place, by RFC 6901.
    Pointer(String),
}

impl Query {
    /// Reads a path: RFC 9535 (`$.a[0].b`), the form of kubectl (`{.a.b}`, `.a.b`), or that of gjson (`a.0.b`, `a.#.b`).
    ///
    /// # Errors
    /// In words, when it is none of them.
    pub fn path(text: &str) -> Result<Self, String> {
        let inner = match text.strip_prefix('{').map(|rest| rest.strip_suffix('}')) {
            Some(Some(inner)) if !inner.contains(['{', '}']) => inner,
            Some(_) => return Err("one pair of braces at most, around all of it".to_owned()),
            None => text,
        };
        let rfc = |path: &str| JsonPath::parse(path).map_err(|error| error.to_string());
        match inner.chars().next() {
            None => Err("is empty; give a path such as $.key_id".to_owned()),
            Some('$') => rfc(inner).map(Self::Path),
            Some('.') if inner == "." => rfc("$").map(Self::Path),
            Some('.' | '[') => rfc(&format!("${inner}")).map(Self::Path),
            Some(_) => {
                let mut segments = split(inner);
                let counts = segments.last().is_some_and(|segment| segment == "#");
                if counts {
                    segments.pop();
                }
                let path: Result<String, String> = segments.iter().map(|segment| in_rfc(segment)).collect();
                let path = rfc(&format!("${}", path?))?;
                Ok(if counts { Self::Count(path) } else { Self::Path(path) })
            }
        }
    }

    /// Reads a JSON pointer (RFC 6901): empty, or beginning with a slash.
    ///
    /// # Errors
    /// In words.
    pub fn pointer(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.starts_with('/') {
            Ok(Self::Pointer(text.to_owned()))
        } else {
            Err("must begin with a slash, such as /secret".to_owned())
        }
    }

    /// What it finds, one text each: a text as it is, anything else as JSON.
    pub fn find(&self, document: &Value) -> Vec<String> {
        let bare = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match self {
            Self::Path(path) => path.query(document).iter().map(|value| bare(value)).collect(),
            Self::Count(path) => {
                let lists = path.query(document);
                lists.iter().filter_map(|value| value.as_array()).map(|list| list.len().to_string()).collect()
            }
            Self::Pointer(pointer) => document.pointer(pointer).map(bare).into_iter().collect(),
        }
    }
}

/// The parts between dots; a backslash takes the next character as it is.
fn split(text: &str) -> Vec<String> {
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

/// One part of a gjson path in the language of RFC 9535.
fn in_rfc(part: &str) -> Result<String, String> {
    match part {
        "" => Err("a name is missing between two dots".to_owned()),
        "#" | "*" => Ok("[*]".to_owned()),
        _ if part.starts_with('@') || part.starts_with("#(") => Err(
            "modifiers and queries of gjson are not understood; write them in RFC 9535: $.list[?@.a == 'b']"
                .to_owned(),
        ),
        // `a.0`: the first of a list. A leading zero is no index there, so it is a name.
        _ if part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0')) => {
            Ok(format!("[{part}]"))
        }
        // The text as JSON has the quotes and escapes that the RFC asks for.
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
            assert_eq!(Query::path(query).unwrap().find(&document), found, "{query}");
        }
        assert_eq!(Query::pointer("/items/1/name").unwrap().find(&document), ["y"]);
        assert!(Query::pointer("").unwrap().find(&document)[0].starts_with('{'));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for bad in ["", "{}", "{.a}{.b}", "{.a", "$.", "$[", ".a[", "a..b", "a.@this", "a.#(b==1)", "a."] {
            assert!(Query::path(bad).is_err(), "{bad}");
        }
        assert!(Query::pointer("a").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>()) {
            if let Ok(query) = Query::path(&text) {
                query.find(&json!({ "a": [1] }));
            }
        }

        #[test]
        fn any_name_can_be_asked_for(name in "[^\\PC.\\\\#*@{}$\\[0-9]{1,12}") {
            let document = json!({ name.clone(): "found" });
            proptest::prop_assert_eq!(Query::path(&name).unwrap().find(&document), ["found"]);
        }
    }
}
