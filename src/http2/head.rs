//! The head of a request, held to the rules that all requests have in common (RFC 9113, 8.2 and 8.3).

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use super::field::{Entry, Kind};
use super::hpack::FIELD_FACTOR;
use super::work;

/// Longest value that is copied into a request of the `http` crate's, in bytes.
const MAX_COPIED: usize = 256;

/// The fields of a request, or of what follows one.
#[derive(Debug, Default)]
pub struct Head {
    fields: Vec<Entry>,
    /// Where each pseudo-header is.
    method: Option<usize>,
    scheme: Option<usize>,
    authority: Option<usize>,
    path: Option<usize>,
    length: Option<u64>,
    /// What its fields count as, in bytes.
    size: usize,
    is_malformed: bool,
}

impl Head {
    /// The head that a block is.
    #[cfg(test)]
    pub fn read(block: &[u8]) -> Self {
        let mut head = Self::default();
        super::Decoder::default().decode(block, |entry| head.add(entry, usize::MAX)).unwrap();
        head
    }

    pub(super) fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    /// Bytes of memory that its fields may take.
    pub(super) fn memory(&self, limit: usize) -> usize {
        FIELD_FACTOR * self.size.min(limit) + self.fields.capacity() * size_of::<Entry>()
    }

    /// Drops its fields, and the room for them.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Adds a field; one that doesn't fit within `limit` bytes is only counted.
    pub(super) fn add(&mut self, entry: Entry, limit: usize) {
        self.size = self.size.saturating_add(entry.size());
        if self.size > limit {
            return;
        }
        let at = self.fields.len();
        // Pseudo-headers come first, and once.
        let fits = match entry.kind() {
            Kind::Plain => true,
            Kind::Malformed | Kind::Te => false,
            Kind::Method => self.is_beginning() && self.method.replace(at).is_none(),
            Kind::Scheme => self.is_beginning() && self.scheme.replace(at).is_none(),
            Kind::Authority => self.is_beginning() && self.authority.replace(at).is_none(),
            Kind::Path => self.is_beginning() && self.path.replace(at).is_none(),
            Kind::ContentLength => {
                let length = number(entry.value());
                length.is_some()
                    && self.length.replace(length.unwrap_or(0)).is_none_or(|before| Some(before) == length)
            }
        };
        self.is_malformed |= !fits;
        self.fields.push(entry);
    }

    /// Whether all fields so far are pseudo-headers.
    fn is_beginning(&self) -> bool {
        let pseudo = [self.method, self.scheme, self.authority, self.path];
        pseudo.iter().flatten().count() == self.fields.len()
    }

    /// Whether its fields are more than `limit` bytes, so that not all are here.
    pub(super) const fn exceeds(&self, limit: usize) -> bool {
        self.size > limit
    }

    /// Whether it is a request's.
    pub(super) fn is_request(&self) -> bool {
        let has_all = self.method.is_some() && self.scheme.is_some() && !self.path().is_empty();
        has_all && !self.is_malformed
    }

    /// Whether it is what may follow a request.
    pub(super) fn is_trailers(&self) -> bool {
        let pseudo = [self.method, self.scheme, self.authority, self.path];
        pseudo.iter().all(Option::is_none) && !self.is_malformed
    }

    /// How long the client says that the body is, in bytes.
    pub(super) const fn content_length(&self) -> Option<u64> {
        self.length
    }

    /// Of the request line.
    pub fn method(&self) -> &[u8] {
        self.at(self.method)
    }

    /// Of the request line, with the query.
    pub fn path(&self) -> &[u8] {
        self.at(self.path)
    }

    /// The first value of this name, in lower case; None when there is none.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        let named =
            self.fields.iter().inspect(|_| work::fields(1)).find(|field| field.name() == name.as_bytes());
        named.map(|field| field.value())
    }

    fn at(&self, position: Option<usize>) -> &[u8] {
        position.and_then(|position| self.fields.get(position)).map_or(&[], |field| field.value())
    }

    /// The same for those who know the `http` crate's words only, with the first field of each of
    /// these names; None when that can't hold it. Values of more than [`MAX_COPIED`] bytes are left
    /// out: a client may refer to a long one by a byte.
    pub fn request(&self, names: &[&str]) -> Option<Request<()>> {
        let mut headers = HeaderMap::with_capacity(names.len());
        for name in names {
            if let Some(value) = self.value(name).filter(|value| value.len() <= MAX_COPIED) {
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

fn number(digits: &[u8]) -> Option<u64> {
    let text = str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::field::{Field, Name};
    use super::*;
    use std::rc::Rc;

    fn head(fields: &[(&'static str, &'static str)]) -> Head {
        let mut head = Head::default();
        for (name, value) in fields {
            head.add(Entry::Shared(Rc::new(Field::new(Name::new((*name).into()), value.as_bytes()))), 1_000);
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
    fn what_follows_a_request_has_no_pseudo_header() {
        assert!(head(&[]).is_trailers() && head(&[("x", "y")]).is_trailers());
        assert!(!head(&[("x", "y"), (":path", "/")]).is_trailers());
        assert!(!head(&[("X", "y")]).is_trailers());
    }

    #[test]
    fn what_does_not_fit_is_counted_only() {
        let mut head = head(&POST);
        let more = Entry::Shared(Rc::new(Field::new(Name::new(vec![b'x']), vec![b'a'; 900])));
        head.add(more.clone(), 1_000);
        assert!(head.exceeds(1_000) && head.value("x").is_none());
        head.clear();
        assert!(!head.exceeds(1_000));
        head.add(more, 1_000);
        assert_eq!(head.value("x").map(<[u8]>::len), Some(900));
    }
}
