//! Readings of the counting of Checks.

use std::fmt;
use std::time::Duration;

use super::Page;
use crate::service::Service;

/// State of the counting when the page was asked for.
#[derive(Debug)]
pub(super) struct UsageReading {
    rows: u64,
    overflowed: u64,
    failures: u64,
    unwritten_age: Duration,
}

impl UsageReading {
    /// Reads the state.
    pub(super) fn of(service: &Service) -> Self {
        let usage = &service.usage;
        Self {
            rows: usage.rows(),
            overflowed: usage.overflowed(),
            failures: usage.failures(),
            unwritten_age: usage.unwritten_age(service.clock.boot_now()),
        }
    }

    /// Writes the metrics.
    pub(super) fn encode(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        page.gauge("usage_rows", "Rows of counted Checks in memory", self.rows as f64)?;
        page.counter(
            "usage_overflowed",
            "Checks that were counted as other because there were usage.max_rows rows",
            self.overflowed,
        )?;
        page.counter(
            "usage_write_failures",
            "Writes of counted Checks that failed; they are repeated",
            self.failures,
        )?;
        page.gauge(
            "usage_unwritten_seconds",
            "Age of the oldest counted Check that the database doesn't have",
            self.unwritten_age.as_secs_f64(),
        )
    }
}
