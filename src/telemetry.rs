//! Metrics, status, logs and traces of the process.

pub mod connections;
pub mod deny_file;
pub mod edge;
mod histogram;
pub mod log;
pub mod metrics;
pub mod ory_metrics;
pub mod refused_requests;
pub mod status;
pub mod traces;
