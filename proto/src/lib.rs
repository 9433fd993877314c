//! Messages between Envoy and Talos, generated from `ext_authz.proto`.
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

/// Envoy's description of `envoy.service.auth.v3.Authorization` and its dependencies, an encoded
/// `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.bin");
