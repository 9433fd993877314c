//! Rate policies of keys (draft-ietf-httpapi-ratelimit-headers).

use std::time::Duration;

use super::FieldError;

/// Unit of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RateUnit {
    /// Requests.
    #[default]
    Requests,
    /// Bytes of content.
    ContentBytes,
    /// Concurrent requests.
    ConcurrentRequests,
}

impl RateUnit {
    /// All units.
    pub const ALL: [Self; 3] = [Self::Requests, Self::ContentBytes, Self::ConcurrentRequests];

    /// Returns the name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::ContentBytes => "content-bytes",
            Self::ConcurrentRequests => "concurrent-requests",
        }
    }

    /// Returns whether Talos enforces quotas in this unit. Others are stored and reported for a
    /// gateway to enforce.
    pub const fn is_enforced(self) -> bool {
        matches!(self, Self::Requests)
    }

    /// Parses the name in the API.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.name() == name)
    }
}

/// Quota of units per window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RatePolicy {
    /// Units per window, at least 1.
    pub quota: i64,
    /// Length of the window: one second to ten years.
    pub window: Duration,
    /// Unit.
    pub unit: RateUnit,
}

impl RatePolicy {
    /// Creates a policy.
    ///
    /// # Errors
    /// Fails if the quota is below 1, or the window isn't between one second and ten years.
    pub fn new(quota: i64, window: Duration, unit: RateUnit) -> Result<Self, FieldError> {
        if quota < 1 {
            return Err(FieldError::new("quota must be at least 1"));
        }
        if !(Duration::from_secs(1)..=super::TEN_YEARS).contains(&window) {
            return Err(FieldError::new("window must be between 1s and 315360000s"));
        }
        Ok(Self { quota, window, unit })
    }

    /// Returns an item of the `RateLimit-Policy` header, such as `"default";q=100;w=60`
    /// (draft-ietf-httpapi-ratelimit-headers).
    pub(super) fn header_named(&self, name: &str) -> String {
        let unit = match self.unit {
            RateUnit::Requests => String::new(),
            unit => format!(";qu=\"{}\"", unit.name()),
        };
        format!("\"{name}\";q={};w={}{unit}", self.quota, self.window.as_secs())
    }
}
