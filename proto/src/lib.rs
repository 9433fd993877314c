//! Messages between Envoy and Talos: `ext_authz.proto` for Checks, `edge.proto` for the accelerator.
//!
//! `TALOS_BLESS=1 cargo test -p talos-proto` generates them; without it the test checks that they
//! are current.
#![forbid(unsafe_code)]

#[rustfmt::skip]
#[allow(clippy::all, missing_docs, unreachable_pub, reason = "generated")]
mod generated {
    include!("generated/talos.ext_authz.rs");
}

pub use generated::*;

/// Messages of the accelerator's stream, generated from `edge.proto`.
#[rustfmt::skip]
#[allow(clippy::all, missing_docs, unreachable_pub, reason = "generated")]
pub mod edge {
    include!("generated/talos.edge.v1.rs");
}

/// Envoy's description of `envoy.service.auth.v3.Authorization` and its dependencies, an encoded
/// `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.bin");
