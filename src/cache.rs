//! Cached keys, and the knowledge of changes that says whether a cached key is still current.
//!
//! `memory` and `redis` hold keys and decide nothing: [`freshness`] says of each entry whether it
//! may be used. `single_flight` makes one lookup of several that want the same key.

pub mod freshness;
pub mod memory;
pub mod redis;
pub mod single_flight;
