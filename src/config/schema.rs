//! JSON Schema of the configuration file, generated from the types that read it.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::model::Config;

/// The schema (draft 2020-12), for editors and for checks before a deployment. A copy is in
/// `src/config/schema.json`.
///
/// It has the allowed values and the default of each key. Rules between keys are checked only by
/// [`load`](super::load), which also accepts `null` for an unset key.
pub fn schema() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut body = generator.into_root_schema_for::<Config>();
    body.insert("title".to_owned(), "Configuration of Talos for Envoy".into());
    let root = body.to_value();
    let mut schema = root.clone();
    drop_defaults_of_sections(&root, &mut schema);
    schema
}

/// Description of the key or section at a dotted path, which may be an entry of a list.
pub fn description(path: &str) -> Option<String> {
    let root = schema();
    let (path, _) = path.split_once('[').unwrap_or((path, ""));
    let mut found = &root;
    for name in path.split('.') {
        let reference = found.get("$ref").and_then(Value::as_str);
        let target = reference.and_then(|path| root.pointer(path.trim_start_matches('#')));
        found = target.unwrap_or(found).get("properties")?.get(name)?;
    }
    Some(found.get("description")?.as_str()?.replace('\n', " "))
}

/// Removes defaults of sections. They repeat those of all their keys, and editors would insert them
/// as a whole.
fn drop_defaults_of_sections(root: &Value, value: &mut Value) {
    if let Value::Object(members) = value {
        let reference = members.get("$ref").and_then(Value::as_str);
        let target = reference.and_then(|path| root.pointer(path.trim_start_matches('#')));
        if target.is_some_and(|target| target.get("properties").is_some()) {
            members.shift_remove("default");
        }
        members.values_mut().for_each(|member| drop_defaults_of_sections(root, member));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::keys::{self, KEYS};

    fn target<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
        match schema.get("$ref").and_then(Value::as_str) {
            Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap(),
            None => schema,
        }
    }

    /// Every path with a value in the schema.
    fn leaves<'a>(root: &'a Value, schema: &'a Value, path: &str, found: &mut Vec<(String, &'a Value)>) {
        match target(root, schema).get("properties").and_then(Value::as_object) {
            Some(properties) => {
                assert_eq!(target(root, schema)["additionalProperties"], false, "{path}");
                for (name, property) in properties {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    leaves(root, property, &path, found);
                }
            }
            None => found.push((path.to_owned(), schema)),
        }
    }

    #[test]
    fn the_schema_has_each_key_with_its_default_and_a_description() {
        let root = schema();
        let mut found = Vec::new();
        leaves(&root, &root, "", &mut found);
        let paths: BTreeSet<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
        let known: BTreeSet<&str> = KEYS.iter().map(|key| key.path.as_str()).collect();
        assert_eq!(paths, known);
        for (path, schema) in &found {
            assert!(schema.get("default").is_some(), "{path} has no default: {schema:#}");
            assert!(schema["description"].as_str().is_some_and(|text| text.len() > 10), "{path}: {schema:#}");
        }
    }

    /// Field names of list entries are equal in the schema, in [`keys::entry_fields`] and in the
    /// types.
    #[test]
    fn the_schema_has_the_fields_of_entries() {
        let root = schema();
        let mut found = Vec::new();
        leaves(&root, &root, "", &mut found);
        for (path, schema) in found {
            let fields = keys::entry_fields(&path);
            if fields.is_empty() {
                continue;
            }
            let entry = target(&root, &target(&root, schema)["items"]);
            let forms = ["anyOf", "oneOf"].iter().find_map(|name| entry.get(name)?.as_array());
            let forms = forms.map_or(vec![entry], |forms| forms.iter().collect());
            let names: BTreeSet<&str> = forms
                .iter()
                .filter_map(|form| form.get("properties")?.as_object())
                .flat_map(|properties| properties.keys().map(String::as_str))
                .collect();
            assert_eq!(names, fields.iter().copied().collect(), "{path}");
        }
    }

    #[test]
    fn the_copy_is_current() {
        let copy = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/schema.json");
        let fresh = format!("{:#}\n", schema());
        if std::env::var_os("TALOS_BLESS").is_some() {
            std::fs::write(copy, &fresh).unwrap();
        }
        let current = std::fs::read_to_string(copy).unwrap_or_default();
        assert!(current == fresh, "{copy} is stale: TALOS_BLESS=1 writes it anew");
    }
}
