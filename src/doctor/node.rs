//! A JSON value in a dump together with its path, for reading fields that may be missing.

use serde_json::Value;

static NULL: Value = Value::Null;

/// A value and its path. An absent value is `null`.
#[derive(Debug, Clone)]
pub struct Node<'a> {
    /// The value.
    pub value: &'a Value,
    /// The path, as findings show it.
    pub path: String,
}

impl<'a> Node<'a> {
    /// Creates a node of a value at a path.
    pub fn new(value: &'a Value, path: impl Into<String>) -> Self {
        Self { value, path: path.into() }
    }

    /// Creates a node of an absent value.
    pub fn absent(path: impl Into<String>) -> Self {
        Self::new(&NULL, path)
    }

    /// Returns the same value with another path.
    pub fn with_path(&self, path: impl Into<String>) -> Self {
        Self::new(self.value, path)
    }

    /// Returns a field by its protobuf name; the lowerCamelCase name of JSON is accepted, too.
    pub fn get(&self, name: &str) -> Self {
        Self::new(field(self.value, name).unwrap_or(&NULL), format!("{}.{name}", self.path))
    }

    /// Returns a nested field by its path, such as `a.b`.
    pub fn get_path(&self, names: &str) -> Self {
        names.split('.').fold(self.clone(), |node, name| node.get(name))
    }

    /// Returns an entry of a map, whose keys aren't field names.
    pub fn entry(&self, key: &str) -> Self {
        Self::new(self.value.get(key).unwrap_or(&NULL), format!("{}[{}]", self.path, short_name(key)))
    }

    /// Returns the items of a list field; their paths have the item's `name`, else its index.
    pub fn items(&self, name: &str) -> Vec<Self> {
        let list = self.get(name);
        let items = list.value.as_array().map(Vec::as_slice).unwrap_or_default();
        items
            .iter()
            .enumerate()
            .map(|(index, item)| match item.get("name").and_then(Value::as_str) {
                Some(named) if !named.is_empty() => {
                    Self::new(item, format!("{}[{}]", list.path, short_name(named)))
                }
                _ => Self::new(item, format!("{}[{index}]", list.path)),
            })
            .collect()
    }

    /// Returns true if the value is absent or null.
    pub fn is_absent(&self) -> bool {
        self.value.is_null()
    }

    /// Returns true if the value is `true`.
    pub fn is_true(&self) -> bool {
        self.value == &Value::Bool(true)
    }

    /// Returns the value as a string, if it is one and not empty.
    pub fn text(&self) -> Option<&'a str> {
        self.value.as_str().filter(|text| !text.is_empty())
    }

    /// Returns the value as a number; protobuf's JSON writes large numbers as strings.
    pub fn number(&self) -> Option<u64> {
        self.value.as_u64().or_else(|| self.value.as_str()?.parse().ok())
    }

    /// Returns a duration (`0.250s`) in seconds.
    pub fn seconds(&self) -> Option<f64> {
        let seconds: f64 = self.value.as_str()?.strip_suffix('s')?.parse().ok()?;
        (seconds.is_finite() && seconds >= 0.0).then_some(seconds)
    }

    /// Returns true if the last part of the message's `@type` is `kind`.
    pub fn has_type(&self, kind: &str) -> bool {
        type_name(self.value) == Some(kind)
    }

    /// Returns the type and the message of a `typed_config`, also if wrapped in a `TypedStruct`.
    pub fn unwrap_typed(self) -> (Option<&'a str>, Self) {
        match type_name(self.value) {
            Some("TypedStruct") => {
                let kind = field(self.value, "type_url").and_then(Value::as_str).and_then(last_part);
                (kind, Self::new(field(self.value, "value").unwrap_or(&NULL), self.path))
            }
            kind => (kind, self),
        }
    }

    /// Returns this object and all objects within it.
    pub fn descendants(&self) -> Vec<Self> {
        let mut found = vec![];
        let mut open = vec![self.clone()];
        while let Some(node) = open.pop() {
            match node.value {
                Value::Object(fields) => {
                    for (name, value) in fields {
                        open.push(Self::new(value, format!("{}.{name}", node.path)));
                    }
                    found.push(node);
                }
                Value::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        open.push(Self::new(item, format!("{}[{index}]", node.path)));
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Returns true if the predicate holds for some string within the value; field names don't
    /// count.
    pub fn any_text(&self, predicate: impl Fn(&str) -> bool) -> bool {
        let mut open = vec![self.value];
        while let Some(value) = open.pop() {
            match value {
                Value::String(text) if predicate(text) => return true,
                Value::Object(fields) => open.extend(fields.values()),
                Value::Array(items) => open.extend(items),
                _ => {}
            }
        }
        false
    }
}

/// Returns a field by its protobuf or its JSON name.
pub fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let fields = value.as_object()?;
    fields.get(name).or_else(|| fields.get(lower_camel_case(name)?.as_str()))
}

/// Returns the last part of a message's `@type`.
pub fn type_name(value: &Value) -> Option<&str> {
    value.get("@type").and_then(Value::as_str).and_then(last_part)
}

fn last_part(url: &str) -> Option<&str> {
    url.rsplit(['.', '/']).next()
}

/// Returns `failureModeAllow` for `failure_mode_allow`; none when both are the same.
fn lower_camel_case(name: &str) -> Option<String> {
    let mut words = name.split('_');
    let first = words.next()?;
    let mut result = first.to_owned();
    for word in words {
        let mut letters = word.chars();
        result.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        result.push_str(letters.as_str());
    }
    (result.len() != name.len()).then_some(result)
}

/// Formats a string as a YAML scalar, with quotes only if needed.
pub fn to_yaml(text: &str) -> String {
    if serde_norway::from_str::<Value>(text).is_ok_and(|read| read == text) {
        return text.to_owned();
    }
    let json = Value::from(text).to_string();
    // JSON targets more as it is than YAML can print.
    let is_odd = |c: char| c.is_control() || matches!(c, '\u{feff}' | '\u{fffe}' | '\u{ffff}');
    let escaped = |c: char| if is_odd(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    json.chars().map(escaped).collect()
}

/// Returns a filter's name without Envoy's common prefix.
fn short_name(name: &str) -> &str {
    ["envoy.filters.http.", "envoy.filters.network."]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_have_two_spellings() {
        let value =
            json!({ "failureModeAllow": true, "status_on_error": { "code": "Forbidden" }, "name": "n" });
        let node = Node::new(&value, "filter");
        assert!(node.get("failure_mode_allow").is_true());
        assert_eq!(node.get_path("status_on_error.code").text(), Some("Forbidden"));
        assert_eq!(node.get("name").text(), Some("n"));
        let absent = node.get_path("grpc_service.timeout");
        assert!(absent.is_absent());
        assert_eq!(absent.path, "filter.grpc_service.timeout");
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
            let read: Value = serde_norway::from_str(&list).unwrap();
            assert_eq!(read, json!([{ "name": text }]), "{list}");
        }
        assert_eq!(to_yaml("talos_authz"), "talos_authz");
    }

    #[test]
    fn durations() {
        for (text, seconds) in
            [("0.250s", Some(0.25)), ("600s", Some(600.0)), ("1", None), ("-1s", None), ("NaNs", None)]
        {
            assert_eq!(Node::new(&json!(text), "").seconds(), seconds, "{text}");
        }
    }
}
