//! OpenAPI 3.0 description of the admin plane's API, generated from the operations of its router,
//! which include those of the public plane.
//!
//! Operations are described in the files below this one; here is only what turns them into the
//! document. Clients are generated from it, and a test compares it with Ory's (`against_ory.rs`).

#[cfg(test)]
mod against_ory;
mod components;
pub(super) mod erasure;
mod examples;
pub(super) mod follow;
mod listing;
pub(super) mod operation;
pub(super) mod operations;
pub(crate) mod outline;
mod page;
pub(super) mod policies;
pub(super) mod state;
pub(super) mod status;
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
use self::examples::{error_example, example_of, header_example, parameter_example};
use self::operation::{Access, Operation, Parameter, ParameterLocation, Tag, of};
use self::page::Page;
use super::context::Context;
use super::routes::Routes;

/// Returns a router of these operations and of two more, which return the description of all, for
/// programs and as a page.
pub(super) fn described(routes: Routes) -> Router<Context> {
    let document = description(&routes);
    let page = Page::new(&document);
    let text = Bytes::from(document.to_string());
    routes
        .at(&operations::DESCRIPTION, move || {
            let text = text.clone();
            async move { answer(text) }
        })
        .at(&page::DOCS, move || {
            let page = page.clone();
            async move { page }
        })
        .into_router()
}

/// Returns the description of these operations, and of those that return it.
pub(super) fn description(routes: &Routes) -> Value {
    let mut operations = routes.operations().to_vec();
    operations.extend([&operations::DESCRIPTION, &page::DOCS]);
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
        incoming: SchemaSettings::openapi3()
            .with_transform(RecursiveTransform(rewrite_nullable_reference))
            .into_generator(),
        outgoing: SchemaSettings::openapi3()
            .for_serialize()
            .with_transform(RecursiveTransform(remove_nullable))
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
                In answers, what is unset is absent. \
                Callers of the admin plane prove who they are as `serve.http.auth.mode` says: by a client certificate of \
                the connection (`mtls`), a forwarded one (`xfcc`), a bearer token (`jwt`), or as the user of the Unix socket. \
                `serve.http.auth.roles` gives them a role, and `x-talos-role` is the least that an operation needs. \
                Operations of the public plane need no role; to revoke a key, its holder presents the key itself in the body.",
        },
        "servers": [{ "url": "/" }],
        "tags": Tag::ALL.map(|tag| json!({ "name": tag.name(), "description": tag.description() })),
        "paths": paths,
        "components": { "schemas": generators.components(), "securitySchemes": security_schemes() },
    })
}

/// Returns the ways to authenticate that a request shows. A client certificate of the connection
/// has no name in OpenAPI 3.0, so it is the empty requirement of [`security`].
fn security_schemes() -> Value {
    json!({
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "With `serve.http.auth.mode: jwt`: a token of your identity provider, whose claim names the caller.",
        },
        "forwardedClientCertificate": {
            "type": "apiKey",
            "in": "header",
            "name": "x-forwarded-client-cert",
            "description": "With `serve.http.auth.mode: xfcc`: the certificate that a listed proxy (`serve.http.auth.xfcc.peers`) \
                has verified. Clients never write this header themselves.",
        },
    })
}

/// Returns the alternatives to authenticate for an operation.
fn security(access: Access) -> Value {
    match access {
        Access::Anyone => json!([]),
        Access::From(_) => json!([{ "bearer": [] }, { "forwardedClientCertificate": [] }, {}]),
    }
}

/// Transform of requests' schemas: rewrites a nullable reference in the form that client generators
/// understand, and removes `default: null`.
fn rewrite_nullable_reference(schema: &mut Schema) {
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

/// Transform of responses' schemas: removes `nullable`, as responses omit unset members.
fn remove_nullable(schema: &mut Schema) {
    schema.remove("nullable");
}

/// Generators of schemas, one for each direction.
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
            "security": security(operation.access),
        });
        if let Access::From(role) = operation.access {
            described["x-talos-role"] = role.name().into();
        }
        let example = example_of(operation);
        let (request, response) = example.map_or((None, None), |example| (example.request, example.response));
        if !operation.parameters.is_empty() {
            let parameters =
                operation.parameters.iter().map(|parameter| self.parameter(operation, parameter));
            described["parameters"] = parameters.collect();
        }
        if let Some(body) = operation.body {
            let schema = body(&mut self.incoming);
            described["requestBody"] =
                json!({ "required": true, "content": content("application/json", schema, request) });
        }
        described["responses"] = self.responses(operation, response);
        described
    }

    fn parameter(&mut self, operation: &Operation, parameter: &Parameter) -> Value {
        let location = match parameter.location {
            ParameterLocation::Path => "path",
            ParameterLocation::Query => "query",
            ParameterLocation::Header => "header",
        };
        let mut described = json!({
            "name": parameter.name,
            "in": location,
            "description": parameter.description,
            "schema": (parameter.schema)(&mut self.incoming),
        });
        if parameter.location == ParameterLocation::Path {
            described["required"] = true.into();
        }
        if let Some(example) = parameter_example(operation, parameter.name) {
            described["example"] = example;
        }
        described
    }

    fn responses(&mut self, operation: &Operation, example: Option<Value>) -> Value {
        let answer = &operation.answer;
        let mut good = json!({ "description": answer.description });
        if let Some(schema) = answer.schema {
            let media_type = if operation.id == page::DOCS.id { "text/html" } else { "application/json" };
            good["content"] = content(media_type, schema(&mut self.outgoing), example);
        }
        let headers = answer.headers.iter().map(|header| {
            let schema = (header.schema)(&mut self.outgoing);
            let mut described = json!({ "description": header.description, "schema": schema });
            if let Some(example) = header_example(header.name) {
                described["example"] = example;
            }
            (header.name.to_owned(), described)
        });
        let headers: Map<String, Value> = headers.collect();
        if !headers.is_empty() {
            good["headers"] = headers.into();
        }
        let mut responses = json!({ answer.status: good });
        if operation.id == operations::READY.id {
            let schema = of::<components::Health>(&mut self.outgoing);
            let content = content("application/json", schema, Some(json!({ "status": "unavailable" })));
            responses["503"] = json!({ "description": "The database doesn't answer.", "content": content });
        }
        let schema = of::<ErrorEnvelope>(&mut self.outgoing);
        let content = content("application/json", schema, Some(error_example(operation)));
        responses["default"] = json!({ "description": "An error.", "content": content });
        responses
    }

    /// Returns all named schemas. For a type that is used in both directions, the schema of
    /// requests.
    fn components(mut self) -> Map<String, Value> {
        // Names in Ory's description that no operation of ours uses.
        add_schema::<Status>(&mut self.outgoing);
        add_schema::<Any>(&mut self.outgoing);
        add_schema::<NullValue>(&mut self.outgoing);
        let mut schemas = self.outgoing.take_definitions(true);
        schemas.extend(self.incoming.take_definitions(true));
        schemas.sort_keys();
        schemas
    }
}

/// Returns the content of a body.
fn content(media_type: &str, schema: Schema, example: Option<Value>) -> Value {
    let mut described = json!({ "schema": schema });
    if let Some(example) = example {
        described["example"] = example;
    }
    json!({ media_type: described })
}

/// Adds the schema of a type to the document's components.
fn add_schema<T: JsonSchema>(generator: &mut SchemaGenerator) {
    of::<T>(generator);
}
