//! Parameters of lists of keys.

use schemars::{Schema, SchemaGenerator, json_schema};

use super::operation::{Parameter, ParameterLocation, of};
use crate::service::{DEFAULT_PAGE, MAX_FILTER, MAX_PAGE};

/// Parameters of a list of keys.
pub(super) const LISTING: &[Parameter] = &[
    Parameter {
        name: "page_size",
        location: ParameterLocation::Query,
        description: "Maximum number of keys on the page. Larger numbers mean the largest page. A page may have fewer keys, even none, though more follow: the list ends where `next_page_token` is empty.",
        schema: page_size,
    },
    Parameter {
        name: "page_token",
        location: ParameterLocation::Query,
        description: "The `next_page_token` of the previous page, with the same `filter`, `query` and `order_by`.",
        schema: of::<String>,
    },
    Parameter {
        name: "filter",
        location: ParameterLocation::Query,
        description: "Filter (AIP-160), of comparisons joined by AND: `actor_id = \"…\"`, `status = KEY_STATUS_…`, `secret_id = current` (or `retired`, `unknown`, an id), `key_prefix = …`, `name = \"…\"` (with `*` at the end for all names that begin so), `scopes:\"…\"`, `metadata.team = \"…\"`, and `create_time`, `expire_time` and `last_used_time` with `<`, `<=`, `>` or `>=` and a time, the last two with `= never`, too.",
        schema: |_| json_schema!({ "type": "string", "maxLength": MAX_FILTER }),
    },
    Parameter {
        name: "query",
        location: ParameterLocation::Query,
        description: "Only keys whose name, actor, id or a value of whose metadata begins with this text. The case of the letters A to Z doesn't count.",
        schema: |_| json_schema!({ "type": "string", "maxLength": 255 }),
    },
    Parameter {
        name: "order_by",
        location: ParameterLocation::Query,
        description: "Order of the keys (AIP-132), by creation, expiry or last use; with `desc`, the latest first. Keys that never expire count as the latest, keys that were never used as the earliest. The default is the oldest first.",
        schema: order_by,
    },
    Parameter {
        name: "total",
        location: ParameterLocation::Query,
        description: "`true` counts the keys of the list as well, as `total_size`, if that is cheap.",
        schema: of::<bool>,
    },
];

fn page_size(_: &mut SchemaGenerator) -> Schema {
    let description = format!("0 means {DEFAULT_PAGE}; the largest page has {MAX_PAGE} keys.");
    json_schema!({ "type": "integer", "format": "int32", "minimum": 0, "description": description })
}

fn order_by(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "enum": [
            "", "create_time", "create_time desc", "expire_time", "expire_time desc", "last_used_time",
            "last_used_time desc",
        ],
    })
}
