//! Ids of keys and networks.

use std::fmt;

use uuid::Uuid;

/// Network of a tenant. With a single tenant it is [`NetworkId::SINGLE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetworkId(Uuid);

impl NetworkId {
    /// Network of a deployment without multi-tenancy: the nil UUID.
    pub const SINGLE: Self = Self(Uuid::nil());

    /// Returns the network of a tenant.
    pub const fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// Parses the hyphenated text of a UUID.
    pub fn parse(text: &str) -> Option<Self> {
        parse_hyphenated(text).map(Self)
    }

    /// Returns the sixteen bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(out)
    }
}

/// Kind of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// Issued by Talos.
    Issued,
    /// Made elsewhere; Talos has its hash.
    Imported,
}

/// Id of a key within its network. Contains the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyId {
    /// UUID in the credential.
    Issued(Uuid),
    /// SHA-512/256 over network and raw key.
    Imported([u8; 32]),
}

impl KeyId {
    /// Parses an id of the given kind: a hyphenated UUID or 64 lower-case hexadecimal digits.
    pub fn parse(kind: KeyKind, text: &str) -> Option<Self> {
        match kind {
            KeyKind::Issued => parse_hyphenated(text).map(Self::Issued),
            KeyKind::Imported => parse_hash(text).map(Self::Imported),
        }
    }

    /// Parses an id of either kind. Their formats differ.
    pub fn parse_any(text: &str) -> Option<Self> {
        Self::parse(KeyKind::Issued, text).or_else(|| Self::parse(KeyKind::Imported, text))
    }

    /// Returns the kind.
    pub const fn kind(&self) -> KeyKind {
        match self {
            Self::Issued(_) => KeyKind::Issued,
            Self::Imported(_) => KeyKind::Imported,
        }
    }

    /// Returns the bytes, for hashing.
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
            Self::Imported(hash) => out.write_str(&hex::encode(hash)),
        }
    }
}

fn parse_hyphenated(text: &str) -> Option<Uuid> {
    // `Uuid::try_parse` also accepts braces, URNs and plain hex. Upper case names the same key.
    (text.len() == 36).then(|| Uuid::try_parse(text).ok())?
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    hex::decode_to_slice(text, &mut hash).ok()?;
    // `hex` accepts upper case.
    (!text.bytes().any(|byte| byte.is_ascii_uppercase())).then_some(hash)
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
