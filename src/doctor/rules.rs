//! The rules, by the part of Envoy's configuration that they examine.

pub mod api;
pub mod cluster;
pub mod coverage;
pub mod cure;
pub mod filter;
pub mod manager;
pub mod policy;
pub mod process;
pub mod routes;
pub mod streams;
pub mod tls;
