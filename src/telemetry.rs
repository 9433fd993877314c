//! What the process tells about itself.

pub mod connections;
pub mod log;
pub mod metrics;
pub mod refusals;
pub mod status;
