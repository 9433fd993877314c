//! The page of all operations of the HTTP API.

use serde_json::Value;

/// First lines of the page.
const INTRODUCTION: &str = "\
# The HTTP API

For developers who call the admin or the public plane. Made from the description that the admin plane serves as
`/openapi.json` (`talos reference api`), which has the whole types; [error reasons](../errors.md) lists the errors.

In requests a member that is absent, `null` or `*_UNSPECIFIED` means the same, and unknown members are refused. In
answers, what is unset is absent. Each path is one of the admin plane; those of the public plane are marked.
";

/// Paths that the public plane has, too.
const PUBLIC: [&str; 4] =
    ["/v2alpha1/apiKeys:selfRevoke", "/v2alpha1/derivedKeys/jwks.json", "/health/alive", "/health/ready"];

/// Returns the page of an OpenAPI document.
pub(super) fn page(document: &Value) -> String {
    let mut text = INTRODUCTION.to_owned();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (verb, operation) in item.as_object().into_iter().flatten() {
            text.push_str(&section(document, path, verb, operation));
        }
    }
    text
}

fn section(document: &Value, path: &str, verb: &str, operation: &Value) -> String {
    let (summary, description) = (words(&operation["summary"]), words(&operation["description"]));
    let mut text = format!("\n## {summary}\n\n`{} {path}`\n\n{description}\n", verb.to_uppercase());
    if PUBLIC.contains(&path) {
        text.push_str("\nThe public plane has it, too.\n");
    }
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let parameters: Vec<[String; 3]> = parameters
        .map(|parameter| {
            let place = format!("{} ({})", code(&parameter["name"]), words(&parameter["in"]));
            [place, kind(document, &parameter["schema"]), words(&parameter["description"])]
        })
        .collect();
    if !parameters.is_empty() {
        text.push_str(&table("parameter", &parameters));
    }
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    let members = members(document, body);
    if !members.is_empty() {
        text.push_str(&table("member of the body", &members));
    }
    let responses = operation["responses"].as_object().into_iter().flatten();
    text.push_str("\n| status | answer |\n|---|---|\n");
    for (status, response) in responses {
        let schema = &response["content"]["application/json"]["schema"];
        let kind = if schema.is_null() { String::new() } else { format!(" ({})", kind(document, schema)) };
        text.push_str(&format!("| {status} | {}{kind} |\n", cell(&words(&response["description"]))));
    }
    text
}

/// Members of an object, with type and description.
fn members(document: &Value, schema: &Value) -> Vec<[String; 3]> {
    let schema = resolved(document, schema);
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties
        .map(|(name, property)| {
            [format!("`{name}`"), kind(document, property), words(&property["description"])]
        })
        .collect()
}

/// The schema that a reference leads to, or itself.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let inner = schema["allOf"].get(0).unwrap_or(schema);
    let reference = inner["$ref"].as_str().or(schema["$ref"].as_str());
    reference.and_then(|path| document.pointer(path.trim_start_matches('#'))).unwrap_or(inner)
}

/// Type of a value in few words.
fn kind(document: &Value, schema: &Value) -> String {
    let inner = schema["allOf"].get(0).unwrap_or(schema);
    let found = resolved(document, schema);
    if let Some(names) = found["enum"].as_array() {
        let names = names.iter().filter_map(Value::as_str).map(|name| format!("`{name}`"));
        return names.collect::<Vec<_>>().join(", ");
    }
    if let Some(reference) = inner["$ref"].as_str() {
        return format!("`{}`", reference.rsplit('/').next().unwrap_or_default());
    }
    match (found["type"].as_str(), found["format"].as_str()) {
        (Some("string"), Some(format)) => format!("text ({format})"),
        (Some("string"), None) => "text".to_owned(),
        (Some("integer"), _) => "whole number".to_owned(),
        (Some("boolean"), _) => "`true`, `false`".to_owned(),
        (Some("array"), _) => format!("list of {}", kind(document, &found["items"])),
        (Some(other), _) => other.to_owned(),
        (None, _) => "any".to_owned(),
    }
}

fn table(title: &str, rows: &[[String; 3]]) -> String {
    let mut text = format!("\n| {title} | type | meaning |\n|---|---|---|\n");
    for [name, kind, meaning] in rows {
        text.push_str(&format!("| {name} | {} | {} |\n", cell(kind), cell(meaning)));
    }
    text
}

fn code(value: &Value) -> String {
    format!("`{}`", words(value))
}

/// The words of a text in one line.
fn words(value: &Value) -> String {
    value.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Text that stays within a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}
