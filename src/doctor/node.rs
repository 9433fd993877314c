//! A place in a dump: a value and the way there, for reading what may or may not be there.

use serde_json::Value;

static NULL: Value = Value::Null;

/// A value, absent ones being `null`, and its path as people are told it.
#[derive(Debug, Clone)]
pub struct Node<'a> {
    pub value: &'a Value,
    pub path: String,
}

impl<'a> Node<'a> {
    /// A value at a path.
    pub fn new(value: &'a Value, path: impl Into<String>) -> Self {
        Self { value, path: path.into() }
    }

    /// Nothing, at a path.
    pub fn absent(path: impl Into<String>) -> Self {
        Self::new(&NULL, path)
    }

    /// The same value under another path.
    pub fn at(&self, path: impl Into<String>) -> Self {
        Self::new(self.value, path)
    }

    /// A field, in protobuf's spelling; JSON's (lowerCamelCase) is read, too.
    pub fn get(&self, name: &str) -> Self {
        Self::new(field(self.value, name).unwrap_or(&NULL), format!("{}.{name}", self.path))
    }

    /// A field of fields: `a.b`.
    pub fn find(&self, names: &str) -> Self {
        names.split('.').fold(self.clone(), |node, name| node.get(name))
    }

    /// An entry of a map, whose keys are no field names.
    pub fn entry(&self, key: &str) -> Self {
        Self::new(self.value.get(key).unwrap_or(&NULL), format!("{}[{}]", self.path, short(key)))
    }

    /// The entries of a list field, each under its `name` where it has one, else its index.
    pub fn items(&self, name: &str) -> Vec<Self> {
        let list = self.get(name);
        let items = list.value.as_array().map(Vec::as_slice).unwrap_or_default();
        items
            .iter()
            .enumerate()
            .map(|(index, item)| match item.get("name").and_then(Value::as_str) {
                Some(named) if !named.is_empty() => {
                    Self::new(item, format!("{}[{}]", list.path, short(named)))
                }
                _ => Self::new(item, format!("{}[{index}]", list.path)),
            })
            .collect()
    }

    pub fn is_absent(&self) -> bool {
        self.value.is_null()
    }

    pub fn is_true(&self) -> bool {
        self.value == &Value::Bool(true)
    }

    pub fn text(&self) -> Option<&'a str> {
        self.value.as_str().filter(|text| !text.is_empty())
    }

    /// A number; protobuf's JSON writes large ones as text.
    pub fn number(&self) -> Option<u64> {
        self.value.as_u64().or_else(|| self.value.as_str()?.parse().ok())
    }

    /// A duration (`0.250s`), in seconds.
    pub fn seconds(&self) -> Option<f64> {
        let seconds: f64 = self.value.as_str()?.strip_suffix('s')?.parse().ok()?;
        (seconds.is_finite() && seconds >= 0.0).then_some(seconds)
    }

    /// Whether the message is of this type: the last part of its `@type`.
    pub fn is_a(&self, kind: &str) -> bool {
        kind_of(self.value) == Some(kind)
    }

    /// The message within a `typed_config` that says its type beside it.
    pub fn unwrapped(self) -> (Option<&'a str>, Self) {
        match kind_of(self.value) {
            Some("TypedStruct") => {
                let kind = field(self.value, "type_url").and_then(Value::as_str).and_then(last_part);
                (kind, Self::new(field(self.value, "value").unwrap_or(&NULL), self.path))
            }
            kind => (kind, self),
        }
    }

    /// Every object in this one and below, with its way there.
    pub fn objects(&self) -> Vec<Self> {
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

    /// Whether some text in here, field names left out, satisfies.
    pub fn any_text(&self, satisfies: impl Fn(&str) -> bool) -> bool {
        let mut open = vec![self.value];
        while let Some(value) = open.pop() {
            match value {
                Value::String(text) if satisfies(text) => return true,
                Value::Object(fields) => open.extend(fields.values()),
                Value::Array(items) => open.extend(items),
                _ => {}
            }
        }
        false
    }
}

/// A field under either of its two spellings.
pub fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let fields = value.as_object()?;
    fields.get(name).or_else(|| fields.get(camel(name)?.as_str()))
}

/// The last part of a message's `@type`.
pub fn kind_of(value: &Value) -> Option<&str> {
    value.get("@type").and_then(Value::as_str).and_then(last_part)
}

fn last_part(url: &str) -> Option<&str> {
    url.rsplit(['.', '/']).next()
}

/// `failureModeAllow` for `failure_mode_allow`; None where the two are the same.
fn camel(name: &str) -> Option<String> {
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

/// A text as YAML has it: plain where that is read as the same, else in quotes.
pub fn yaml(text: &str) -> String {
    if serde_norway::from_str::<Value>(text).is_ok_and(|read| read == text) {
        return text.to_owned();
    }
    let json = Value::from(text).to_string();
    // JSON leaves more as it is than YAML can print.
    let is_odd = |c: char| c.is_control() || matches!(c, '\u{feff}' | '\u{fffe}' | '\u{ffff}');
    let escaped = |c: char| if is_odd(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    json.chars().map(escaped).collect()
}

/// A name without what all names of its kind begin with.
fn short(name: &str) -> &str {
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
        assert_eq!(node.find("status_on_error.code").text(), Some("Forbidden"));
        assert_eq!(node.get("name").text(), Some("n"));
        let absent = node.find("grpc_service.timeout");
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
            let list = format!("- name: {}", yaml(text));
            let read: Value = serde_norway::from_str(&list).unwrap();
            assert_eq!(read, json!([{ "name": text }]), "{list}");
        }
        assert_eq!(yaml("talos_authz"), "talos_authz");
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
