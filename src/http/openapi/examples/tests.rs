//! Each operation has examples, they fit its schemas and the types that read requests, and none of
//! them looks like a secret.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::*;
use crate::http::wire::{
    BatchImportBody, BatchVerifyBody, CheckPoliciesBody, DeriveBody, ImportBody, IssueBody, KeyBody,
    PreviewScopesBody, RevokeBody, RotateBody, SelfRevokeRequest, VerifyBody,
};
use crate::service::{ImportRequest, KeyRequest, RotateRequest};

fn document() -> Value {
    crate::http::openapi::description(&crate::http::admin_routes())
}

/// Returns each operation with its method and path.
fn described(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let all = paths.iter().flat_map(|(path, item)| {
        let verbs = item.as_object().unwrap().iter();
        verbs.map(move |(verb, operation)| (format!("{verb} {path}"), operation))
    });
    all.collect()
}

/// Collects what is wrong with a value by its schema. An unknown keyword is wrong, too.
fn validate(document: &Value, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        return validate(document, document.pointer(&reference[1..]).unwrap(), value, at, wrong);
    }
    let mut add = |problem: String| wrong.push(format!("{at}: {problem}"));
    let length = |value: &Value| match value {
        Value::String(text) => text.chars().count(),
        Value::Array(items) => items.len(),
        _ => 0,
    } as u64;
    for (word, rule) in schema.as_object().into_iter().flatten() {
        let holds = match word.as_str() {
            "type" => match rule.as_str().unwrap() {
                "string" => value.is_string(),
                "integer" => value.is_i64(),
                "boolean" => value.is_boolean(),
                "array" => value.is_array(),
                "object" => value.is_object(),
                _ => false,
            },
            "enum" => rule.as_array().unwrap().contains(value),
            "minLength" | "minItems" => length(value) >= rule.as_u64().unwrap(),
            "maxLength" | "maxItems" => length(value) <= rule.as_u64().unwrap(),
            "minimum" => value.as_i64() >= rule.as_i64(),
            "required" => {
                rule.as_array().unwrap().iter().all(|name| !value[name.as_str().unwrap()].is_null())
            }
            "format" => match rule.as_str().unwrap() {
                "date-time" => OffsetDateTime::parse(value.as_str().unwrap_or_default(), &Rfc3339).is_ok(),
                "int64" => value.is_i64() || value.as_str().is_some_and(|text| text.parse::<i64>().is_ok()),
                _ => true,
            },
            "additionalProperties" => {
                rule != false || {
                    let known = &schema["properties"];
                    value.as_object().unwrap().keys().all(|name| !known[name].is_null())
                }
            }
            "anyOf" => rule.as_array().unwrap().iter().any(|one| {
                let mut wrong = vec![];
                validate(document, one, value, at, &mut wrong);
                wrong.is_empty()
            }),
            // The types that read requests hold patterns.
            "properties" | "items" | "allOf" | "description" | "default" | "nullable" | "pattern"
            | "title" => true,
            _ => false,
        };
        if !holds {
            add(format!("{word} {rule} doesn't hold for {value}"));
        }
    }
    for inner in schema["allOf"].as_array().into_iter().flatten() {
        validate(document, inner, value, at, wrong);
    }
    for item in value.as_array().into_iter().flatten() {
        validate(document, &schema["items"], item, &format!("{at}[]"), wrong);
    }
    let members = value.as_object().into_iter().flatten();
    for (name, member) in members.filter(|(name, _)| !schema["properties"][name.as_str()].is_null()) {
        validate(document, &schema["properties"][name], member, &format!("{at}.{name}"), wrong);
    }
}

#[test]
fn each_operation_has_examples_that_fit_its_schemas() {
    let document = document();
    let mut wrong = vec![];
    let mut check = |at: String, described: &Value| match &described["example"] {
        Value::Null => wrong.push(format!("{at}: has no example: src/http/openapi/examples.rs")),
        example => validate(&document, &described["schema"], example, &at, &mut wrong),
    };
    for (at, operation) in described(&document) {
        for (_, body) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
            check(format!("{at}: request"), body);
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            for (_, body) in response["content"].as_object().into_iter().flatten() {
                check(format!("{at}: {status}"), body);
            }
            for (name, header) in response["headers"].as_object().into_iter().flatten() {
                check(format!("{at}: {status}: {name}"), header);
            }
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            check(format!("{at}: {}", parameter["name"]), parameter);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_examples_are_read_as_requests_are() {
    fn read<T: DeserializeOwned>(operation: &Operation) -> T {
        let request = example_of(operation).unwrap().request.unwrap();
        serde_json::from_str(&request.to_string()).unwrap()
    }
    KeyRequest::try_from(read::<IssueBody>(&operations::ISSUE)).unwrap();
    ImportRequest::try_from(read::<ImportBody>(&operations::IMPORT)).unwrap();
    RotateRequest::try_from(read::<RotateBody>(&operations::ROTATE_ISSUED)).unwrap();
    for request in read::<BatchImportBody>(&operations::IMPORT_BATCH).requests.unwrap() {
        ImportRequest::try_from(request).unwrap();
    }
    read::<KeyBody>(&operations::UPDATE_ISSUED);
    read::<KeyBody>(&operations::UPDATE_IMPORTED);
    for operation in [&operations::REVOKE_ISSUED, &operations::REVOKE_IMPORTED, &operations::REVOKE_ANY] {
        read::<RevokeBody>(operation);
    }
    read::<SelfRevokeRequest>(&operations::SELF_REVOKE);
    read::<VerifyBody>(&operations::VERIFY);
    read::<BatchVerifyBody>(&operations::VERIFY_BATCH);
    read::<DeriveBody>(&operations::DERIVE);
    read::<CheckPoliciesBody>(&policies::CHECK_POLICIES);
    read::<PreviewScopesBody>(&policies::PREVIEW_SCOPES);
}

/// Bits of information in each character of a text, as scanners for secrets compute it.
fn entropy(text: &str) -> f64 {
    let mut counts = BTreeMap::<char, f64>::new();
    text.chars().for_each(|character| *counts.entry(character).or_default() += 1.0);
    let length = text.chars().count() as f64;
    counts.values().map(|count| -count / length * (count / length).log2()).sum()
}

#[test]
fn no_example_looks_like_a_secret() {
    fn texts<'a>(value: &'a Value, name: &'a str, found: &mut Vec<(&'a str, &'a str)>) {
        match value {
            Value::String(text) => found.push((name, text)),
            Value::Array(items) => items.iter().for_each(|item| texts(item, name, found)),
            Value::Object(members) => members.iter().for_each(|(name, member)| texts(member, name, found)),
            _ => {}
        }
    }
    // Scanners suspect long words of letters and digits that seem random.
    let is_part = |character: char| character.is_ascii_alphanumeric() || "_-+/=.".contains(character);
    let seems_random = |text: &str| {
        let words = text.split(|character| !is_part(character));
        words.filter(|word| word.len() >= 16).any(|word| {
            let has = |kind: fn(&char) -> bool| word.chars().any(|character| kind(&character));
            has(char::is_ascii_digit) && has(char::is_ascii_alphabetic) && entropy(word) >= 3.5
        })
    };
    assert!(seems_random("ory_ak_v1_5fWnKBkCkKcTjPGtTnVDfGvfPGMCtTqgbFMTTb7_vHzQ3mCn8s"));
    assert!(seems_random("eyJhbGciOiJFZERTQSIsImtpZCI6Im9uZSJ9"));
    let secret = ["secret", "credential", "raw_key", "token", "x", "page_token"];
    let mut count = 0;
    for (id, example) in EXAMPLES {
        let Example { request, response } = example();
        let bodies = [request.unwrap_or_default(), response.unwrap_or_default()];
        let mut found = vec![];
        bodies.iter().for_each(|body| texts(body, "", &mut found));
        for (name, text) in found {
            count += 1;
            let is_marked = text.contains("EXAMPLE");
            assert!(is_marked || !secret.contains(&name), "{id}: {name}: {text} needs EXAMPLE in it");
            assert!(is_marked || !seems_random(text), "{id}: {name}: {text}");
            assert!(text.split('.').all(|part| !part.starts_with("eyJ")), "{id}: {name}: {text}");
        }
    }
    assert!(count > 100, "{count}");
}

#[test]
fn operations_with_a_role_list_every_way_to_authenticate() {
    let document = document();
    let schemes = document["components"]["securitySchemes"].as_object().unwrap();
    let mut open = vec![];
    for (at, operation) in described(&document) {
        let alternatives = operation["security"].as_array().unwrap();
        let named = alternatives.iter().flat_map(|one| one.as_object().unwrap().keys());
        match operation["x-talos-role"].as_str() {
            None => {
                assert!(alternatives.is_empty(), "{at}");
                open.push(at);
            }
            Some(role) => {
                assert!(["viewer", "issuer", "admin"].contains(&role), "{at}: {role}");
                assert!(named.eq(schemes.keys()), "{at}: {alternatives:?}");
                // Client certificates and Unix sockets, of which a request shows nothing.
                assert!(alternatives.contains(&json!({})), "{at}");
            }
        }
    }
    for public in [
        "get /health/alive",
        "get /health/ready",
        "post /v2alpha1/apiKeys:selfRevoke",
        "get /v2alpha1/derivedKeys/jwks.json",
    ] {
        assert!(open.contains(&public.to_owned()), "{public}: {open:?}");
    }
    assert!(open.iter().all(|at| !at.contains("/admin/")), "{open:?}");
}
