//! How often a key may be used (draft-ietf-httpapi-ratelimit-headers).

use std::time::Duration;

use super::FieldError;

/// What a quota counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RateUnit {
    /// Requests.
    #[default]
    Requests,
    /// Bytes of content.
    ContentBytes,
    /// Requests under way at once.
    ConcurrentRequests,
}

impl RateUnit {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Requests, Self::ContentBytes, Self::ConcurrentRequests];

    /// The name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::ContentBytes => "content-bytes",
            Self::ConcurrentRequests => "concurrent-requests",
        }
    }

    /// Whether uses are counted against a quota in this unit. In the others a policy is stored and
    /// reported, for a gateway to enforce.
    pub const fn is_enforced(self) -> bool {
        matches!(self, Self::Requests)
    }

    /// From the name in the API.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.name() == name)
    }
}

/// So many units in so long a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RatePolicy {
    /// Units per window, at least 1.
    pub quota: i64,
    /// The window, at least a second and at most ten years.
    pub window: Duration,
    /// What is counted.
    pub unit: RateUnit,
}

impl RatePolicy {
    /// A policy within its bounds.
    ///
    /// # Errors
    /// When the quota is below 1 or the window isn't between one second and ten years.
    pub fn new(quota: i64, window: Duration, unit: RateUnit) -> Result<Self, FieldError> {
        if quota < 1 {
            return Err(FieldError::new("quota must be at least 1"));
        }
        if !(Duration::from_secs(1)..=super::TEN_YEARS).contains(&window) {
            return Err(FieldError::new("window must be between 1s and 315360000s"));
        }
        Ok(Self { quota, window, unit })
    }

    /// As the `RateLimit-Policy` header says it: `"default";q=100;w=60` (draft-ietf-httpapi-ratelimit-headers).
    pub fn header(&self) -> String {
        let unit = match self.unit {
            RateUnit::Requests => String::new(),
            unit => format!(";qu=\"{}\"", unit.name()),
        };
        format!("\"default\";q={};w={}{unit}", self.quota, self.window.as_secs())
    }
}
