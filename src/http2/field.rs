//! A header field, and what is to be known of it once however often it is sent.

use std::borrow::Cow;
use std::ops::Deref;
use std::rc::Rc;

/// A name and its value, as they were sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    name: Cow<'static, [u8]>,
    value: Cow<'static, [u8]>,
    kind: Kind,
}

/// What a request's field means to HTTP/2 itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Method,
    Scheme,
    Authority,
    Path,
    ContentLength,
    /// No request may have it (RFC 9113, 8.2 and 8.3).
    Malformed,
    /// It means something to others.
    Plain,
}

impl Kind {
    fn of(name: &[u8], value: &[u8]) -> Self {
        // What would be another line in HTTP/1.1 must not get so far.
        if value.iter().any(|byte| matches!(byte, b'\0' | b'\r' | b'\n')) {
            return Self::Malformed;
        }
        match name {
            b":method" => Self::Method,
            b":scheme" => Self::Scheme,
            b":authority" => Self::Authority,
            b":path" => Self::Path,
            b"content-length" => Self::ContentLength,
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
                Self::Malformed
            }
            b"te" if value != b"trailers" => Self::Malformed,
            _ if name.is_empty() || !name.iter().all(|&byte| is_name_byte(byte)) => Self::Malformed,
            _ => Self::Plain,
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
    pub fn new(name: impl Into<Cow<'static, [u8]>>, value: impl Into<Cow<'static, [u8]>>) -> Self {
        let (name, value) = (name.into(), value.into());
        let kind = Kind::of(&name, &value);
        Self { name, value, kind }
    }

    /// Its name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Its value.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    pub(super) const fn kind(&self) -> Kind {
        self.kind
    }

    /// What another field of the same name needs.
    pub(super) fn name_again(&self) -> Cow<'static, [u8]> {
        self.name.clone()
    }

    /// What it counts as in a table or a list, in bytes (RFC 7541, 4.1).
    pub fn size(&self) -> usize {
        self.name.len() + self.value.len() + 32
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
