//! The messages on the wire between Envoy and us, generated from `ext_authz.proto` and never edited.
//!
//! `TALOS_BLESS=1 cargo test -p talos-proto` writes them anew; without it the test says whether they are current.
#![forbid(unsafe_code)]

#[rustfmt::skip]
#[allow(clippy::all, missing_docs)]
mod generated {
    include!("generated/talos.ext_authz.rs");
}

pub use generated::*;
