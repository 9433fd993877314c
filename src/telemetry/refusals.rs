//! Requests of the HTTP planes that were refused before anything of them was done.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Counts them by plane and reason.
#[derive(Debug, Clone, Default)]
pub struct Refusals(Family<[(&'static str, &'static str); 2], Counter>);

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It isn't known who asks.
    Unidentified,
    /// Whoever asks may not do that.
    Role,
    /// It is for a host that isn't this one.
    Host,
    /// A page of another site sent it.
    CrossSite,
    /// Too many came.
    TooMany,
}

impl Why {
    const fn name(self) -> &'static str {
        match self {
            Self::Unidentified => "unidentified",
            Self::Role => "role",
            Self::Host => "host",
            Self::CrossSite => "cross_site",
            Self::TooMany => "too_many",
        }
    }
}

impl Refusals {
    /// Counts one.
    pub fn count(&self, plane: &'static str, why: Why) {
        self.0.get_or_create(&[("plane", plane), ("reason", why.name())]).inc();
    }

    /// Puts them on the page.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "http_refused",
            "Requests refused before anything of them was done",
            self.0.clone(),
        );
    }
}
