//! Header fields, each checked once however often it is referred to.

use std::borrow::Cow;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use crate::work;

/// A field name and its value, as they were sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HeaderField {
    name: FieldName,
    value: Cow<'static, [u8]>,
    kind: FieldKind,
}

/// A field name, checked once and shared by all fields that refer to it.
///
/// A peer may refer to a long name by two bytes, over and over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldName {
    text: NameText,
    kind: FieldKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum NameText {
    Static(&'static [u8]),
    Shared(Arc<[u8]>),
}

impl FieldName {
    /// A name that was sent as a literal.
    pub(crate) fn new(text: Vec<u8>) -> Self {
        work::bytes(text.len());
        Self { kind: FieldKind::of(&text), text: NameText::Shared(text.into()) }
    }

    /// A name of the static table.
    pub(crate) fn from_static(text: &'static [u8]) -> Self {
        Self { kind: FieldKind::of(text), text: NameText::Static(text) }
    }

    #[inline]
    fn text(&self) -> &[u8] {
        match &self.text {
            NameText::Static(text) => text,
            NameText::Shared(text) => text,
        }
    }
}

/// The meaning of a request's field to HTTP/2 itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldKind {
    Method,
    Scheme,
    Authority,
    Path,
    ContentLength,
    /// `te`, of a name alone: its value decides.
    Te,
    /// No request may have it (RFC 9113, 8.2 and 8.3).
    Malformed,
    /// A name without a meaning to HTTP/2.
    Regular,
}

impl FieldKind {
    /// The kind of a name, before its value is known.
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
            _ => Self::Regular,
        }
    }

    /// The kind of a field with this name's kind and this value.
    fn with_value(self, value: &[u8]) -> Self {
        work::bytes(value.len());
        // These would begin another line in HTTP/1.1.
        if value.iter().any(|byte| matches!(byte, b'\0' | b'\r' | b'\n')) {
            return Self::Malformed;
        }
        match self {
            Self::Te if value == b"trailers" => Self::Regular,
            Self::Te => Self::Malformed,
            kind => kind,
        }
    }
}

/// Returns whether a byte may be in a field name: a token's (RFC 9110, 5.6.2), no capital.
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

impl HeaderField {
    /// Makes a field and checks its value.
    pub(crate) fn new(name: FieldName, value: impl Into<Cow<'static, [u8]>>) -> Self {
        let value = value.into();
        work::fields(1);
        let kind = name.kind.with_value(&value);
        Self { name, value, kind }
    }

    /// Returns the name.
    #[inline]
    pub(crate) fn name(&self) -> &[u8] {
        self.name.text()
    }

    /// Returns the value.
    #[inline]
    pub(crate) fn value(&self) -> &[u8] {
        &self.value
    }

    #[inline]
    pub(crate) const fn kind(&self) -> FieldKind {
        self.kind
    }

    /// Returns the name for another field that has the same.
    #[inline]
    pub(crate) fn shared_name(&self) -> FieldName {
        self.name.clone()
    }

    /// Returns the size that the field counts as in a table or a list, in bytes (RFC 7541, 4.1).
    #[inline]
    pub(crate) fn size(&self) -> usize {
        self.name().len() + self.value.len() + 32
    }
}

/// A reference to a field, wherever it lies.
#[derive(Debug, Clone)]
pub(crate) enum FieldRef {
    /// A field of the static table.
    Static(&'static HeaderField),
    /// A field of the connection's dynamic table, or of one header block alone.
    Shared(Rc<HeaderField>),
}

impl Deref for FieldRef {
    type Target = HeaderField;

    #[inline]
    fn deref(&self) -> &HeaderField {
        match self {
            Self::Static(field) => field,
            Self::Shared(field) => field,
        }
    }
}
