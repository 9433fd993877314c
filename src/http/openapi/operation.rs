//! Operations of the API, as used by the router and the description.

use crate::caller::Role;
use axum::routing::MethodFilter;
use schemars::{JsonSchema, Schema, SchemaGenerator};

/// HTTP methods of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// GET.
    Get,
    /// POST.
    Post,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
}

impl Verb {
    /// Returns the filter for the router.
    pub(crate) const fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Patch => MethodFilter::PATCH,
            Self::Delete => MethodFilter::DELETE,
        }
    }

    /// Returns the key in a path item.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

/// Returns the schema of a type, inline or as a reference to its component.
pub(crate) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// Returns the schema of `T`.
pub(crate) fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// An operation of the API.
#[derive(Debug)]
pub(crate) struct Operation {
    /// Method.
    pub verb: Verb,
    /// Required role.
    pub access: Access,
    /// Path, with parameters in braces.
    pub path: &'static str,
    /// Operation id, the name in generated clients.
    pub id: &'static str,
    /// Tag.
    pub tag: Tag,
    /// Title.
    pub summary: &'static str,
    /// Description.
    pub description: &'static str,
    /// Parameters beside the body.
    pub parameters: &'static [Parameter],
    /// Body of the request.
    pub body: Option<SchemaOf>,
    /// Successful response.
    pub answer: Answer,
}

/// Required role on the admin plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// No role.
    Anyone,
    /// This role, or one that includes it.
    From(Role),
}

/// Tags of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    /// Keys and tokens.
    ApiKeys,
    /// The service itself.
    Service,
}

impl Tag {
    /// All tags.
    pub(crate) const ALL: [Self; 2] = [Self::ApiKeys, Self::Service];

    /// Returns the name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ApiKeys => "ApiKeys",
            Self::Service => "Service",
        }
    }

    /// Returns the description.
    pub(crate) const fn description(self) -> &'static str {
        match self {
            Self::ApiKeys => "API keys, issued or imported, and the tokens derived from them.",
            Self::Service => "The service itself.",
        }
    }
}

/// Location of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParameterLocation {
    /// Path.
    Path,
    /// Query.
    Query,
    /// Header.
    Header,
}

/// A parameter.
#[derive(Debug)]
pub(crate) struct Parameter {
    /// Name.
    pub name: &'static str,
    /// Location.
    pub location: ParameterLocation,
    /// Description.
    pub description: &'static str,
    /// Schema.
    pub schema: SchemaOf,
}

/// Successful response of an operation.
#[derive(Debug)]
pub(crate) struct Answer {
    /// HTTP status.
    pub status: &'static str,
    /// Description.
    pub description: &'static str,
    /// Body, `None` if it has none.
    pub schema: Option<SchemaOf>,
    /// Headers.
    pub headers: &'static [Header],
}

/// A header of a response.
#[derive(Debug)]
pub(crate) struct Header {
    /// Name.
    pub name: &'static str,
    /// Description.
    pub description: &'static str,
    /// Schema.
    pub schema: SchemaOf,
}
