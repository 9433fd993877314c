//! The stream to the accelerator: what a module in Envoy is told, and what it is never told.

mod bounds;
mod entries;
mod knowledge;
mod switch;

use crate::rig::talos::Setup;

const ENABLED: &str = "TALOS_AUTHZ_EDGE_ENABLED";

/// Codes of gRPC.
const INVALID_ARGUMENT: u32 = 3;
const PERMISSION_DENIED: u32 = 7;
const RESOURCE_EXHAUSTED: u32 = 8;
const FAILED_PRECONDITION: u32 = 9;
const UNIMPLEMENTED: u32 = 12;
const UNAVAILABLE: u32 = 14;

fn setup() -> Setup {
    Setup::new().set(ENABLED, "true")
}
