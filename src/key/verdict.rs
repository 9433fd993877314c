//! Decision whether a key may be used at a time and from an address.

use std::net::IpAddr;

use super::{Key, Status};
use crate::clock::Timestamp;

/// Reason for denying a credential. Never an error of Talos itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denial {
    /// Unknown, unproven or of another network. These look alike on purpose.
    #[error("the credential is not known")]
    NotFound,
    /// Expired.
    #[error("the credential has expired")]
    Expired,
    /// Revoked.
    #[error("the credential has been revoked")]
    Revoked,
    /// Suspended, or its actor is.
    #[error("suspended")]
    Suspended,
    /// Ended by an issuance policy.
    #[error("the credential has been ended by an issuance policy")]
    Policy,
    /// A derived token with a wrong signature, an unknown key or another issuer.
    #[error("the token's signature or issuer is not valid")]
    SignatureInvalid,
    /// A derived token for another audience.
    #[error("the token is not meant for any of the expected audiences")]
    AudienceMismatch,
    /// Used from an address that is not allowed.
    #[error("the client's address is not allowed for this credential")]
    AddressNotAllowed,
}

impl Denial {
    /// All reasons.
    pub const ALL: [Self; 8] = [
        Self::NotFound,
        Self::Expired,
        Self::Revoked,
        Self::Suspended,
        Self::Policy,
        Self::SignatureInvalid,
        Self::AudienceMismatch,
        Self::AddressNotAllowed,
    ];

    /// Returns the `error_code` of a verify response.
    pub const fn error_code(self) -> &'static str {
        match self {
            Self::NotFound => "VERIFICATION_ERROR_NOT_FOUND",
            // Nor one for a policy.
            Self::Expired | Self::Policy => "VERIFICATION_ERROR_EXPIRED",
            // Existing clients know no code for a suspension.
            Self::Revoked | Self::Suspended => "VERIFICATION_ERROR_REVOKED",
            Self::SignatureInvalid => "VERIFICATION_ERROR_SIGNATURE_INVALID",
            Self::AudienceMismatch => "VERIFICATION_ERROR_AUDIENCE_MISMATCH",
            Self::AddressNotAllowed => "VERIFICATION_ERROR_IP_NOT_ALLOWED",
        }
    }

    /// Returns the label for logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Suspended => "suspended",
            Self::Policy => "policy",
            Self::SignatureInvalid => "signature_invalid",
            Self::AudienceMismatch => "audience_mismatch",
            Self::AddressNotAllowed => "address_not_allowed",
        }
    }
}

/// Checks a key whose possession has been proven.
///
/// # Errors
/// Fails with the first reason that applies: revoked, expired, suspended, address.
pub fn judge(key: &Key, now: Timestamp, client: Option<IpAddr>) -> Result<(), Denial> {
    judge_state(key, now)?;
    match key.addresses.allow(client) {
        true => Ok(()),
        false => Err(Denial::AddressNotAllowed),
    }
}

/// Checks a key whose possession has been proven, for any address that it allows.
///
/// # Errors
/// Fails like [`judge`].
pub fn judge_state(key: &Key, now: Timestamp) -> Result<(), Denial> {
    match key.status(now) {
        Status::Revoked => Err(Denial::Revoked),
        Status::Expired => Err(Denial::Expired),
        Status::Active if key.suspensions.are_in_force(now) => Err(Denial::Suspended),
        Status::Active => Ok(()),
    }
}
