//! Operations that suspend and resume keys and actors, and that end grace periods early.

use schemars::json_schema;

use super::operation::{Access, Answer, Operation, Parameter, ParameterLocation, Tag, Verb, of};
use super::operations::{EPOCH, KEY_ID, WARNING};
use crate::caller::Role;
use crate::http::wire::{ActorBody, ActorOut, EmptyBody, ImportedKey, KeyOut, MAX_MASK, SuspendBody};

const ACTOR_ID: Parameter = Parameter {
    name: "actor_id",
    location: ParameterLocation::Path,
    description: "The actor, percent-encoded.",
    schema: of::<String>,
};

const ISSUED: Answer = Answer {
    status: "200",
    description: "The key after the change.",
    schema: Some(of::<KeyOut<'static>>),
    headers: &[EPOCH],
};

const IMPORTED: Answer = Answer { schema: Some(of::<ImportedKey>), ..ISSUED };

const ACTOR: Answer =
    Answer { description: "The actor after the change.", schema: Some(of::<ActorOut<'static>>), ..ISSUED };

/// Suspend an issued key.
pub(crate) const SUSPEND_ISSUED: Operation = Operation {
    verb: Verb::Post,
    access: Access::From(Role::Issuer),
    path: "/v2alpha1/admin/issuedApiKeys/{key_id}:suspend",
    id: "adminSuspendIssuedApiKey",
    tag: Tag::ApiKeys,
    summary: "Suspend an issued key",
    description: "Refuses a key everywhere, until it is resumed or the suspension ends by itself. Its `status` stays as it is. Suspending it again replaces reason and end.",
    parameters: &[KEY_ID],
    body: Some(of::<SuspendBody>),
    answer: ISSUED,
};

/// Resume an issued key.
pub(crate) const RESUME_ISSUED: Operation = Operation {
    verb: Verb::Post,
    access: Access::From(Role::Issuer),
    path: "/v2alpha1/admin/issuedApiKeys/{key_id}:resume",
    id: "adminResumeIssuedApiKey",
    tag: Tag::ApiKeys,
    summary: "Resume an issued key",
    description: "Ends the suspension of a key. A suspension of its actor stays. Resuming a key that isn't suspended changes nothing.",
    parameters: &[KEY_ID],
    body: Some(of::<EmptyBody>),
    answer: ISSUED,
};

/// End a grace period.
pub(crate) const FINISH_ISSUED: Operation = Operation {
    verb: Verb::Post,
    access: Access::From(Role::Issuer),
    path: "/v2alpha1/admin/issuedApiKeys/{key_id}:finish",
    id: "adminFinishIssuedApiKey",
    tag: Tag::ApiKeys,
    summary: "End a grace period",
    description: "Ends a rotated key now, before its grace period does. A key that wasn't rotated is a 409.",
    parameters: &[KEY_ID],
    body: Some(of::<EmptyBody>),
    answer: ISSUED,
};

/// Suspend an imported key.
pub(crate) const SUSPEND_IMPORTED: Operation = Operation {
    path: "/v2alpha1/admin/importedApiKeys/{key_id}:suspend",
    id: "adminSuspendImportedApiKey",
    summary: "Suspend an imported key",
    answer: IMPORTED,
    ..SUSPEND_ISSUED
};

/// Resume an imported key.
pub(crate) const RESUME_IMPORTED: Operation = Operation {
    path: "/v2alpha1/admin/importedApiKeys/{key_id}:resume",
    id: "adminResumeImportedApiKey",
    summary: "Resume an imported key",
    answer: IMPORTED,
    ..RESUME_ISSUED
};

/// Get an actor.
pub(crate) const GET_ACTOR: Operation = Operation {
    verb: Verb::Get,
    access: Access::From(Role::Viewer),
    path: "/v2alpha1/admin/actors/{actor_id}",
    id: "adminGetActor",
    tag: Tag::ApiKeys,
    summary: "Get an actor",
    description: "Returns an actor. Every id is one of an actor, whether or not it has keys.",
    parameters: &[ACTOR_ID],
    body: None,
    answer: Answer { description: "The actor.", headers: &[], ..ACTOR },
};

/// Update an actor.
pub(crate) const UPDATE_ACTOR: Operation = Operation {
    verb: Verb::Patch,
    access: Access::From(Role::Issuer),
    path: "/v2alpha1/admin/actors/{actor_id}",
    id: "adminUpdateActor",
    tag: Tag::ApiKeys,
    summary: "Update an actor",
    description: "Updates the fields in `update_mask` or, without one, the fields that the body sets (AIP-134).",
    parameters: &[
        ACTOR_ID,
        Parameter {
            name: "update_mask",
            location: ParameterLocation::Query,
            description: "Fields to update, separated by commas: display_name, metadata, rate_limit_policies; or * for all.",
            schema: |_| json_schema!({ "type": "string", "maxLength": MAX_MASK }),
        },
    ],
    body: Some(of::<ActorBody>),
    answer: Answer { headers: &[EPOCH, WARNING], ..ACTOR },
};

/// Suspend an actor.
pub(crate) const SUSPEND_ACTOR: Operation = Operation {
    verb: Verb::Post,
    access: Access::From(Role::Issuer),
    path: "/v2alpha1/admin/actors/{actor_id}:suspend",
    id: "adminSuspendActor",
    tag: Tag::ApiKeys,
    summary: "Suspend an actor",
    description: "Refuses all keys of an actor everywhere, those issued later among them, until the actor is resumed or the suspension ends by itself. This is one change, however many keys there are. Suspending it again replaces reason and end.",
    parameters: &[ACTOR_ID],
    body: Some(of::<SuspendBody>),
    answer: ACTOR,
};

/// Resume an actor.
pub(crate) const RESUME_ACTOR: Operation = Operation {
    verb: Verb::Post,
    access: Access::From(Role::Issuer),
    path: "/v2alpha1/admin/actors/{actor_id}:resume",
    id: "adminResumeActor",
    tag: Tag::ApiKeys,
    summary: "Resume an actor",
    description: "Ends the suspension of an actor. Keys that are suspended themselves stay so. Resuming an actor that isn't suspended changes nothing.",
    parameters: &[ACTOR_ID],
    body: Some(of::<EmptyBody>),
    answer: ACTOR,
};
