//! Status, visibility and revocation of a key, with their names in rows and responses.

/// Status of a key at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Valid.
    Active,
    /// Revoked, or replaced with its grace period over. Final.
    Revoked,
    /// Expired.
    Expired,
}

impl Status {
    /// All statuses.
    pub const ALL: [Self; 3] = [Self::Active, Self::Revoked, Self::Expired];

    /// Returns the name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "KEY_STATUS_ACTIVE",
            Self::Revoked => "KEY_STATUS_REVOKED",
            Self::Expired => "KEY_STATUS_EXPIRED",
        }
    }

    /// Parses the name in the API.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

/// Visibility of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Visibility {
    /// For servers only.
    #[default]
    Secret,
    /// Publishable: may be embedded in a web page or app.
    Public,
}

impl Visibility {
    /// Both visibilities.
    pub const ALL: [Self; 2] = [Self::Secret, Self::Public];

    /// Returns the name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secret => "KEY_VISIBILITY_SECRET",
            Self::Public => "KEY_VISIBILITY_PUBLIC",
        }
    }

    /// Returns the short name, as in the `vis` claim.
    pub const fn claim(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Public => "public",
        }
    }

    /// Parses the `vis` claim.
    pub fn from_claim(claim: &str) -> Option<Self> {
        match claim {
            "secret" => Some(Self::Secret),
            "public" => Some(Self::Public),
            _ => None,
        }
    }

    /// Parses the name in the API.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|visibility| visibility.name() == name)
    }
}

/// Reason for a revocation (after RFC 5280's reason codes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RevocationReason {
    /// No reason given.
    #[default]
    Unspecified,
    /// The key has leaked, or may have.
    KeyCompromise,
    /// The actor's relationship to the issuer changed.
    AffiliationChanged,
    /// Another key replaced it.
    Superseded,
    /// An operator withdrew it. For admins only, and the only reason with a description.
    PrivilegeWithdrawn,
}

impl RevocationReason {
    /// All reasons.
    pub const ALL: [Self; 5] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::PrivilegeWithdrawn,
    ];

    /// Returns the name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "REVOCATION_REASON_UNSPECIFIED",
            Self::KeyCompromise => "REVOCATION_REASON_KEY_COMPROMISE",
            Self::AffiliationChanged => "REVOCATION_REASON_AFFILIATION_CHANGED",
            Self::Superseded => "REVOCATION_REASON_SUPERSEDED",
            Self::PrivilegeWithdrawn => "REVOCATION_REASON_PRIVILEGE_WITHDRAWN",
        }
    }

    /// Parses the name in the API.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// Revocation of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// The reason.
    pub reason: RevocationReason,
    /// An operator's description, only with [`RevocationReason::PrivilegeWithdrawn`].
    pub description: Option<String>,
}

impl Revocation {
    /// Revocation of a key whose grace period has ended.
    pub const SUPERSEDED: Self = Self { reason: RevocationReason::Superseded, description: None };
}
