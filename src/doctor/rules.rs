//! The rules, by the part of Envoy's configuration that they examine.

pub mod cluster;
pub mod filter;
pub mod manager;
pub mod process;
pub mod routes;
pub mod streams;
