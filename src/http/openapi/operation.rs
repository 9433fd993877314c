//! What one operation of the API is, for the router and for the description alike.

use crate::caller::Role;
use axum::routing::MethodFilter;
use schemars::{JsonSchema, Schema, SchemaGenerator};

/// The methods that our operations have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Read.
    Get,
    /// Make, or act.
    Post,
    /// Change.
    Patch,
    /// Remove.
    Delete,
}

impl Verb {
    /// For the router.
    pub const fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Patch => MethodFilter::PATCH,
            Self::Delete => MethodFilter::DELETE,
        }
    }

    /// The key in a path item.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

/// Writes the schema of a type, in place or as a reference to its component.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// The schema of `T`.
pub fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// An operation: where it is, what goes in, what comes out.
#[derive(Debug)]
pub struct Operation {
    /// Its method.
    pub verb: Verb,
    /// Who may ask for it.
    pub access: Access,
    /// Its path, parameters in braces.
    pub path: &'static str,
    /// Its name in clients' code.
    pub id: &'static str,
    /// The group that it stands in.
    pub tag: Tag,
    /// What it does, as a title.
    pub summary: &'static str,
    /// What it does, in full.
    pub description: &'static str,
    /// What comes in beside the body.
    pub parameters: &'static [Parameter],
    /// The body that comes in.
    pub body: Option<SchemaOf>,
    /// What comes out when all is well.
    pub answer: Answer,
}

/// Who may ask for an operation on the admin plane, where callers say who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Whoever reaches the listener.
    Anyone,
    /// Who has this role, or one that may do more.
    From(Role),
}

/// The groups of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// Keys and tokens.
    ApiKeys,
    /// The service itself.
    Service,
}

impl Tag {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::ApiKeys, Self::Service];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ApiKeys => "ApiKeys",
            Self::Service => "Service",
        }
    }

    /// What is in it.
    pub const fn description(self) -> &'static str {
        match self {
            Self::ApiKeys => "API keys, issued or imported, and the tokens derived from them.",
            Self::Service => "The service itself.",
        }
    }
}

/// Where a parameter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the path.
    Path,
    /// In the query.
    Query,
    /// Among the headers.
    Header,
}

/// A parameter.
#[derive(Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Where it stands.
    pub place: Place,
    /// What it means.
    pub description: &'static str,
    /// What it may be.
    pub schema: SchemaOf,
}

/// The answer of an operation that went well.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: &'static str,
    /// What it says.
    pub description: &'static str,
    /// Its JSON; None when it has no content.
    pub schema: Option<SchemaOf>,
    /// Its headers of note.
    pub headers: &'static [Header],
}

/// A header of an answer.
#[derive(Debug)]
pub struct Header {
    /// Its name.
    pub name: &'static str,
    /// What it means.
    pub description: &'static str,
    /// What it may be.
    pub schema: SchemaOf,
}
