//! Operations that list and check issuance policies, and preview routes.

use super::operation::{Access, Answer, Operation, Tag, Verb, of};
use crate::caller::Role;
use crate::http::wire::{
    CheckPoliciesBody, CheckPoliciesOut, ListPoliciesOut, PreviewScopesBody, PreviewScopesOut,
};

/// List issuance policies and named sets of scopes.
pub(crate) const LIST_POLICIES: Operation = Operation {
    verb: Verb::Get,
    access: Access::From(Role::Viewer),
    path: "/v2alpha1/admin/policies",
    id: "adminListPolicies",
    tag: Tag::ApiKeys,
    summary: "List issuance policies",
    description: "Returns the issuance policies in force for the network, and its named sets of scopes (`roles`), as the configuration has them.",
    parameters: &[],
    body: None,
    answer: Answer {
        status: "200",
        description: "Policies and sets of scopes.",
        schema: Some(of::<ListPoliciesOut<'static>>),
        headers: &[],
    },
};

/// Check keys against issuance policies.
pub(crate) const CHECK_POLICIES: Operation = Operation {
    verb: Verb::Post,
    access: Access::From(Role::Viewer),
    path: "/v2alpha1/admin/policies:check",
    id: "adminCheckPolicies",
    tag: Tag::ApiKeys,
    summary: "Check keys against issuance policies",
    description: "Returns the active keys that break issuance policies: the candidates of the request, or those in force. Nothing is changed. Policies for a `role` are left out, as keys don't record it, and so is `max_keys_per_actor`, which never ends a key.",
    parameters: &[],
    body: Some(of::<CheckPoliciesBody>),
    answer: Answer {
        status: "200",
        description: "A page of keys.",
        schema: Some(of::<CheckPoliciesOut<'static>>),
        headers: &[],
    },
};

/// Preview the scopes of routes.
pub(crate) const PREVIEW_SCOPES: Operation = Operation {
    verb: Verb::Post,
    access: Access::From(Role::Viewer),
    path: "/v2alpha1/admin/scopes:preview",
    id: "adminPreviewScopes",
    tag: Tag::ApiKeys,
    summary: "Preview the scopes of routes",
    description: "Returns the requests of the recorded usage that candidate routes would refuse, by key and route. Usage records the names of routes, so a candidate judges the requests that were counted under its name; one without a name has that of the rule in force with the same host, methods and path. Keys are judged by the scopes that they have now. Requests under other names, and those without one, are returned as `untold`.",
    parameters: &[],
    body: Some(of::<PreviewScopesBody>),
    answer: Answer {
        status: "200",
        description: "A page of requests.",
        schema: Some(of::<PreviewScopesOut<'static>>),
        headers: &[],
    },
};
