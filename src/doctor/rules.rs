//! The rules, by the part of Envoy's configuration that they examine.

pub(super) mod accelerator;
pub(super) mod api;
pub(super) mod cluster;
pub(super) mod copied_keys;
pub(super) mod coverage;
pub(super) mod cure;
pub(super) mod filter;
pub(super) mod logged_keys;
pub(super) mod manager;
mod other_ways;
pub(super) mod overwrites;
pub(super) mod policy;
pub(super) mod process;
pub(super) mod rate_limits;
pub(super) mod routes;
pub(super) mod runtime;
pub(super) mod streams;
pub(super) mod tls;
