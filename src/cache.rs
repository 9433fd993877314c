//! Cached keys, and the knowledge of changes that says whether a cached key is still current.

pub mod freshness;
pub mod memory;
pub mod redis;
pub mod single_flight;
