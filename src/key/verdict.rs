//! May this key be used now, from there? The one place that says so.

use std::net::IpAddr;

use super::{Key, Status};
use crate::clock::Timestamp;

/// Why a credential doesn't authenticate. None of these is a failure of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denial {
    /// Unknown, unproven or of another network: all look alike on purpose.
    #[error("the credential is not known")]
    NotFound,
    /// Its time is over.
    #[error("the credential has expired")]
    Expired,
    /// It was revoked.
    #[error("the credential has been revoked")]
    Revoked,
    /// A derived token whose signature, key or issuer isn't ours.
    #[error("the token's signature or issuer is not valid")]
    SignatureInvalid,
    /// A derived token for somebody else.
    #[error("the token is not meant for any of the expected audiences")]
    AudienceMismatch,
    /// Used from an address that it isn't allowed from.
    #[error("the client's address is not allowed for this credential")]
    AddressNotAllowed,
}

impl Denial {
    /// All of them, for tables.
    pub const ALL: [Self; 6] = [
        Self::NotFound,
        Self::Expired,
        Self::Revoked,
        Self::SignatureInvalid,
        Self::AudienceMismatch,
        Self::AddressNotAllowed,
    ];

    /// The `error_code` of a verify answer.
    pub const fn error_code(self) -> &'static str {
        match self {
            Self::NotFound => "VERIFICATION_ERROR_NOT_FOUND",
            Self::Expired => "VERIFICATION_ERROR_EXPIRED",
            Self::Revoked => "VERIFICATION_ERROR_REVOKED",
            Self::SignatureInvalid => "VERIFICATION_ERROR_SIGNATURE_INVALID",
            Self::AudienceMismatch => "VERIFICATION_ERROR_AUDIENCE_MISMATCH",
            Self::AddressNotAllowed => "VERIFICATION_ERROR_IP_NOT_ALLOWED",
        }
    }

    /// The short word for logs and metric labels.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::SignatureInvalid => "signature_invalid",
            Self::AudienceMismatch => "audience_mismatch",
            Self::AddressNotAllowed => "address_not_allowed",
        }
    }
}

/// Judges a key whose possession has been proven.
///
/// # Errors
/// The first reason that holds: revoked, expired, address.
pub fn judge(key: &Key, now: Timestamp, client: Option<IpAddr>) -> Result<(), Denial> {
    match key.status(now) {
        Status::Revoked => Err(Denial::Revoked),
        Status::Expired => Err(Denial::Expired),
        Status::Active if !key.addresses.allow(client) => Err(Denial::AddressNotAllowed),
        Status::Active => Ok(()),
    }
}
