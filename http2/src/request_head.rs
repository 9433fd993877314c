//! The head of a request, checked by the rules for all requests (RFC 9113, 8.2 and 8.3).

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use crate::field::{FieldKind, FieldRef};
use crate::hpack::FIELD_MEMORY_FACTOR;
use crate::work;

/// Longest value that is copied into a request of the `http` crate, in bytes.
const MAX_COPIED_VALUE: usize = 256;

/// The header section of a request, or a trailer section.
#[derive(Debug, Default)]
pub struct RequestHead {
    fields: Vec<FieldRef>,
    /// Position of each pseudo-header field.
    method: Option<usize>,
    scheme: Option<usize>,
    authority: Option<usize>,
    path: Option<usize>,
    content_length: Option<u64>,
    /// Size of all fields, in bytes, also of those that didn't fit.
    size: usize,
    is_malformed: bool,
}

impl RequestHead {
    /// Makes a head of these fields, for tests.
    #[cfg(any(test, feature = "contract"))]
    pub fn of_fields(fields: &[(&str, &str)]) -> Self {
        let mut head = Self::default();
        for (name, value) in fields {
            let name = crate::field::FieldName::new(name.as_bytes().to_vec());
            let field = crate::field::HeaderField::new(name, value.as_bytes().to_vec());
            head.add(FieldRef::Shared(std::rc::Rc::new(field)), usize::MAX);
        }
        head
    }

    pub(crate) fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    /// Returns the memory that the fields may take, in bytes.
    #[inline]
    pub(crate) fn memory_usage(&self, max_size: usize) -> usize {
        FIELD_MEMORY_FACTOR * self.size.min(max_size) + self.fields.capacity() * size_of::<FieldRef>()
    }

    /// Drops the fields and their buffer.
    pub(crate) fn release(&mut self) {
        *self = Self::default();
    }

    /// Adds a field; one that doesn't fit within `max_size` bytes is only counted.
    pub(crate) fn add(&mut self, field: FieldRef, max_size: usize) {
        work::fields(1);
        self.size = self.size.saturating_add(field.size());
        if self.size > max_size {
            return;
        }
        let at = self.fields.len();
        // Pseudo-header fields come first, and once.
        let is_valid = match field.kind() {
            FieldKind::Regular => true,
            FieldKind::Malformed | FieldKind::Te => false,
            FieldKind::Method => self.has_only_pseudo() && self.method.replace(at).is_none(),
            FieldKind::Scheme => self.has_only_pseudo() && self.scheme.replace(at).is_none(),
            FieldKind::Authority => self.has_only_pseudo() && self.authority.replace(at).is_none(),
            FieldKind::Path => self.has_only_pseudo() && self.path.replace(at).is_none(),
            FieldKind::ContentLength => {
                let length = parse_length(field.value());
                length.is_some()
                    && self
                        .content_length
                        .replace(length.unwrap_or(0))
                        .is_none_or(|before| Some(before) == length)
            }
        };
        self.is_malformed |= !is_valid;
        self.fields.push(field);
    }

    /// Returns whether all fields so far are pseudo-header fields.
    fn has_only_pseudo(&self) -> bool {
        let pseudo = [self.method, self.scheme, self.authority, self.path];
        pseudo.iter().flatten().count() == self.fields.len()
    }

    /// Returns whether the fields exceed `max_size` bytes, so that some are missing here.
    #[inline]
    pub(crate) const fn exceeds(&self, max_size: usize) -> bool {
        self.size > max_size
    }

    /// Returns whether it is a valid header section of a request.
    pub(crate) fn is_request(&self) -> bool {
        let has_all = self.method.is_some() && self.scheme.is_some() && !self.path().is_empty();
        has_all && !self.is_malformed
    }

    /// Returns whether it is a valid trailer section.
    pub(crate) fn is_trailers(&self) -> bool {
        let pseudo = [self.method, self.scheme, self.authority, self.path];
        pseudo.iter().all(Option::is_none) && !self.is_malformed
    }

    /// Returns the length of the body that the peer announces, in bytes.
    #[inline]
    pub(crate) const fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// Returns the method.
    #[inline]
    pub fn method(&self) -> &[u8] {
        self.value_at(self.method)
    }

    /// Returns the path with the query.
    #[inline]
    pub fn path(&self) -> &[u8] {
        self.value_at(self.path)
    }

    /// Returns the first value of a name in lower case; None when there is none.
    #[inline]
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        let fields = self.fields.iter().inspect(|_| work::fields(1));
        let mut named = fields.filter(|field| field.name() == name.as_bytes());
        named.next().map(|field| field.value())
    }

    #[inline]
    fn value_at(&self, position: Option<usize>) -> &[u8] {
        position.and_then(|position| self.fields.get(position)).map_or(&[], |field| field.value())
    }

    /// Copies the head into the `http` crate's type, with the first field of each of these names.
    ///
    /// None when that type can't hold it. Values longer than 256 bytes are left out: a peer may
    /// refer to a long one by a single byte.
    pub fn to_request(&self, names: &[&str]) -> Option<Request<()>> {
        let mut headers = HeaderMap::with_capacity(names.len());
        for name in names {
            if let Some(value) = self.value(name).filter(|value| value.len() <= MAX_COPIED_VALUE) {
                let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
                headers.append(name, HeaderValue::from_bytes(value).ok()?);
            }
        }
        let mut request = Request::new(());
        *request.method_mut() = Method::from_bytes(self.method()).ok()?;
        *request.uri_mut() = Uri::try_from(self.path()).ok()?;
        *request.headers_mut() = headers;
        Some(request)
    }
}

fn parse_length(digits: &[u8]) -> Option<u64> {
    let text = str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{FieldName, HeaderField};
    use std::rc::Rc;

    fn head(fields: &[(&'static str, &'static str)]) -> RequestHead {
        let mut head = RequestHead::default();
        for (name, value) in fields {
            head.add(
                FieldRef::Shared(Rc::new(HeaderField::new(FieldName::new((*name).into()), value.as_bytes()))),
                1_000,
            );
        }
        head
    }

    const POST: [(&str, &str); 3] = [(":method", "POST"), (":scheme", "http"), (":path", "/a")];

    #[test]
    fn a_request_has_what_it_must_and_nothing_that_it_must_not() {
        let with = |more: &[(&'static str, &'static str)]| head(&[&POST[..], more].concat()).is_request();
        for good in [
            &[][..],
            &[(":authority", "a"), ("te", "trailers")],
            &[("content-length", "1"), ("content-length", "1")],
            &[("x", ""), ("x", "b"), ("x!#$%&'*+-.^_`|~9", "\t ")],
        ] {
            assert!(with(good), "{good:?}");
        }
        for bad in [
            (":path", "/b"),
            (":method", "GET"),
            (":status", "200"),
            (":protocol", "a"),
            ("X", "a"),
            ("", "a"),
            ("a b", ""),
            ("x", "a\r\nb: c"),
            ("x", "\0"),
            ("te", "gzip"),
            ("connection", "close"),
            ("keep-alive", "1"),
            ("proxy-connection", "1"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("content-length", "-1"),
            ("content-length", ""),
            ("content-length", "18446744073709551616"),
        ] {
            assert!(!with(&[bad]), "{bad:?}");
        }
        assert!(!with(&[("content-length", "1"), ("content-length", "2")]));
        assert!(!with(&[("x", "y"), (":authority", "late")]));
        for missing in POST {
            let rest = POST.into_iter().filter(|field| *field != missing).collect::<Vec<_>>();
            assert!(!head(&rest).is_request(), "without {missing:?}");
        }
        assert!(!head(&[POST[0], POST[1], (":path", "")]).is_request());
    }

    #[test]
    fn trailers_have_no_pseudo_header() {
        assert!(head(&[]).is_trailers() && head(&[("x", "y")]).is_trailers());
        assert!(!head(&[("x", "y"), (":path", "/")]).is_trailers());
        assert!(!head(&[("X", "y")]).is_trailers());
    }

    #[test]
    fn fields_beyond_the_limit_are_only_counted() {
        let mut head = head(&POST);
        let more = FieldRef::Shared(Rc::new(HeaderField::new(FieldName::new(vec![b'x']), vec![b'a'; 900])));
        head.add(more.clone(), 1_000);
        assert!(head.exceeds(1_000) && head.value("x").is_none());
        head.clear();
        assert!(!head.exceeds(1_000));
        head.add(more, 1_000);
        assert_eq!(head.value("x").map(<[u8]>::len), Some(900));
    }
}
