//! The conditions of a filter for the rows of keys that a source selected. Rows that don't match
//! may pass where databases differ; [`Filter::matches`] has the last word.

use super::source::push_name;
use crate::clock::Timestamp;
use crate::store::dialect::Dialect;
use crate::store::filter::{Filter, NEVER_EXPIRES, NEVER_USED, NameFilter, TimeRange};
use crate::store::statement::Statement;

/// Adds all conditions of a filter.
pub(super) fn push_conditions(select: &mut Statement, dialect: Dialect, filter: &Filter, now: Timestamp) {
    let position = dialect.position_function();
    if let Some(status) = filter.status {
        select.status(status, now.as_micros());
    }
    if let Some(actor) = &filter.actor {
        select.push(" AND actor_id = ").text(actor.clone());
    }
    if let Some(secrets) = &filter.secrets {
        for (index, secret) in secrets.iter().enumerate() {
            select.push(if index == 0 { " AND (secret_id = " } else { " OR secret_id = " });
            select.text(secret.map(|id| id.to_string()).unwrap_or_default());
        }
        // No key needs one of no secrets.
        select.push(if secrets.is_empty() { " AND 1 = 0" } else { ")" });
    }
    if let Some(prefix) = &filter.prefix {
        select.push(" AND key_prefix = ").text(prefix.as_str().to_owned());
    }
    push_range(select, "created_at", filter.created);
    if let Some(name) = &filter.more.name {
        push_name(select, dialect, name, " AND ");
    }
    for scope in &filter.more.scopes {
        // With its quotes, no other scope contains it.
        select.push(&format!(" AND {position}(scopes, ")).text(format!("\"{scope}\"")).push(") > 0");
    }
    for (_, value) in &filter.more.metadata {
        select.push(&format!(" AND {position}(metadata, ")).text(in_json(value)).push(") > 0");
    }
    push_range(select, &format!("COALESCE(expires_at, {NEVER_EXPIRES})"), filter.more.expires);
    push_range(select, &format!("COALESCE(last_used_at, {NEVER_USED})"), filter.more.last_used);
    if let Some(text) = &filter.more.search {
        push_search(select, dialect, text);
    }
}

fn push_range(select: &mut Statement, column: &str, range: TimeRange) {
    if let Some(from) = range.from {
        select.push(&format!(" AND {column} >= ")).number(from);
    }
    if let Some(until) = range.until {
        select.push(&format!(" AND {column} < ")).number(until);
    }
}

fn push_search(select: &mut Statement, dialect: Dialect, text: &str) {
    let position = dialect.position_function();
    let lower = text.to_ascii_lowercase();
    select.push(" AND ((");
    push_name(select, dialect, &NameFilter::StartsWith(text.to_owned()), "");
    select.push(")");
    for (column, text) in [("actor_id", text), ("actor_id", &lower), ("api_keys.key_id", &lower)] {
        select.push(&format!(" OR {position}({column}, ")).text(text.to_owned()).push(") = 1");
    }
    let metadata = dialect.folded_metadata();
    select.push(&format!(" OR {position}({metadata}, ")).text(in_json(&lower)).push(") > 0)");
}

/// Returns a text as it stands within a JSON text, without the quotes.
fn in_json(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    let inner = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.unwrap_or_default().to_owned()
}
