//! Any requests in an Envoy of a few functions.
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
fn any_request_is_changed_as_by_a_check_or_left_alone() {
    any::run();
}
