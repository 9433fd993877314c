//! Any requests in an Envoy that sets metadata field by field, as 1.38 and 1.39 do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    unreachable_pub,
    reason = "a test that can't go on panics, and tests share their tools"
)]

#[path = "rig/any.rs"]
mod any;
#[path = "rig/fake.rs"]
mod fake;
#[path = "rig/server.rs"]
mod server;
#[path = "rig/wait.rs"]
mod wait;

#[test]
fn any_request_in_an_older_envoy_is_changed_as_by_a_check_or_left_alone() {
    fake::IS_OLDER.store(true, std::sync::atomic::Ordering::SeqCst);
    any::run();
}
