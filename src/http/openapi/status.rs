//! Operation that reports the state of the process.

use schemars::json_schema;

use super::operation::{Access, Answer, Operation, Tag, Verb};
use crate::caller::Role;

/// Get the state of the process.
pub(crate) const STATUS: Operation = Operation {
    verb: Verb::Get,
    access: Access::From(Role::Viewer),
    path: "/v2alpha1/admin/status",
    id: "adminGetStatus",
    tag: Tag::Service,
    summary: "Get the state of the process",
    description: "Returns the state of the process that answers, as `/status` of the metrics plane does: problems first, the time within which revocations count, the database, the caches, the audit log.",
    parameters: &[],
    body: None,
    answer: Answer {
        status: "200",
        description: "The state.",
        schema: Some(|_| json_schema!({ "type": "object" })),
        headers: &[],
    },
};
