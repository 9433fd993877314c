//! Operations that erase issued keys and actors.

use schemars::json_schema;

use super::operation::{Access, Answer, Operation, Parameter, ParameterLocation, Tag, Verb, of};
use super::operations::{EPOCH, KEY_ID};
use crate::caller::Role;
use crate::http::wire::ErasedActorOut;

/// Delete an issued key.
pub(crate) const DELETE_ISSUED: Operation = Operation {
    verb: Verb::Delete,
    access: Access::From(Role::Admin),
    path: "/v2alpha1/admin/issuedApiKeys/{key_id}",
    id: "adminDeleteIssuedApiKey",
    tag: Tag::ApiKeys,
    summary: "Delete an issued key",
    description: "Deletes a key and all its data. The audit log keeps what it has recorded.",
    parameters: &[KEY_ID],
    body: None,
    answer: Answer { status: "204", description: "The key is deleted.", schema: None, headers: &[EPOCH] },
};

/// Erase an actor.
pub(crate) const DELETE_ACTOR: Operation = Operation {
    verb: Verb::Delete,
    access: Access::From(Role::Admin),
    path: "/v2alpha1/admin/actors/{actor_id}",
    id: "adminDeleteActor",
    tag: Tag::ApiKeys,
    summary: "Erase an actor",
    description: "Deletes all keys of an actor, issued and imported, with all their data, at most 1000 at a time, and in the end what is recorded of the actor itself. Active keys are deleted only with `force=true`. The audit log keeps what it has recorded.",
    parameters: &[
        Parameter {
            name: "actor_id",
            location: ParameterLocation::Path,
            description: "The actor, percent-encoded.",
            schema: of::<String>,
        },
        Parameter {
            name: "force",
            location: ParameterLocation::Query,
            description: "`true` deletes active keys, too. Without it, an actor that has one is a 409.",
            schema: |_| json_schema!({ "type": "boolean" }),
        },
    ],
    body: None,
    answer: Answer {
        status: "200",
        description: "The keys are deleted.",
        schema: Some(of::<ErasedActorOut>),
        headers: &[EPOCH],
    },
};
