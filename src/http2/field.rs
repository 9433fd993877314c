//! A header field, and what is to be known of it once however often it is sent.

use std::borrow::Cow;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use super::work;

/// A name and its value, as they were sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    name: Name,
    value: Cow<'static, [u8]>,
    kind: Kind,
}

/// A field's name, judged once and shared by all fields that refer to it: a client may refer to a
/// long one by two bytes, over and over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    text: NameText,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum NameText {
    Static(&'static [u8]),
    Shared(Arc<[u8]>),
}

impl Name {
    /// A name that was sent.
    pub(super) fn new(text: Vec<u8>) -> Self {
        work::bytes(text.len());
        Self { kind: Kind::of(&text), text: NameText::Shared(text.into()) }
    }

    /// A name of the table that all connections have.
    pub(super) fn fixed(text: &'static [u8]) -> Self {
        Self { kind: Kind::of(text), text: NameText::Static(text) }
    }

    fn text(&self) -> &[u8] {
        match &self.text {
            NameText::Static(text) => text,
            NameText::Shared(text) => text,
        }
    }
}

/// What a request's field means to HTTP/2 itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Method,
    Scheme,
    Authority,
    Path,
    ContentLength,
    /// `te`, whose value decides: of a name alone.
    Te,
    /// No request may have it (RFC 9113, 8.2 and 8.3).
    Malformed,
    /// It means something to others.
    Plain,
}

impl Kind {
    /// What a name means before its value is known.
    fn of(name: &[u8]) -> Self {
        match name {
            b":method" => Self::Method,
            b":scheme" => Self::Scheme,
            b":authority" => Self::Authority,
            b":path" => Self::Path,
            b"content-length" => Self::ContentLength,
            b"te" => Self::Te,
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
                Self::Malformed
            }
            _ if name.is_empty() || !name.iter().all(|&byte| is_name_byte(byte)) => Self::Malformed,
            _ => Self::Plain,
        }
    }

    /// What it means with this value.
    fn with(self, value: &[u8]) -> Self {
        work::bytes(value.len());
        // What would be another line in HTTP/1.1 must not get so far.
        if value.iter().any(|byte| matches!(byte, b'\0' | b'\r' | b'\n')) {
            return Self::Malformed;
        }
        match self {
            Self::Te if value == b"trailers" => Self::Plain,
            Self::Te => Self::Malformed,
            kind => kind,
        }
    }
}

/// Bytes of a token (RFC 9110, 5.6.2), capitals left out.
const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase()
        || byte.is_ascii_digit()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

impl Field {
    /// A field.
    pub(super) fn new(name: Name, value: impl Into<Cow<'static, [u8]>>) -> Self {
        let value = value.into();
        work::fields(1);
        let kind = name.kind.with(&value);
        Self { name, value, kind }
    }

    /// Its name.
    pub fn name(&self) -> &[u8] {
        self.name.text()
    }

    /// Its value.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    pub(super) const fn kind(&self) -> Kind {
        self.kind
    }

    /// What another field of the same name needs.
    pub(super) fn name_again(&self) -> Name {
        self.name.clone()
    }

    /// What it counts as in a table or a list, in bytes (RFC 7541, 4.1).
    pub fn size(&self) -> usize {
        self.name().len() + self.value.len() + 32
    }
}

/// A field of a request, wherever it lies.
#[derive(Debug, Clone)]
pub enum Entry {
    /// In the table that all connections have.
    Static(&'static Field),
    /// In the connection's own, or nowhere else.
    Shared(Rc<Field>),
}

impl Deref for Entry {
    type Target = Field;

    fn deref(&self) -> &Field {
        match self {
            Self::Static(field) => field,
            Self::Shared(field) => field,
        }
    }
}
