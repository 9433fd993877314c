//! Who a key is, and in which network.

use std::fmt;

use uuid::Uuid;

/// A tenant. With one tenant it is [`NetworkId::SINGLE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetworkId(Uuid);

impl NetworkId {
    /// The network of a deployment without multi-tenancy: the nil UUID.
    pub const SINGLE: Self = Self(Uuid::nil());

    /// A tenant's own network.
    pub const fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// From the hyphenated text of a UUID.
    pub fn parse(text: &str) -> Option<Self> {
        parse_hyphenated(text).map(Self)
    }

    /// The sixteen bytes, for hashes and cache indexes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(out)
    }
}

/// How a key came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// Made here.
    Issued,
    /// Made elsewhere and registered here by its hash.
    Imported,
}

/// The identity of a key within its network. The kind is part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyId {
    /// The UUID inside the credential.
    Issued(Uuid),
    /// SHA-512/256 over network and raw key.
    Imported([u8; 32]),
}

impl KeyId {
    /// Reads an id of the given kind: a hyphenated UUID, or 64 lower-case hex digits.
    /// None when the text isn't one, as no such key can exist.
    pub fn parse(kind: KeyKind, text: &str) -> Option<Self> {
        match kind {
            KeyKind::Issued => parse_hyphenated(text).map(Self::Issued),
            KeyKind::Imported => parse_hash(text).map(Self::Imported),
        }
    }

    /// Reads an id of either kind; their forms can't be confused.
    pub fn parse_any(text: &str) -> Option<Self> {
        Self::parse(KeyKind::Issued, text).or_else(|| Self::parse(KeyKind::Imported, text))
    }

    /// Which kind of key this names.
    pub const fn kind(&self) -> KeyKind {
        match self {
            Self::Issued(_) => KeyKind::Issued,
            Self::Imported(_) => KeyKind::Imported,
        }
    }

    /// The bytes of the id, for hashes.
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Issued(uuid) => uuid.as_bytes(),
            Self::Imported(hash) => hash,
        }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Issued(uuid) => uuid.hyphenated().fmt(out),
            Self::Imported(hash) => hash.iter().try_for_each(|byte| write!(out, "{byte:02x}")),
        }
    }
}

fn parse_hyphenated(text: &str) -> Option<Uuid> {
    // `Uuid::try_parse` takes braces, URNs and plain hex as well: only one text may name a key.
    (text.len() == 36).then(|| Uuid::try_parse(text).ok())?
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Some(hash)
}

const fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_per_id() {
        let uuid = "b2a748d2-4516-456f-8781-314b6a4507d0";
        let hash = "3774b4ac520e75a920cc6b029890c7ae0e8ed4987f25ec0f6a9c2125fd42122b";
        for text in [uuid, hash] {
            assert_eq!(KeyId::parse_any(text).unwrap().to_string(), text);
        }
        for wrong in [
            "",
            "b2a748d24516456f8781314b6a4507d0",
            "{b2a748d2-4516-456f-8781-314b6a4507d0}",
            "3774B4AC520E75A920CC6B029890C7AE0E8ED4987F25EC0F6A9C2125FD42122B",
            "3774",
            "über-über-über-über-über-über-überü",
        ] {
            assert_eq!(KeyId::parse_any(wrong), None, "{wrong}");
        }
        assert_eq!(KeyId::parse(KeyKind::Imported, uuid), None);
        assert_eq!(KeyId::parse(KeyKind::Issued, hash), None);
    }
}
