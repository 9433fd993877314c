//! Planes: the groups of routes that a process serves, each on listeners of its own.

use std::fmt;

/// One plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plane {
    /// Issues, imports, lists, verifies, derives and revokes keys.
    Admin,
    /// Lets holders revoke their own key, and publishes the key set.
    Public,
    /// Answers Envoy's Checks.
    Authz,
    /// Metrics, status and health.
    Metrics,
}

impl Plane {
    const ALL: [Self; 4] = [Self::Admin, Self::Public, Self::Authz, Self::Metrics];

    /// Name in logs, in metric labels and in `/status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Public => "public",
            Self::Authz => "authz",
            Self::Metrics => "metrics",
        }
    }

    /// Name of its section of the configuration, below `serve`.
    pub const fn section(self) -> &'static str {
        match self {
            Self::Admin => "http",
            Self::Public | Self::Authz | Self::Metrics => self.name(),
        }
    }
}

impl fmt::Display for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The planes that one process serves. The metrics plane is always among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planes {
    /// All planes.
    All,
    /// One plane, beside metrics.
    Only(Plane),
}

impl Planes {
    /// Returns true if a plane is served.
    pub fn contains(self, plane: Plane) -> bool {
        match self {
            Self::All => true,
            Self::Only(only) => plane == only || plane == Plane::Metrics,
        }
    }

    /// The planes that are served, in a fixed order.
    pub fn iter(self) -> impl Iterator<Item = Plane> {
        Plane::ALL.into_iter().filter(move |plane| self.contains(*plane))
    }
}
