//! Tables of the API's responses: which fields are shown, under which names.

use serde_json::Value;

use super::credits::in_words;
use crate::cli::client::JsonBody;
use crate::cli::output::{Table, View, cell, plain};

/// Columns of a key, and the JSON pointers of their fields.
const KEY: [(&str, &str); 28] = [
    ("KEY ID", "/key_id"),
    ("NAME", "/name"),
    ("ACTOR", "/actor_id"),
    ("STATUS", "/status"),
    ("VISIBILITY", "/visibility"),
    ("SCOPES", "/scopes"),
    ("METADATA", "/metadata"),
    ("ALLOWED CIDRS", "/ip_restriction/allowed_cidrs"),
    ("RATE LIMIT", "/rate_limit_policy"),
    ("CREATED", "/create_time"),
    ("UPDATED", "/update_time"),
    ("EXPIRES", "/expire_time"),
    ("LAST USED", "/last_used_time"),
    ("REVOKED FOR", "/revocation_reason"),
    ("REVOKED WHY", "/revocation_description"),
    ("SUPERSEDED", "/supersede_time"),
    ("RATE LIMITS", "/rate_limit_policies"),
    ("WARNINGS", "/warnings"),
    ("SUSPENDED", "/suspension"),
    ("ACTOR SUSPENDED", "/actor_suspension"),
    ("CREATED BY", "/created_by"),
    ("UPDATED BY", "/updated_by"),
    ("REVOKED BY", "/revoked_by"),
    ("IN PLACE OF", "/replaces"),
    ("REPLACED BY", "/replaced_by"),
    ("LAST ADDRESS", "/last_used_address"),
    ("CREDITS", "/credits"),
    ("ACTOR LIMITS", "/actor_rate_limit_policies"),
];

/// Columns of an actor, likewise.
const ACTOR: [(&str, &str); 11] = [
    ("ACTOR", "/actor_id"),
    ("NAME", "/display_name"),
    ("METADATA", "/metadata"),
    ("RATE LIMITS", "/rate_limit_policies"),
    ("SUSPENDED", "/suspension"),
    ("CREATED", "/create_time"),
    ("UPDATED", "/update_time"),
    ("UPDATED BY", "/updated_by"),
    ("ISSUED KEYS", "/issued_api_key_count"),
    ("IMPORTED KEYS", "/imported_api_key_count"),
    ("WARNINGS", "/warnings"),
];

const VERIFICATION: [(&str, &str); 14] = [
    ("VALID", "/is_valid"),
    ("ERROR", "/error_code"),
    ("MESSAGE", "/error_message"),
    ("KEY ID", "/key_id"),
    ("ACTOR", "/actor_id"),
    ("STATUS", "/status"),
    ("VISIBILITY", "/visibility"),
    ("SCOPES", "/scopes"),
    ("AUDIENCES", "/audiences"),
    ("METADATA", "/metadata"),
    ("RATE LIMIT", "/rate_limit_policy"),
    ("EXPIRES", "/expire_time"),
    ("ISSUER", "/issuer"),
    ("CREDITS", "/credits"),
];

/// Shows one key.
pub(crate) fn key(body: JsonBody) -> View {
    let table = Table::Fields(fields(&body.value, &KEY));
    View { table, quiet: vec![plain(&body.value["key_id"])], body }
}

/// Shows a new key and its secret; after a rotation also the state of the old key.
pub(crate) fn secret(body: JsonBody) -> View {
    let value = &body.value;
    let mut rows = fields(&value["issued_api_key"], &KEY);
    if let Some(old) = value.get("old_issued_api_key") {
        rows.push(("REPLACES", cell(&old["key_id"])));
        rows.push(("WHICH IS", field_text(old, "/status")));
    }
    let secret = value["secret"].as_str().map(str::to_owned);
    rows.push((
        "SECRET",
        secret.clone().unwrap_or_else(|| "(shown only once, in the first response)".into()),
    ));
    View { table: Table::Fields(rows), quiet: secret.into_iter().collect(), body }
}

/// Shows a list of keys.
pub(crate) fn keys(body: JsonBody, field: &str) -> View {
    let columns = [0, 1, 2, 3, 5, 9, 11].map(|at| KEY[at]);
    let keys = body.value[field].as_array().map(Vec::as_slice).unwrap_or_default();
    let table = rows(keys, &columns);
    let quiet = keys.iter().map(|key| plain(&key["key_id"])).collect();
    View { table, quiet, body }
}

/// Shows an actor.
pub(crate) fn actor(body: JsonBody) -> View {
    let table = Table::Fields(fields(&body.value, &ACTOR));
    View { table, quiet: vec![plain(&body.value["actor_id"])], body }
}

/// Shows how many keys of an actor were deleted.
pub(crate) fn erased(body: JsonBody) -> View {
    let columns = [("ISSUED KEYS", "/issued_api_key_count"), ("IMPORTED KEYS", "/imported_api_key_count")];
    View { table: Table::Fields(fields(&body.value, &columns)), quiet: vec![], body }
}

/// Shows the result of each key of a batch import.
pub(crate) fn imports(body: JsonBody) -> View {
    let columns = [
        ("INDEX", "/index"),
        ("KEY ID", "/imported_api_key/key_id"),
        ("NAME", "/imported_api_key/name"),
        ("ERROR", "/error_code"),
        ("MESSAGE", "/error_message"),
    ];
    let results = body.value["results"].as_array().map(Vec::as_slice).unwrap_or_default();
    let table = rows(results, &columns);
    let quiet = results.iter().map(|result| plain(&result["imported_api_key"]["key_id"])).collect();
    View { table, quiet, body }
}

/// Shows the verification of one credential.
pub(crate) fn verification(body: JsonBody) -> View {
    let table = Table::Fields(fields(&body.value, &VERIFICATION));
    View { table, quiet: vec![id_if_valid(&body.value)], body }
}

/// Shows the verifications of several credentials, in the order of the request.
pub(crate) fn verifications(body: JsonBody) -> View {
    let columns = [0, 3, 4, 7, 11, 1].map(|at| VERIFICATION[at]);
    let results = body.value["results"].as_array().map(Vec::as_slice).unwrap_or_default();
    let table = rows(results, &columns);
    let quiet = results.iter().map(id_if_valid).collect();
    View { table, quiet, body }
}

fn id_if_valid(verification: &Value) -> String {
    match &verification["key_id"] {
        Value::String(id) if verification["is_valid"] == true => id.clone(),
        _ => "-".to_owned(),
    }
}

/// Shows a derived token.
pub(crate) fn token(body: JsonBody) -> View {
    let columns = [
        ("TOKEN", "/token"),
        ("EXPIRES", "/expire_time"),
        ("SCOPES", "/scopes"),
        ("AUDIENCES", "/audiences"),
        ("CLAIMS", "/claims"),
    ];
    let token = &body.value["token"];
    View { table: Table::Fields(fields(token, &columns)), quiet: vec![plain(&token["token"])], body }
}

/// Shows the public keys.
pub(crate) fn key_set(body: JsonBody) -> View {
    let columns = [("KID", "/kid"), ("TYPE", "/kty"), ("CURVE", "/crv"), ("ALG", "/alg"), ("USE", "/use")];
    let keys = body.value["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    let table = rows(keys, &columns);
    let quiet = keys.iter().map(|key| plain(&key["kid"])).collect();
    View { table, quiet, body }
}

/// Returns the fields that have a value.
fn fields(document: &Value, columns: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    let all = columns.iter().map(|(name, pointer)| (*name, field_text(document, pointer)));
    all.filter(|(_, text)| !text.is_empty()).collect()
}

fn rows(documents: &[Value], columns: &[(&'static str, &str)]) -> Table {
    let headings = columns.iter().map(|(name, _)| *name).collect();
    let line = |document: &Value| columns.iter().map(|(_, pointer)| field_text(document, pointer)).collect();
    Table::Rows(headings, documents.iter().map(line).collect())
}

/// Formats a field: enum names without the prefix that repeats the column's name, and rate limits
/// in words.
pub(super) fn field_text(document: &Value, pointer: &str) -> String {
    let value = document.pointer(pointer).unwrap_or(&Value::Null);
    let text = cell(value);
    let short = |prefix| text.strip_prefix(prefix).map(str::to_owned);
    let shown = match pointer {
        "/status" => short("KEY_STATUS_"),
        "/visibility" => short("KEY_VISIBILITY_"),
        "/revocation_reason" => short("REVOCATION_REASON_"),
        "/rate_limit_policy" if value.is_object() => Some(rate_limit(value)),
        "/rate_limit_policies" | "/actor_rate_limit_policies" => value.as_array().map(|policies| {
            let named = |policy: &Value| {
                let by_actor = if policy["scope"] == "ACTOR" { ", by actor" } else { "" };
                let by_envoy = if policy["enforce"] == "ENVOY" { ", by Envoy" } else { "" };
                format!("{}: {}{by_actor}{by_envoy}", cell(&policy["name"]), rate_limit(policy))
            };
            policies.iter().map(named).collect::<Vec<_>>().join("; ")
        }),
        "/credits" if value.is_object() => Some(in_words(value)),
        "/suspension" | "/actor_suspension" if value.is_object() => {
            let [reason, until, since] = ["reason", "until", "suspended_at"].map(|name| cell(&value[name]));
            let until = if until.is_empty() { until } else { format!(" until {until}") };
            let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
            Some(format!("since {since}{until}{reason}"))
        }
        _ => None,
    };
    shown.unwrap_or(text)
}

/// Formats a rate limit in words.
fn rate_limit(policy: &Value) -> String {
    let [quota, unit, window] = ["quota", "unit", "window"].map(|name| cell(&policy[name]));
    format!("{quota} {unit} per {window}")
}
