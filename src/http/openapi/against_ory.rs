//! Comparison with Ory's published description: clients written for it must work with ours.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::operations;

static ORY: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../tests/clients/ory-openapi.json")).unwrap());
static OURS: LazyLock<Value> = LazyLock::new(|| {
    let mut all = crate::http::admin_routes().operations().to_vec();
    all.push(&operations::DESCRIPTION);
    super::document(&all)
});

/// Returns the members of an object, none if it is null.
fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// Resolves references and wrappers of a schema.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(name) = schema["$ref"].as_str() {
        return resolved(document, document.pointer(&name[1..]).unwrap());
    }
    match ["allOf", "anyOf", "oneOf"].into_iter().find_map(|word| schema[word].as_array()) {
        Some(choices) => {
            resolved(document, choices.iter().find(|choice| choice["enum"] != Value::from([()])).unwrap())
        }
        None => schema,
    }
}

/// Collects everything in which our schema falls short of theirs.
fn compare(at: &str, theirs: &Value, ours: &Value, wrong: &mut Vec<String>) {
    let (theirs, ours) = (resolved(&ORY, theirs), resolved(&OURS, ours));
    for word in ["type", "format"] {
        // An empty schema accepts everything.
        if !theirs[word].is_null() && theirs[word] != ours[word] {
            wrong.push(format!("{at}: {word} is {} and not {}", ours[word], theirs[word]));
        }
    }
    for name in theirs["enum"].as_array().into_iter().flatten() {
        if !ours["enum"].as_array().is_some_and(|names| names.contains(name)) {
            wrong.push(format!("{at}: has no {name}"));
        }
    }
    if theirs["default"] != ours["default"] {
        wrong.push(format!("{at}: default is {} and not {}", ours["default"], theirs["default"]));
    }
    for (name, theirs) in members(&theirs["properties"]) {
        match &ours["properties"][name] {
            Value::Null => wrong.push(format!("{at}: has no {name}")),
            ours => compare(&format!("{at}.{name}"), theirs, ours, wrong),
        }
    }
    if !theirs["items"].is_null() {
        compare(&format!("{at}[]"), &theirs["items"], &ours["items"], wrong);
    }
}

#[test]
fn every_schema_of_ory_is_there() {
    let mut wrong = vec![];
    for (name, theirs) in members(&ORY["components"]["schemas"]) {
        match &OURS["components"]["schemas"][name] {
            Value::Null => wrong.push(format!("there is no {name}")),
            ours => compare(name, theirs, ours, &mut wrong),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_operation_of_ory_is_there() {
    const JSON: &str = "/content/application~1json/schema";
    let mut wrong = vec![];
    for (path, item) in members(&ORY["paths"]) {
        for (verb, theirs) in members(item) {
            let at = format!("{verb} {path}");
            let ours = &OURS["paths"][path][verb];
            for word in ["operationId", "tags"] {
                if ours[word] != theirs[word] {
                    wrong.push(format!("{at}: {word} is {} and not {}", ours[word], theirs[word]));
                }
            }
            for theirs in theirs["parameters"].as_array().into_iter().flatten() {
                let same = |ours: &&Value| {
                    ["name", "in", "required"].iter().all(|word| ours[*word] == theirs[*word])
                };
                match ours["parameters"].as_array().into_iter().flatten().find(same) {
                    None => wrong.push(format!("{at}: has no {}", theirs["name"])),
                    Some(ours) => compare(&at, &theirs["schema"], &ours["schema"], &mut wrong),
                }
            }
            if let Some(schema) = theirs["requestBody"].pointer(JSON) {
                let body = ours["requestBody"].pointer(JSON).unwrap_or(&Value::Null);
                compare(&format!("body of {at}"), schema, body, &mut wrong);
                if !schema["$ref"].is_null() && schema["$ref"] != body["$ref"] {
                    wrong.push(format!("{at}: takes {} and not {}", body["$ref"], schema["$ref"]));
                }
            }
            // Ory describes the response under 200, whatever its status, which then has no schema.
            let (status, good) =
                members(&ours["responses"]).find(|(status, _)| status.starts_with('2')).unwrap();
            if theirs["responses"][status].is_null() {
                wrong.push(format!("{at}: they know no {status}"));
            }
            if let Some(name) =
                theirs["responses"]["200"].pointer(JSON).and_then(|schema| schema["$ref"].as_str())
                && good.pointer(JSON).map(|schema| &schema["$ref"]) != Some(&name.into())
            {
                wrong.push(format!("{at}: answers {good} and not {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_reference_leads_somewhere_and_names_are_unique() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("$ref").and_then(Value::as_str));
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let mut found = vec![];
    references(&OURS, &mut found);
    assert!(found.len() > 50, "{found:?}");
    for name in found {
        assert!(name.starts_with('#') && OURS.pointer(&name[1..]).is_some(), "{name}");
    }
    let schemas: &Map<String, Value> = OURS["components"]["schemas"].as_object().unwrap();
    // schemars numbers the second type of a name.
    assert!(
        !schemas.keys().any(|name| name.ends_with(|last: char| last.is_ascii_digit())),
        "{:?}",
        schemas.keys()
    );
    let ids: Vec<&Value> = members(&OURS["paths"])
        .flat_map(|(_, item)| members(item))
        .map(|(_, one)| &one["operationId"])
        .collect();
    assert!(ids.iter().all(|id| ids.iter().filter(|other| *other == id).count() == 1), "{ids:?}");
}
