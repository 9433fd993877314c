//! Talos for Envoy: API keys checked at the edge. `ARCHITECTURE.md` tells where a request goes.
#![forbid(unsafe_code)]

// Words: no I/O, no framework.
pub mod caller;
pub mod clock;
pub mod duration;
pub mod error;
pub mod escape;
pub mod event;
pub mod key;
pub mod plane;
pub mod rng;
pub mod secret;
pub mod trace;

// Pure machinery.
pub mod admin_auth;
pub mod config;
pub mod credential;
pub mod settings;
pub mod tls;

// The outside.
pub mod cache;
pub mod limit;
pub mod readiness;
pub mod redis;
pub mod store;

// What is told of what it does.
pub mod audit;

// What the product does.
pub mod service;

// How it is asked to.
pub mod authz;
pub mod doctor;
pub mod host;
pub mod http;

// The process.
pub mod app;
pub mod cli;
pub mod telemetry;

// For tests.
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
