//! Talos for Envoy: API keys checked at the edge.
#![forbid(unsafe_code)]

pub mod authz;
pub mod cache;
pub mod clock;
pub mod config;
pub mod credential;
pub mod duration;
pub mod error;
pub mod key;
pub mod rng;
pub mod secret;
pub mod service;
pub mod settings;
pub mod store;
pub mod telemetry;
