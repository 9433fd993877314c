//! What the process tells about itself.

pub mod connections;
pub mod deny_file;
mod histogram;
pub mod log;
pub mod metrics;
pub mod refusals;
pub mod status;
pub mod traces;
