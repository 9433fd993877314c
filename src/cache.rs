//! What is remembered between two requests, and how it is known to be still true (revocation.md).

pub mod flight;
pub mod freshness;
pub mod memory;
pub mod shared;
