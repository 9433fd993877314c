//! Header blocks of responses (RFC 7541), written without a dynamic table.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::hpack::static_table::STATIC_FIELDS;
use crate::hpack::write_integer;

/// An encoded header or trailer section, cheap to clone.
///
/// It refers to the static table alone, so one block serves every connection, over and over.
#[derive(Debug, Clone)]
pub struct HeaderBlock(Bytes);

impl HeaderBlock {
    /// Encodes the header section of a response.
    pub fn response(status: StatusCode, headers: &HeaderMap) -> Self {
        let mut out = vec![];
        write_field(b":status", status.as_str().as_bytes(), &mut out);
        write_all(headers, &mut out);
        Self(out.into())
    }

    /// Encodes a trailer section.
    pub fn trailers(fields: &HeaderMap) -> Self {
        let mut out = vec![];
        write_all(fields, &mut out);
        Self(out.into())
    }

    #[inline]
    pub(crate) fn octets(&self) -> &[u8] {
        &self.0
    }

    /// Returns the fields as text, for tests.
    ///
    /// # Errors
    /// The block can't be decoded.
    #[cfg(any(test, feature = "contract"))]
    pub fn fields(&self) -> Result<Vec<(String, String)>, crate::DecodeError> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut fields = vec![];
        let add = |field: crate::field::FieldRef| fields.push((text(field.name()), text(field.value())));
        crate::hpack::Decoder::default().decode(&self.0, add)?;
        Ok(fields)
    }
}

fn write_all(fields: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in fields {
        write_field(name.as_str().as_bytes(), value.as_bytes(), out);
    }
}

/// Writes a field by its static index, or else as a literal that is kept in no table.
pub(crate) fn write_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    let is_named = |field: &&(&str, &str)| field.0.as_bytes() == name;
    if let Some(at) = STATIC_FIELDS.iter().position(|field| is_named(&field) && field.1.as_bytes() == value) {
        return write_integer(at + 1, 7, 0x80, out);
    }
    match STATIC_FIELDS.iter().position(|field| is_named(&field)) {
        Some(at) => write_integer(at + 1, 4, 0, out),
        None => {
            out.push(0);
            write_string(name, out);
        }
    }
    write_string(value, out);
}

fn write_string(text: &[u8], out: &mut Vec<u8>) {
    write_integer(text.len(), 7, 0, out);
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{CONTENT_TYPE, HeaderValue};

    #[test]
    fn blocks_are_short_and_say_what_they_were_made_of() {
        let grpc = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))]);
        let block = HeaderBlock::response(StatusCode::OK, &grpc);
        assert_eq!(block.octets(), b"\x88\x0f\x10\x10application/grpc");
        let late =
            HeaderMap::from_iter([(http::HeaderName::from_static("x-late"), HeaderValue::from_static("1"))]);
        assert_eq!(HeaderBlock::trailers(&late).octets(), b"\x00\x06x-late\x011");
        let odd = HeaderBlock::response(StatusCode::IM_A_TEAPOT, &HeaderMap::new());
        assert_eq!(odd.fields(), Ok(vec![(":status".to_owned(), "418".to_owned())]));
    }
}
