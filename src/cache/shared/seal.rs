//! The MAC on everything that stands in Redis: over what it is, what it is of, and what it says. Made with the current
//! secret, verified under that and the retired ones.

use hmac::Mac;

use crate::clock::Timestamp;
use crate::credential::secrets::{HmacSecret, HmacSecrets, HmacSha256};

/// What is signed, so that no kind can pass for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A key's row.
    Entry,
    /// The word that there is a change.
    Announcement,
    /// What an instance without a database asks.
    Question,
    /// What another one answers.
    Answer,
}

impl Kind {
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Entry => b"entry",
            Self::Announcement => b"announcement",
            Self::Question => b"question",
            Self::Answer => b"answer",
        }
    }

    /// Largest value that is looked at, in bytes: what we write is far smaller, with every field at its bound.
    const fn max_len(self) -> usize {
        match self {
            Self::Entry => 256 * 1024,
            Self::Announcement | Self::Question => 1_024,
            Self::Answer => 2 * 1024 * 1024,
        }
    }
}

const MAC_LEN: usize = 32;

pub(super) fn seal(secrets: &HmacSecrets, kind: Kind, subject: &str, mut content: Vec<u8>) -> Vec<u8> {
    let mac = mac(secrets.current(), kind, subject, &content);
    content.extend_from_slice(&mac.finalize().into_bytes());
    content
}

/// What was sealed; None when it is damaged, of something else, or signed by nobody that counts at `now`.
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
    let is_ours = |secret: &HmacSecret| mac(secret, kind, subject, content).verify_slice(signature).is_ok();
    secrets.verifying(now).any(is_ours).then_some(content)
}

fn mac(secret: &HmacSecret, kind: Kind, subject: &str, content: &[u8]) -> HmacSha256 {
    // Kind and subject hold no NUL: where one part ends is never in doubt.
    secret
        .cache_mac()
        .chain_update(kind.name())
        .chain_update([0])
        .chain_update(subject)
        .chain_update([0])
        .chain_update(content)
}
