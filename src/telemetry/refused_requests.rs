//! Metric of requests to the HTTP planes that are refused before their operation begins.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::plane::Plane;

/// Number of refused requests, by plane and reason.
#[derive(Debug, Clone, Default)]
pub struct RefusedRequests(Family<[(&'static str, &'static str); 2], Counter>);

/// A reason for which a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestRefusal {
    /// The caller is unknown.
    Unidentified,
    /// The caller's role doesn't allow the operation.
    Role,
    /// The `Host` header names another host.
    Host,
    /// A page of another site sent the request.
    CrossSite,
    /// Too many requests came.
    TooMany,
    /// Memory has no room for the request.
    Memory,
}

impl RequestRefusal {
    /// Value of the metric's label `reason`.
    const fn name(self) -> &'static str {
        match self {
            Self::Unidentified => "unidentified",
            Self::Role => "role",
            Self::Host => "host",
            Self::CrossSite => "cross_site",
            Self::TooMany => "too_many",
            Self::Memory => "memory",
        }
    }
}

impl RefusedRequests {
    /// Counts a refused request.
    pub fn count(&self, plane: Plane, reason: RequestRefusal) {
        self.0.get_or_create(&[("plane", plane.name()), ("reason", reason.name())]).inc();
    }

    /// Adds the metric to a registry. Refusals for want of memory start at zero, as alerts count
    /// their increase.
    pub fn register(&self, registry: &mut Registry) {
        for plane in [Plane::Admin, Plane::Public, Plane::Metrics] {
            let labels = [("plane", plane.name()), ("reason", RequestRefusal::Memory.name())];
            let _: &Counter = &self.0.get_or_create(&labels);
        }
        registry.register(
            "http_refused",
            "Requests refused before their operation began, by reason",
            self.0.clone(),
        );
    }
}
