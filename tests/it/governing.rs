//! Issuance policies, named sets of scopes, and what other policies and routes would do.

mod apply_all;
mod check;
mod limits;
mod policies;
mod preview;
mod roles;

use serde_json::Value;

use crate::rig::http::Reply;
use crate::rig::support::Json;

/// Returns the fields of a 400 that lists all that is wrong. Its message names them, too.
#[track_caller]
fn violations(reply: Reply) -> Vec<String> {
    let error = reply.expect(400).json();
    assert_eq!(error.text("/error/details/0/reason"), "BAD_REQUEST", "{error:#}");
    assert_eq!(error.text("/error/details/1/@type"), "type.googleapis.com/google.rpc.BadRequest");
    let listed = error.at("/error/details/1/field_violations").as_array().cloned().unwrap_or_default();
    let message = error.text("/error/message");
    for one in &listed {
        let named = format!("{}: {}", one.text("/field"), one.text("/description"));
        assert!(message.contains(&named), "{message}: no {named}");
    }
    let fields: Vec<String> = listed.iter().map(|one| one.text("/field").to_owned()).collect();
    assert_eq!(error.text("/error/details/0/metadata/field"), fields[0]);
    fields
}

/// Returns the time that is `millis` milliseconds from now.
fn soon(millis: i64) -> String {
    let now = time::OffsetDateTime::now_utc() + time::Duration::milliseconds(millis);
    now.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

/// Returns one of a JSON object's lists.
fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.at(pointer).as_array().map(Vec::as_slice).unwrap_or_default()
}
