//! Documents of an export: JSON, one or several, or YAML.

use serde::Deserialize;
use serde_json::Value;

/// Parses all documents of a file. YAML's empty documents are left out.
///
/// # Errors
/// Fails if the text is neither JSON nor YAML. The message names the line and never quotes the
/// text, which holds keys.
pub(super) fn documents(text: &str) -> Result<Vec<Value>, String> {
    if text.trim_start().starts_with(['{', '[']) {
        let read: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
        return read.map_err(|error| {
            format!("invalid JSON at line {}, column {}; export the file again", error.line(), error.column())
        });
    }
    let mut found = vec![];
    for document in serde_norway::Deserializer::from_str(text) {
        let value = Value::deserialize(document).map_err(|error| match error.location() {
            Some(place) => format!(
                "invalid YAML at line {}, column {}; look at indentation and quotes there, or export the file again",
                place.line(),
                place.column()
            ),
            None => "invalid YAML; export the file again".to_owned(),
        })?;
        if !value.is_null() {
            found.push(value);
        }
    }
    Ok(found)
}
