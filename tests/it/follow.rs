//! Following changes: every acknowledged change reaches each reader once and in order; and what the
//! edge would decide, without asking it.

mod events;
mod explain;
mod readers;
mod tail;
mod waiting;
mod whoami;

use serde_json::{Value, json};

use crate::rig::http::Reply;
use crate::rig::support::{Json, Must};
use crate::rig::talos::{ISSUED, Setup, Talos};

/// Path of the events.
pub const EVENTS: &str = "/v2alpha1/admin/events";

/// Tables that a restore puts back.
const TABLES: [&str; 4] = ["api_keys", "actors", "mutation_log", "mutation_counter"];

/// A page of events.
async fn page(talos: &Talos, query: &str) -> Value {
    talos.admin.get(&format!("{EVENTS}?{query}")).await.expect(200).json()
}

/// The events of a page.
fn events(page: &Value) -> Vec<Value> {
    page["events"].as_array().must("events").clone()
}

/// The answer to a request that the log doesn't reach, with its cause.
async fn gone(talos: &Talos, query: &str, cause: &str) -> Reply {
    let reply = talos.admin.get(&format!("{EVENTS}?{query}")).await.expect(410);
    let error = reply.json();
    assert_eq!(error.text("/error/details/0/reason"), "EVENTS_GONE", "{error:#}");
    assert_eq!(error.text("/error/details/0/metadata/cause"), cause, "{error:#}");
    assert!(error.text("/error/message").contains("after=now"), "the cure: {error:#}");
    reply
}

/// Makes a backup of the database, in the database.
fn back_up(setup: &Setup) {
    for table in TABLES {
        setup.sql(&format!("CREATE TABLE backup_of_{table} AS SELECT * FROM {table}"));
    }
}

/// Puts the database back to what it was at the backup.
fn restore(setup: &Setup) {
    let play_back = TABLES
        .map(|table| format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM backup_of_{table};"));
    setup.sql(&format!("BEGIN; {} COMMIT;", play_back.concat()));
}

/// Calls a custom method of an issued key.
async fn call(talos: &Talos, id: &str, method: &str, body: Value) -> Value {
    let reply = talos.admin.post(&format!("{ISSUED}/{id}:{method}"), &body).await;
    assert!((200..300).contains(&reply.status), "{method}: {}", reply.text());
    match reply.status {
        204 => json!({}),
        _ => reply.json(),
    }
}
