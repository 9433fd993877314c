//! The accelerator: a shared library that stock Envoy loads as a dynamic module. It lets requests
//! of keys pass that it is sure of, and leaves all others to Envoy's ext_authz filter. `README.md`
//! describes it.
#![deny(unsafe_code, reason = "pointers are handled in `abi` and `hooks` alone")]

use std::sync::atomic;

#[allow(unsafe_code, reason = "the functions and structures of C that Envoy offers")]
pub mod abi;
mod accelerator;
mod cache;
mod client;
#[path = "../../src/clock.rs"]
#[allow(dead_code, unreachable_pub, reason = "the product's file, of which a part is used here")]
mod clock;
mod config;
mod credential;
mod entry;
mod filter;
mod guard;
#[path = "../../src/authz/header_names.rs"]
#[allow(dead_code, reason = "the product's file, of which a part is used here")]
mod header_names;
#[allow(unsafe_code, reason = "the functions of C that Envoy calls")]
pub mod hooks;
#[path = "../../src/host.rs"]
#[allow(dead_code, unreachable_pub, reason = "the product's file, of which a part is used here")]
mod host;
#[path = "../../src/cache/freshness/ledger.rs"]
#[allow(dead_code, reason = "the product's file, of which a part is used here")]
mod ledger;
mod metadata;
#[cfg(feature = "sim")]
#[path = "../../src/mutants.rs"]
pub mod mutants;
#[path = "../../src/cache/memory/prefix_hasher.rs"]
mod prefix_hasher;
mod routes;
mod rule;
mod session;
mod settings;
#[cfg(feature = "sim")]
#[doc(hidden)]
pub mod simulated;
mod state;

/// Returns boot time in microseconds.
fn now_micros() -> u64 {
    clock::Clock::system().boot_now().as_micros()
}
