//! OpenAPI 3.0 description of the admin plane's API, generated from the operations of its router.

#[cfg(test)]
mod against_ory;
mod components;
pub(super) mod erasure;
pub(super) mod operation;
pub(super) mod operations;
pub(super) mod usage;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use self::components::{Any, ErrorEnvelope, NullValue, Status};
use self::operation::{Operation, Parameter, Place, Tag, of};
use super::context::Context;
use super::routes::Routes;

/// Returns a router of these operations and of one more, which returns the description of all.
pub(super) fn described(routes: Routes) -> Router<Context> {
    let text = Bytes::from(description(&routes).to_string());
    routes
        .at(&operations::DESCRIPTION, move || {
            let text = text.clone();
            async move { answer(text) }
        })
        .into_router()
}

/// Returns the description of these operations, and of the one that returns it.
pub(super) fn description(routes: &Routes) -> Value {
    let mut operations = routes.operations().to_vec();
    operations.push(&operations::DESCRIPTION);
    document(&operations)
}

fn answer(text: Bytes) -> Response {
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

/// Returns the whole document.
fn document(operations: &[&'static Operation]) -> Value {
    // Requests may have null where responses omit the member, so each direction has its own
    // generator.
    let mut generators = Generators {
        incoming: SchemaSettings::openapi3().with_transform(RecursiveTransform(plain)).into_generator(),
        outgoing: SchemaSettings::openapi3()
            .for_serialize()
            .with_transform(RecursiveTransform(never_null))
            .into_generator(),
    };
    let mut paths = Map::new();
    for operation in operations {
        let item = paths.entry(operation.path).or_insert_with(|| json!({}));
        item[operation.verb.name()] = generators.describe(operation);
    }
    json!({
        "openapi": "3.0.3",
        "info": {
            "title": "Talos API",
            "version": "v2alpha1",
            "description": "API keys: issued, imported, verified, revoked, and tokens derived from them. \
                In requests, a member that is absent, null or `*_UNSPECIFIED` is the same; unknown members are refused. \
                In answers, what is unset is absent.",
        },
        "servers": [{ "url": "/" }],
        "tags": Tag::ALL.map(|tag| json!({ "name": tag.name(), "description": tag.description() })),
        "paths": paths,
        "components": { "schemas": generators.components() },
    })
}

/// Rewrites a nullable reference in the form that client generators understand, and removes
/// `default: null`.
fn plain(schema: &mut Schema) {
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
    let reference = match schema.get("anyOf").and_then(Value::as_array).map(Vec::as_slice) {
        Some([reference, null]) if null["nullable"] == true => reference.clone(),
        _ => return,
    };
    schema.remove("anyOf");
    schema.insert("allOf".to_owned(), json!([reference]));
    schema.insert("nullable".to_owned(), true.into());
}

/// Responses omit unset members.
fn never_null(schema: &mut Schema) {
    schema.remove("nullable");
}

struct Generators {
    incoming: SchemaGenerator,
    outgoing: SchemaGenerator,
}

impl Generators {
    fn describe(&mut self, operation: &Operation) -> Value {
        let mut described = json!({
            "operationId": operation.id,
            "tags": [operation.tag.name()],
            "summary": operation.summary,
            "description": operation.description,
        });
        if !operation.parameters.is_empty() {
            let parameters = operation.parameters.iter().map(|parameter| self.parameter(parameter));
            described["parameters"] = parameters.collect();
        }
        if let Some(body) = operation.body {
            let schema = body(&mut self.incoming);
            described["requestBody"] =
                json!({ "required": true, "content": { "application/json": { "schema": schema } } });
        }
        described["responses"] = self.responses(operation);
        described
    }

    fn parameter(&mut self, parameter: &Parameter) -> Value {
        let place = match parameter.place {
            Place::Path => "path",
            Place::Query => "query",
            Place::Header => "header",
        };
        let mut described = json!({
            "name": parameter.name,
            "in": place,
            "description": parameter.description,
            "schema": (parameter.schema)(&mut self.incoming),
        });
        if parameter.place == Place::Path {
            described["required"] = true.into();
        }
        described
    }

    fn responses(&mut self, operation: &Operation) -> Value {
        let answer = &operation.answer;
        let mut good = json!({ "description": answer.description });
        if let Some(schema) = answer.schema {
            good["content"] = json!({ "application/json": { "schema": schema(&mut self.outgoing) } });
        }
        let headers = answer.headers.iter().map(|header| {
            let schema = (header.schema)(&mut self.outgoing);
            (header.name.to_owned(), json!({ "description": header.description, "schema": schema }))
        });
        let headers: Map<String, Value> = headers.collect();
        if !headers.is_empty() {
            good["headers"] = headers.into();
        }
        let mut responses = json!({ answer.status: good });
        if operation.id == operations::READY.id {
            let schema = of::<components::Health>(&mut self.outgoing);
            responses["503"] = json!({ "description": "The database doesn't answer.", "content": { "application/json": { "schema": schema } } });
        }
        let schema = of::<ErrorEnvelope>(&mut self.outgoing);
        responses["default"] =
            json!({ "description": "An error.", "content": { "application/json": { "schema": schema } } });
        responses
    }

    /// Returns all named schemas. For a type that is used in both directions, the schema of
    /// requests.
    fn components(mut self) -> Map<String, Value> {
        // Names in Ory's description that no operation of ours uses.
        known::<Status>(&mut self.outgoing);
        known::<Any>(&mut self.outgoing);
        known::<NullValue>(&mut self.outgoing);
        let mut schemas = self.outgoing.take_definitions(true);
        schemas.extend(self.incoming.take_definitions(true));
        schemas.sort_keys();
        schemas
    }
}

fn known<T: JsonSchema>(generator: &mut SchemaGenerator) {
    of::<T>(generator);
}
