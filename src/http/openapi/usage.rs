//! Operations that report usage.

use schemars::json_schema;

use super::operation::{Access, Answer, Operation, Parameter, ParameterLocation, Tag, Verb, of};
use super::operations::SELF_USAGE_PATH;
use crate::caller::Role;
use crate::http::wire::{SelfUsageOut, UsageOut};
use crate::service::usage::MAX_USAGE_FILTER;

/// Get the usage of keys.
pub(crate) const USAGE: Operation = Operation {
    verb: Verb::Get,
    access: Access::From(Role::Viewer),
    path: "/v2alpha1/admin/usage",
    id: "adminGetUsage",
    tag: Tag::ApiKeys,
    summary: "Get the usage of keys",
    description: "Returns numbers of requests that Envoy asked about, by key, actor, route and result. Numbers are kept by hour for `usage.keep_hours`, then by day. Each process writes what it has counted about every `usage.flush_interval`.",
    parameters: &[FILTER, GROUP_BY, START_TIME, END_TIME, PAGE_SIZE, PAGE_TOKEN],
    body: None,
    answer: Answer {
        status: "200",
        description: "A page of numbers.",
        schema: Some(of::<UsageOut>),
        headers: &[],
    },
};

/// Get the usage of one's own key.
pub(crate) const SELF_USAGE: Operation = Operation {
    verb: Verb::Get,
    access: Access::Anyone,
    path: SELF_USAGE_PATH,
    id: "getUsage",
    tag: Tag::ApiKeys,
    summary: "Get the usage of one's own key",
    description: "Returns numbers of requests of the key in `Authorization: Bearer`. Any holder of the key may ask.",
    parameters: &[AUTHORIZATION, GROUP_BY, START_TIME, END_TIME, PAGE_SIZE, PAGE_TOKEN],
    body: None,
    answer: Answer {
        status: "200",
        description: "A page of numbers.",
        schema: Some(of::<SelfUsageOut>),
        headers: &[],
    },
};

const AUTHORIZATION: Parameter = Parameter {
    name: "Authorization",
    location: ParameterLocation::Header,
    description: "`Bearer` and the key.",
    schema: of::<String>,
};

const FILTER: Parameter = Parameter {
    name: "filter",
    location: ParameterLocation::Query,
    description: "Filter (AIP-160): `key_id = …`, `actor_id = \"…\"`, `route = …`, `outcome = allow` (or a reason of refusals), or several of them joined by AND.",
    schema: |_| json_schema!({ "type": "string", "maxLength": MAX_USAGE_FILTER }),
};

const GROUP_BY: Parameter = Parameter {
    name: "group_by",
    location: ParameterLocation::Query,
    description: "What to group by, separated by commas: day or hour (UTC), outcome, route, key, actor. Without it there is one number.",
    schema: of::<String>,
};

const START_TIME: Parameter = Parameter {
    name: "start_time",
    location: ParameterLocation::Query,
    description: "Start; its whole hour counts. By default seven days before the end.",
    schema: |_| json_schema!({ "type": "string", "format": "date-time" }),
};

const END_TIME: Parameter = Parameter {
    name: "end_time",
    location: ParameterLocation::Query,
    description: "End: hours that begin before it count. By default now.",
    schema: |_| json_schema!({ "type": "string", "format": "date-time" }),
};

const PAGE_SIZE: Parameter = Parameter {
    name: "page_size",
    location: ParameterLocation::Query,
    description: "Maximum number of rows on the page: 0 means 100, more than 1000 means 1000.",
    schema: |_| json_schema!({ "type": "integer", "format": "int32", "minimum": 0 }),
};

const PAGE_TOKEN: Parameter = Parameter {
    name: "page_token",
    location: ParameterLocation::Query,
    description: "The `next_page_token` of the previous page.",
    schema: of::<String>,
};
