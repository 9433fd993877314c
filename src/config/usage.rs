//! `usage`: counting of Checks by key.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::serde_forms;

/// Shortest time for which hours are kept: a process may still write to the last ones.
pub(super) const MIN_KEEP_HOURS: Duration = Duration::from_secs(48 * 60 * 60);
/// Longest time between two writes.
pub(super) const MAX_FLUSH_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// Bounds of `usage.max_rows`.
pub(super) const MIN_ROWS: usize = 10;
pub(super) const MAX_ROWS: usize = 10_000_000;

/// `usage`: counting of Checks by key, route and result.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Usage {
    /// If true, Checks are counted. Default true.
    pub enabled: bool,
    /// Longest time of counting that is lost when the process is killed. Above 0, at most 1h.
    /// Default 10s.
    #[serde(with = "serde_forms::Duration")]
    pub flush_interval: Duration,
    /// Number of different keys, routes and results that are counted within an hour; further ones
    /// are counted together, as `other`. 10 to 10000000. Default 100000, about 20 MB.
    pub max_rows: usize,
    /// Time for which numbers are kept by hour; then they are added up by day. At least 48h.
    /// Default 960h (40 days).
    #[serde(with = "serde_forms::Duration")]
    pub keep_hours: Duration,
    /// Time for which numbers are kept by day. At least `keep_hours`. Default 9600h (400 days).
    #[serde(with = "serde_forms::Duration")]
    pub keep_days: Duration,
}

impl Default for Usage {
    fn default() -> Self {
        Self {
            enabled: true,
            flush_interval: Duration::from_secs(10),
            max_rows: 100_000,
            keep_hours: Duration::from_secs(40 * 24 * 60 * 60),
            keep_days: Duration::from_secs(400 * 24 * 60 * 60),
        }
    }
}
