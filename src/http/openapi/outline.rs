//! Outline of an OpenAPI document: what a page for people shows of it, in order.
//!
//! Texts may have code in backticks. In a type's name, that is the name of a type or an enum value.

use serde_json::Value;

/// Outline of a document.
pub(crate) struct Outline {
    /// Description of the API.
    pub(crate) description: String,
    /// Operations.
    pub(crate) operations: Vec<OperationOutline>,
    /// Types that the operations name.
    pub(crate) types: Vec<TypeOutline>,
    /// Ways to authenticate: name and description.
    pub(crate) credentials: Vec<(String, String)>,
}

/// An operation.
pub(crate) struct OperationOutline {
    /// Operation id.
    pub(crate) id: String,
    /// Title.
    pub(crate) summary: String,
    /// Method, in capitals.
    pub(crate) method: String,
    /// Path, with parameters in braces.
    pub(crate) path: String,
    /// Description.
    pub(crate) description: String,
    /// Role that callers need. None: anyone may call it, on the public plane, too.
    pub(crate) role: Option<String>,
    /// Parameters, each with its location in parentheses.
    pub(crate) parameters: Vec<Row>,
    /// Members of the body.
    pub(crate) members: Vec<Row>,
    /// Example of the body.
    pub(crate) request: Option<String>,
    /// Responses.
    pub(crate) responses: Vec<ResponseOutline>,
}

/// A response.
pub(crate) struct ResponseOutline {
    /// HTTP status, or `default`.
    pub(crate) status: String,
    /// Description.
    pub(crate) description: String,
    /// Type of the body.
    pub(crate) kind: Option<String>,
    /// Headers.
    pub(crate) headers: Vec<Row>,
    /// Example of the body.
    pub(crate) example: Option<String>,
}

/// A type.
pub(crate) struct TypeOutline {
    /// Name.
    pub(crate) name: String,
    /// Description.
    pub(crate) description: String,
    /// Members of an object.
    pub(crate) members: Vec<Row>,
    /// Values of an enumeration.
    pub(crate) values: Vec<String>,
}

/// A parameter, member or header.
pub(crate) struct Row {
    /// Name.
    pub(crate) name: String,
    /// Location of a parameter.
    pub(crate) location: Option<String>,
    /// Type.
    pub(crate) kind: String,
    /// Description.
    pub(crate) meaning: String,
}

impl Outline {
    /// Reads a document.
    pub(crate) fn of(document: &Value) -> Self {
        let components = &document["components"];
        let types = entries(&components["schemas"]).map(|(name, schema)| TypeOutline {
            name: name.clone(),
            description: words(&schema["description"]),
            members: members(document, schema),
            values: strings(&schema["enum"]),
        });
        let credentials = entries(&components["securitySchemes"])
            .map(|(name, scheme)| (name.clone(), words(&scheme["description"])));
        let operations = entries(&document["paths"]).flat_map(|(path, item)| {
            entries(item).map(move |(verb, operation)| outline(document, path, verb, operation))
        });
        Self {
            description: words(&document["info"]["description"]),
            operations: operations.collect(),
            types: types.collect(),
            credentials: credentials.collect(),
        }
    }
}

fn outline(document: &Value, path: &str, verb: &str, operation: &Value) -> OperationOutline {
    let body = &operation["requestBody"]["content"]["application/json"];
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let responses = entries(&operation["responses"]).map(|(status, response)| {
        let (_, content) = entries(&response["content"]).next().unzip();
        ResponseOutline {
            status: status.clone(),
            description: words(&response["description"]),
            kind: content.map(|content| kind(document, &content["schema"])),
            headers: entries(&response["headers"])
                .map(|(name, header)| row(document, name, header))
                .collect(),
            example: content.and_then(|content| pretty(&content["example"])),
        }
    });
    OperationOutline {
        id: words(&operation["operationId"]),
        summary: words(&operation["summary"]),
        method: verb.to_uppercase(),
        path: path.to_owned(),
        description: words(&operation["description"]),
        role: operation["x-talos-role"].as_str().map(str::to_owned),
        parameters: parameters
            .map(|parameter| Row {
                location: Some(words(&parameter["in"])),
                ..row(document, &words(&parameter["name"]), parameter)
            })
            .collect(),
        members: members(document, &body["schema"]),
        request: pretty(&body["example"]),
        responses: responses.collect(),
    }
}

/// Returns the row of a parameter or header, whose schema stands in a member.
fn row(document: &Value, name: &str, described: &Value) -> Row {
    Row {
        name: name.to_owned(),
        location: None,
        kind: kind(document, &described["schema"]),
        meaning: words(&described["description"]),
    }
}

/// Returns the members of an object.
fn members(document: &Value, schema: &Value) -> Vec<Row> {
    let schema = resolved(document, schema);
    let rows = entries(&schema["properties"]).map(|(name, property)| Row {
        name: name.clone(),
        location: None,
        kind: kind(document, property),
        meaning: words(&property["description"]),
    });
    rows.collect()
}

/// Returns the schema that a reference leads to, or the schema itself.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let inner = schema["allOf"].get(0).unwrap_or(schema);
    let reference = inner["$ref"].as_str().or(schema["$ref"].as_str());
    reference.and_then(|path| document.pointer(path.trim_start_matches('#'))).unwrap_or(inner)
}

/// Returns the type of a value in few words.
fn kind(document: &Value, schema: &Value) -> String {
    let inner = schema["allOf"].get(0).unwrap_or(schema);
    let found = resolved(document, schema);
    if found["enum"].is_array() {
        let names = strings(&found["enum"]).into_iter().filter(|name| !name.is_empty());
        let names = names.map(|name| format!("`{name}`"));
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

/// Returns the members of an object, none of anything else.
fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn strings(value: &Value) -> Vec<String> {
    let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// Returns the words of a text in one line.
fn words(value: &Value) -> String {
    value.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns an example in several lines; a text as it is.
fn pretty(example: &Value) -> Option<String> {
    match example {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(format!("{other:#}")),
    }
}
