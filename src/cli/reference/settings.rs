//! The page of all settings.

use serde_json::Value;

/// First lines of the page.
const INTRODUCTION: &str = "\
# Every setting

For operators who look up a key of `talos.yaml`. Made from the schema of the configuration (`talos reference
configuration`); [configuration](../configuration.md) shows where settings come from and which apply without a restart.

Each key can also be set by a variable: its path in capitals, with `_`, after `TALOS_`. `serve.http.port` is
`TALOS_SERVE_HTTP_PORT`.
";

/// Returns the page of a schema.
pub(super) fn page(schema: &Value) -> String {
    let mut text = INTRODUCTION.to_owned();
    section(schema, schema, "", &mut text);
    text
}

/// The schema that a property refers to, or itself.
fn target<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let reference = schema.get("$ref").and_then(Value::as_str);
    reference.and_then(|path| root.pointer(path.trim_start_matches('#'))).unwrap_or(schema)
}

/// Adds the settings of a section, then the sections below it.
fn section(root: &Value, schema: &Value, path: &str, text: &mut String) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let is_section = |property: &Value| target(root, property).get("properties").is_some();
    let keys: Vec<_> = properties.iter().filter(|(_, property)| !is_section(property)).collect();
    if !keys.is_empty() {
        let title = if path.is_empty() { "At the top" } else { path };
        text.push_str(&format!("\n## {title}\n\n| key | values | default | meaning |\n|---|---|---|---|\n"));
        for (name, property) in keys {
            text.push_str(&row(root, name, property));
        }
    }
    for (name, property) in properties.iter().filter(|(_, property)| is_section(property)) {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        section(root, target(root, property), &path, text);
    }
}

fn row(root: &Value, name: &str, property: &Value) -> String {
    let description = property["description"].as_str().unwrap_or_default();
    let default = match property.get("default") {
        None | Some(Value::Null) => String::new(),
        Some(value) => format!("`{value}`"),
    };
    let meaning = cell(&description.split_whitespace().collect::<Vec<_>>().join(" "));
    format!("| `{name}` | {} | {} | {meaning} |\n", cell(&values(root, property)), cell(&default))
}

/// Values that a property takes, in few words.
fn values(root: &Value, property: &Value) -> String {
    let schema = target(root, property);
    if let Some(names) = schema.get("enum").and_then(Value::as_array) {
        return names
            .iter()
            .filter_map(Value::as_str)
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ");
    }
    if let Some(choices) = schema.get("oneOf").and_then(Value::as_array) {
        let names = choices.iter().filter_map(|choice| choice["const"].as_str());
        let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
        if !names.is_empty() {
            return names.join(", ");
        }
    }
    if let Some(choices) = schema.get("anyOf").and_then(Value::as_array) {
        // A duration is a text, or the number 0.
        if choices.iter().any(|choice| choice["const"] == 0) {
            return "duration".to_owned();
        }
        let first = choices.iter().find(|choice| choice["type"] != "null");
        return first.map_or_else(String::new, |choice| values(root, choice));
    }
    let kind = match schema.get("type") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(Value::Array(kinds)) => {
            kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or("")
        }
        _ => "",
    };
    match kind {
        "string" => "text",
        "integer" => "whole number",
        "number" => "number",
        "boolean" => "`true`, `false`",
        "array" => "list",
        "object" => "mapping",
        _ => "see the schema",
    }
    .to_owned()
}

/// Text that stays within a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}
