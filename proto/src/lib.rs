//! The messages on the wire between Envoy and us, generated from `ext_authz.proto` and never
//! edited.
//!
//! `TALOS_BLESS=1 cargo test -p talos-proto` writes them anew; without it the test says whether
//! they are current.
#![forbid(unsafe_code)]

#[rustfmt::skip]
#[allow(clippy::all, missing_docs, unreachable_pub, reason = "generated")]
mod generated {
    include!("generated/talos.ext_authz.rs");
}

pub use generated::*;

/// Envoy's own description of `envoy.service.auth.v3.Authorization` and all that it needs: an
/// encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.bin");
