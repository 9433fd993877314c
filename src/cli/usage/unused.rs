//! Report of active keys that aren't used.

use std::time::Duration;

use serde_json::{Value, json};

use super::print::Column;
use crate::cli::client::{Client, Request};
use crate::cli::exit::Failure;
use crate::cli::keys::selection::quoted;
use crate::cli::pages::next_page;
use crate::clock::Clock;

/// Columns of the report.
pub(super) const COLUMNS: &[Column] = &[
    Column { heading: "ACTOR", field: "actor_id" },
    Column { heading: "KEY ID", field: "key_id" },
    Column { heading: "NAME", field: "name" },
    Column { heading: "CREATED", field: "create_time" },
    Column { heading: "LAST USED", field: "last_used_time" },
];

/// Collections of keys, and the names of their lists.
const COLLECTIONS: [(&str, &str); 2] = [
    ("/v2alpha1/admin/issuedApiKeys", "issued_api_keys"),
    ("/v2alpha1/admin/importedApiKeys", "imported_api_keys"),
];
/// Largest page of the API.
const PAGE_SIZE: &str = "1000";

/// Returns the active keys, of one actor if given, that have neither been made nor used within
/// `time`, sorted by actor.
///
/// # Errors
/// Fails when a request fails.
pub(super) async fn report(client: &Client, actor: Option<&str>, time: Duration) -> Result<Value, Failure> {
    let before = Clock::system().now().minus(time);
    let before = before.to_rfc3339();
    let mut filter = format!(
        "status = KEY_STATUS_ACTIVE AND create_time < \"{before}\" AND last_used_time < \"{before}\""
    );
    if let Some(actor) = actor {
        filter += &format!(" AND actor_id = {}", quoted(actor));
    }
    let mut rows = vec![];
    for (path, field) in COLLECTIONS {
        let mut token = String::new();
        loop {
            let request = Request::get(path).query("page_size", PAGE_SIZE).query("filter", filter.clone());
            let request = request.query("order_by", "last_used_time");
            let request = match token.is_empty() {
                true => request,
                false => request.query("page_token", token.clone()),
            };
            let page = client.send(request).await?.value;
            let keys = page[field].as_array().map(Vec::as_slice).unwrap_or_default();
            rows.extend(keys.iter().map(row));
            match next_page(&page, &token)? {
                Some(next) => token = next,
                None => break,
            }
        }
    }
    rows.sort_by_cached_key(|row| {
        ["actor_id", "last_used_time", "key_id"]
            .map(|field| row[field].as_str().unwrap_or_default().to_owned())
    });
    Ok(json!({ "rows": rows }))
}

/// Returns the members of a key that are shown.
fn row(key: &Value) -> Value {
    let shown = COLUMNS.iter().filter(|column| !key[column.field].is_null());
    shown
        .map(|column| (column.field.to_owned(), key[column.field].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
