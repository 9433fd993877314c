//! Talos for Envoy: API keys checked at the edge. `ARCHITECTURE.md` follows a request through the
//! modules.
#![forbid(unsafe_code)]

// Words: no I/O, no framework.
pub mod caller;
pub mod clock;
pub mod duration;
pub mod error;
pub mod escape;
pub mod event;
pub mod host;
pub mod key;
#[doc(hidden)]
pub mod mutants;
pub mod plane;
pub mod rng;
pub mod secret;
pub mod trace;

// Machinery.
pub mod admin_auth;
pub mod config;
pub mod credential;
pub mod permissions;
pub mod settings;
pub mod tls;

// Database, caches and counters.
pub mod cache;
pub mod limit;
pub mod readiness;
pub mod redis;
pub mod store;

// Audit log.
pub mod audit;

// Use cases.
pub mod service;

// Transports.
pub mod authz;
pub mod doctor;
pub mod http;

// Process.
pub mod app;
pub mod cli;
pub mod telemetry;

// Tests only.
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
