//! MAC on every value in Redis, over its kind, its subject and its content. Values are signed with
//! the current secret, and verified with that and the retired ones.

use hmac::Mac;

use crate::clock::Timestamp;
use crate::credential::secrets::{HmacSecret, HmacSecrets, HmacSha256};

/// Kind of a value; it is signed, so that no kind passes for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Row of a key.
    Entry,
    /// Announcement of a change.
    Announcement,
    /// Request of an instance that can't reach the database.
    RelayRequest,
    /// Response of an instance that can.
    RelayResponse,
}

impl Kind {
    /// Returns the name that is signed; part of the format.
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Entry => b"entry",
            Self::Announcement => b"announcement",
            Self::RelayRequest => b"question",
            Self::RelayResponse => b"answer",
        }
    }

    /// Returns the largest accepted size in bytes. Written values are far smaller, even with every
    /// field at its bound.
    const fn max_len(self) -> usize {
        match self {
            Self::Entry => 256 * 1024,
            Self::Announcement | Self::RelayRequest => 1_024,
            Self::RelayResponse => 2 * 1024 * 1024,
        }
    }
}

const MAC_LEN: usize = 32;

/// Appends the MAC to a content.
pub(super) fn seal(secrets: &HmacSecrets, kind: Kind, subject: &str, mut content: Vec<u8>) -> Vec<u8> {
    let mac = mac(secrets.current(), kind, subject, &content);
    content.extend_from_slice(&mac.finalize().into_bytes());
    content
}

/// Verifies a value and returns its content. Returns `None` if it is damaged, of another kind or
/// subject, or not signed with a secret that is valid at `now`.
pub(super) fn open<'a>(
    secrets: &HmacSecrets,
    now: Timestamp,
    kind: Kind,
    subject: &str,
    value: &'a [u8],
) -> Option<&'a [u8]> {
    let at = value.len().checked_sub(MAC_LEN).filter(|_| value.len() <= kind.max_len())?;
    let (content, signature) = value.split_at(at);
    // The library compares in constant time.
    let verifies = |secret: &HmacSecret| mac(secret, kind, subject, content).verify_slice(signature).is_ok();
    secrets.verifying(now).any(verifies).then_some(content)
}

fn mac(secret: &HmacSecret, kind: Kind, subject: &str, content: &[u8]) -> HmacSha256 {
    // Kind and subject have no NUL, so the parts can't run into each other.
    secret
        .cache_mac()
        .chain_update(kind.name())
        .chain_update([0])
        .chain_update(subject)
        .chain_update([0])
        .chain_update(content)
}
