//! The API's answers as people see them: which fields, under which names.

use serde_json::Value;

use crate::cli::client::Answer;
use crate::cli::output::{Shown, Table, bare, cell};

/// The fields of a key, and where they are.
const KEY: [(&str, &str); 16] = [
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
];

const VERIFICATION: [(&str, &str); 13] = [
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
];

/// One key.
pub fn key(answer: Answer) -> Shown {
    let table = Table::Fields(fields(&answer.value, &KEY));
    Shown { table, quiet: vec![bare(&answer.value["key_id"])], answer }
}

/// A new key and its secret; after a rotation also what became of the old one.
pub fn secret(answer: Answer) -> Shown {
    let value = &answer.value;
    let mut rows = fields(&value["issued_api_key"], &KEY);
    if let Some(old) = value.get("old_issued_api_key") {
        rows.push(("REPLACES", cell(&old["key_id"])));
        rows.push(("WHICH IS", at(old, "/status")));
    }
    let secret = value["secret"].as_str().map(str::to_owned);
    rows.push((
        "SECRET",
        secret.clone().unwrap_or_else(|| "(shown only once, with the first answer)".into()),
    ));
    Shown { table: Table::Fields(rows), quiet: secret.into_iter().collect(), answer }
}

/// Many keys.
pub fn keys(answer: Answer, field: &str) -> Shown {
    let columns = [0, 1, 2, 3, 5, 9, 11].map(|at| KEY[at]);
    let keys = answer.value[field].as_array().map(Vec::as_slice).unwrap_or_default();
    let table = rows(keys, &columns);
    let quiet = keys.iter().map(|key| bare(&key["key_id"])).collect();
    Shown { table, quiet, answer }
}

/// What became of each key of a batch.
pub fn imports(answer: Answer) -> Shown {
    let columns = [
        ("INDEX", "/index"),
        ("KEY ID", "/imported_api_key/key_id"),
        ("NAME", "/imported_api_key/name"),
        ("ERROR", "/error_code"),
        ("MESSAGE", "/error_message"),
    ];
    let results = answer.value["results"].as_array().map(Vec::as_slice).unwrap_or_default();
    let table = rows(results, &columns);
    let quiet = results.iter().map(|result| bare(&result["imported_api_key"]["key_id"])).collect();
    Shown { table, quiet, answer }
}

/// One credential.
pub fn verification(answer: Answer) -> Shown {
    let table = Table::Fields(fields(&answer.value, &VERIFICATION));
    Shown { table, quiet: vec![id_if_valid(&answer.value)], answer }
}

/// Many credentials, in the order in which they were given.
pub fn verifications(answer: Answer) -> Shown {
    let columns = [0, 3, 4, 7, 11, 1].map(|at| VERIFICATION[at]);
    let results = answer.value["results"].as_array().map(Vec::as_slice).unwrap_or_default();
    let table = rows(results, &columns);
    let quiet = results.iter().map(id_if_valid).collect();
    Shown { table, quiet, answer }
}

fn id_if_valid(verification: &Value) -> String {
    match &verification["key_id"] {
        Value::String(id) if verification["is_valid"] == true => id.clone(),
        _ => "-".to_owned(),
    }
}

/// A derived token.
pub fn token(answer: Answer) -> Shown {
    let columns = [
        ("TOKEN", "/token"),
        ("EXPIRES", "/expire_time"),
        ("SCOPES", "/scopes"),
        ("AUDIENCES", "/audiences"),
        ("CLAIMS", "/claims"),
    ];
    let token = &answer.value["token"];
    Shown { table: Table::Fields(fields(token, &columns)), quiet: vec![bare(&token["token"])], answer }
}

/// The public keys.
pub fn key_set(answer: Answer) -> Shown {
    let columns = [("KID", "/kid"), ("TYPE", "/kty"), ("CURVE", "/crv"), ("ALG", "/alg"), ("USE", "/use")];
    let keys = answer.value["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    let table = rows(keys, &columns);
    let quiet = keys.iter().map(|key| bare(&key["kid"])).collect();
    Shown { table, quiet, answer }
}

/// The fields that are there.
fn fields(document: &Value, wanted: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    let all = wanted.iter().map(|(name, pointer)| (*name, at(document, pointer)));
    all.filter(|(_, text)| !text.is_empty()).collect()
}

fn rows(documents: &[Value], columns: &[(&'static str, &str)]) -> Table {
    let headings = columns.iter().map(|(name, _)| *name).collect();
    let line = |document: &Value| columns.iter().map(|(_, pointer)| at(document, pointer)).collect();
    Table::Rows(headings, documents.iter().map(line).collect())
}

/// What stands there: the API's long names without what their column says anyway, a rate limit as people write it.
fn at(document: &Value, pointer: &str) -> String {
    let value = document.pointer(pointer).unwrap_or(&Value::Null);
    let text = cell(value);
    let short = |prefix| text.strip_prefix(prefix).map(str::to_owned);
    let shown = match pointer {
        "/status" => short("KEY_STATUS_"),
        "/visibility" => short("KEY_VISIBILITY_"),
        "/revocation_reason" => short("REVOCATION_REASON_"),
        "/rate_limit_policy" if value.is_object() => {
            let [quota, unit, window] = ["quota", "unit", "window"].map(|name| cell(&value[name]));
            Some(format!("{quota} {unit} in {window}"))
        }
        _ => None,
    };
    shown.unwrap_or(text)
}
