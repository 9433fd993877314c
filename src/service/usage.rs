//! Usage: how many Checks each key had, by route and result.
//!
//! Each thread of the authz plane counts in a table of its own, and hands it over every second. A
//! task adds the tables up and writes absolute numbers, so that a write that is repeated changes
//! nothing.

mod counter;
mod report;
mod rows;
mod writer;

pub use crate::store::UsageSum;
pub use counter::{CountedCheck, UsageCounter};
pub(super) use rows::hour_of;

pub use report::{KeyUsage, MAX_USAGE_FILTER, SelfUsage, UsageReport, UsageRequest, parse_groups};
pub use writer::{UsageSettings, UsageWriter, usage_counter};

/// Result of a Check that is allowed.
pub const ALLOW: &str = "allow";
/// Id under which Checks beyond the bound on rows are counted. No key has it.
pub const OTHER: &str = "other";
