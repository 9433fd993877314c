//! The states of a key and the words for them in rows and answers.

/// The state of a key at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It may be used.
    Active,
    /// It was revoked, or replaced and its grace period is over. Final.
    Revoked,
    /// Its time is over.
    Expired,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Active, Self::Revoked, Self::Expired];

    /// The name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "KEY_STATUS_ACTIVE",
            Self::Revoked => "KEY_STATUS_REVOKED",
            Self::Expired => "KEY_STATUS_EXPIRED",
        }
    }

    /// From the name in the API.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

/// Whether a key may be shown to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Visibility {
    /// For servers only.
    #[default]
    Secret,
    /// Publishable: safe to ship to a browser or a device.
    Public,
}

impl Visibility {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Secret, Self::Public];

    /// The name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secret => "KEY_VISIBILITY_SECRET",
            Self::Public => "KEY_VISIBILITY_PUBLIC",
        }
    }

    /// The short name, as in the `vis` claim.
    pub const fn claim(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Public => "public",
        }
    }

    /// From the `vis` claim.
    pub fn from_claim(claim: &str) -> Option<Self> {
        match claim {
            "secret" => Some(Self::Secret),
            "public" => Some(Self::Public),
            _ => None,
        }
    }

    /// From the name in the API.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|visibility| visibility.name() == name)
    }
}

/// Why a key was revoked (after RFC 5280's reason codes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RevocationReason {
    /// None was given.
    #[default]
    Unspecified,
    /// It leaked, or is thought to have.
    KeyCompromise,
    /// Its actor's relationship to the issuer changed.
    AffiliationChanged,
    /// Another key took its place.
    Superseded,
    /// An operator withdrew it; for admins only, and the only one with a description.
    PrivilegeWithdrawn,
}

impl RevocationReason {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::PrivilegeWithdrawn,
    ];

    /// The name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "REVOCATION_REASON_UNSPECIFIED",
            Self::KeyCompromise => "REVOCATION_REASON_KEY_COMPROMISE",
            Self::AffiliationChanged => "REVOCATION_REASON_AFFILIATION_CHANGED",
            Self::Superseded => "REVOCATION_REASON_SUPERSEDED",
            Self::PrivilegeWithdrawn => "REVOCATION_REASON_PRIVILEGE_WITHDRAWN",
        }
    }

    /// From the name in the API.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// That a key was revoked, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// The reason given.
    pub reason: RevocationReason,
    /// An operator's words, only beside [`RevocationReason::PrivilegeWithdrawn`].
    pub description: Option<String>,
}
