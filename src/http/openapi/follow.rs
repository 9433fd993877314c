//! Operations for those who follow changes, ask what the edge would decide, and who they are.

use schemars::json_schema;

use super::operation::{Access, Answer, Header, Operation, Parameter, ParameterLocation, Tag, Verb, of};
use super::operations::EPOCH;
use crate::caller::Role;
use crate::http::wire::{EventsOut, ExplainBody, ExplainOut, WhoamiOut};

/// Returns whether a request for a path may wait for events.
pub(crate) fn may_wait(path: &str) -> bool {
    path == EVENTS.path
}

/// Follow changes.
pub(crate) const EVENTS: Operation = Operation {
    verb: Verb::Get,
    access: Access::From(Role::Viewer),
    path: "/v2alpha1/admin/events",
    id: "adminListEvents",
    tag: Tag::ApiKeys,
    summary: "Follow changes",
    description: "Returns what changed, as CloudEvents 1.0, in the order of the mutation log and without gaps. With `Accept: application/cloudevents-batch+json` the answer is the list of events alone. Status 410 if the log doesn't reach back to `after` or `since`, or was rewritten: take a new place with `after=now`, read the keys anew, and go on from that place.",
    parameters: &[AFTER, SINCE, WAIT, TYPE, KEY_ID, ACTOR_ID, PAGE_SIZE],
    body: None,
    answer: Answer {
        status: "200",
        description: "Events, and where to go on.",
        schema: Some(of::<EventsOut>),
        headers: &[EPOCH, NEXT],
    },
};

/// Explain a decision.
pub(crate) const EXPLAIN: Operation = Operation {
    verb: Verb::Post,
    access: Access::From(Role::Viewer),
    path: "/v2alpha1/admin/routes:explain",
    id: "adminExplainRoute",
    tag: Tag::ApiKeys,
    summary: "Explain a decision",
    description: "Returns what the edge would decide about a request, by which rule and why. It charges nothing and counts no use; rate limits aren't looked at. Without a credential it says what the route asks for.",
    parameters: &[],
    body: Some(of::<ExplainBody>),
    answer: Answer {
        status: "200",
        description: "The decision.",
        schema: Some(of::<ExplainOut>),
        headers: &[],
    },
};

/// Get the caller.
pub(crate) const WHOAMI: Operation = Operation {
    verb: Verb::Get,
    access: Access::From(Role::Viewer),
    path: "/v2alpha1/admin/whoami",
    id: "adminWhoami",
    tag: Tag::Service,
    summary: "Get the caller",
    description: "Returns who the caller is, by what, and what it may do.",
    parameters: &[],
    body: None,
    answer: Answer {
        status: "200",
        description: "The caller.",
        schema: Some(of::<WhoamiOut<'static>>),
        headers: &[],
    },
};

const NEXT: Header =
    Header { name: "Talos-Next-After", description: "The next `after`, as in `next`.", schema: of::<String> };

const AFTER: Parameter = Parameter {
    name: "after",
    location: ParameterLocation::Query,
    description: "Place to begin after: the `next` of an answer, the id of an event, or the number of an epoch, which says nothing of a rewritten log. `now` is the end of the log, `oldest` (the default) its beginning.",
    schema: of::<String>,
};

const SINCE: Parameter = Parameter {
    name: "since",
    location: ParameterLocation::Query,
    description: "Instead of `after`: begin with the first change that isn't older. Status 410 if changes since then are no longer kept.",
    schema: |_| json_schema!({ "type": "string", "format": "date-time" }),
};

const WAIT: Parameter = Parameter {
    name: "wait",
    location: ParameterLocation::Query,
    description: "Time to wait for the first event, such as 30s; more than 30s means 30s. By default nothing is waited for.",
    schema: of::<String>,
};

const TYPE: Parameter = Parameter {
    name: "type",
    location: ParameterLocation::Query,
    description: "Only events of these types, separated by commas. A page may have none although more follow: go on from `next`.",
    schema: of::<String>,
};

const KEY_ID: Parameter = Parameter {
    name: "key_id",
    location: ParameterLocation::Query,
    description: "Only events of this key, and of the one that it replaces.",
    schema: of::<String>,
};

const ACTOR_ID: Parameter = Parameter {
    name: "actor_id",
    location: ParameterLocation::Query,
    description: "Only events of this actor and its keys.",
    schema: of::<String>,
};

const PAGE_SIZE: Parameter = Parameter {
    name: "page_size",
    location: ParameterLocation::Query,
    description: "Maximum number of events: 0 means 100, more than 1000 means 1000. A page also ends at about 1 MB.",
    schema: |_| json_schema!({ "type": "integer", "format": "int32", "minimum": 0 }),
};
