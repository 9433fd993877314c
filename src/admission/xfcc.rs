//! `x-forwarded-client-cert`: elements between commas, pairs between semicolons, values in quotes where they need it.

use crate::caller::{Names, UnusableNames};

/// Longest header that is read, in bytes: it may hold a whole chain.
const MAX: usize = 32 * 1024;

/// Why nobody is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum XfccError {
    /// No header.
    #[error("there is no x-forwarded-client-cert")]
    Absent,
    /// Not what Envoy writes.
    #[error("x-forwarded-client-cert is malformed")]
    Malformed,
    /// It names nobody for certain.
    #[error("the forwarded certificate names nobody: {0}")]
    Names(#[from] UnusableNames),
}

/// The names of whoever spoke to the nearest proxy, which is what that proxy wrote: the last element. Those before it
/// may come from anybody.
///
/// # Errors
/// When any of it isn't what Envoy writes, or nobody is named for certain.
pub fn read(headers: &[&[u8]]) -> Result<Names, XfccError> {
    let last = headers.last().ok_or(XfccError::Absent)?;
    if headers.iter().any(|header| header.len() > MAX) {
        return Err(XfccError::Malformed);
    }
    let mut element = None;
    for header in headers {
        let text = std::str::from_utf8(header).map_err(|_| XfccError::Malformed)?;
        let elements = parse(text).ok_or(XfccError::Malformed)?;
        if std::ptr::eq(*header, *last) {
            element = elements.into_iter().next_back();
        }
    }
    let element = element.ok_or(XfccError::Malformed)?;
    let of = |key: &str| -> Vec<&str> {
        let pairs = element.iter().filter(|(name, _)| name.eq_ignore_ascii_case(key));
        pairs.map(|(_, value)| value.as_str()).collect()
    };
    for key in ["Hash", "Cert", "Chain", "Subject"] {
        if of(key).len() > 1 {
            return Err(XfccError::Malformed);
        }
    }
    // Envoy writes an empty URI for a certificate that has none.
    let uris = of("URI");
    let uris = if uris == [""] { vec![] } else { uris };
    Ok(Names::new(uris, of("DNS"))?)
}

type Element = Vec<(String, String)>;

/// None when it isn't what Envoy writes.
fn parse(text: &str) -> Option<Vec<Element>> {
    let mut elements = vec![];
    for element in split(text, ',')? {
        let pairs = split(element, ';')?.into_iter().map(|pair| {
            let (name, value) = pair.split_once('=')?;
            let known = ["By", "Hash", "Cert", "Chain", "Subject", "URI", "DNS"];
            known.iter().any(|known| known.eq_ignore_ascii_case(name)).then_some(())?;
            Some((name.to_owned(), unquoted(value)?))
        });
        elements.push(pairs.collect::<Option<Element>>()?);
    }
    Some(elements)
}

/// The parts between separators that don't stand in quotes. None when quotes don't close.
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut parts, mut begin, mut quoted, mut escaped) = (vec![], 0, false, false);
    for (at, char) in text.char_indices() {
        match char {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if char == separator && !quoted => {
                parts.push(text[begin..at].trim());
                begin = at + char.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(text[begin..].trim());
    (!quoted).then_some(parts)
}

/// A value without its quotes. None when some stand within it, or what needs them has none.
fn unquoted(value: &str) -> Option<String> {
    let Some(inside) = value.strip_prefix('"') else {
        return (!value.contains(['"', '=', ',', ';'])).then(|| value.to_owned());
    };
    let inside = inside.strip_suffix('"')?;
    let (mut out, mut escaped) = (String::new(), false);
    for char in inside.chars() {
        match char {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return None,
            _ => {
                escaped = false;
                out.push(char);
            }
        }
    }
    (!escaped).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(headers: &[&str]) -> Result<Vec<String>, XfccError> {
        let headers: Vec<&[u8]> = headers.iter().map(|header| header.as_bytes()).collect();
        read(&headers).map(|names| names.iter().map(str::to_owned).collect())
    }

    #[test]
    fn what_the_nearest_proxy_wrote_counts() {
        let good = [
            (&["By=spiffe://a/proxy;Hash=00;URI=spiffe://a/x"][..], &["spiffe://a/x"][..]),
            (&["Hash=00;Subject=\"CN=a,O=\\\"b;URI=spiffe://evil\\\"\";URI=spiffe://a/x"], &["spiffe://a/x"]),
            (&["By=spiffe://a;URI=spiffe://evil,By=spiffe://a;URI=spiffe://a/x"], &["spiffe://a/x"]),
            (&["URI=spiffe://evil", "By=spiffe://a;URI=spiffe://a/x"], &["spiffe://a/x"]),
            (&["hash=00;uri=spiffe://a/x;dns=One;DNS=two"], &["spiffe://a/x", "one", "two"]),
            (&["Hash=00;URI=;DNS=one"], &["one"]),
            (&["By=a;By=b;Hash=00;URI=\"spiffe://a/x\""], &["spiffe://a/x"]),
        ];
        for (headers, expected) in good {
            assert_eq!(names(headers).unwrap(), expected, "{headers:?}");
        }
    }

    #[test]
    fn whatever_else_names_nobody() {
        let bad = [
            "",
            "URI",
            "URI=a;",
            "URI=a;;DNS=b",
            ",URI=a",
            "URI=a,",
            "URI=\"a",
            "URI=\"a\"b",
            "URI=a\"b\"",
            "URI=\"a\\\"",
            "Uri2=a",
            "URI=spiffe://a=b",
            "Hash=1;Hash=2;URI=a",
            "URI=a;URI=b",
            "URI=a;URI=a",
            "URI=a\0b",
            "URI=a b",
            "Hash=00",
            "Hash=00;URI=",
            "Hash=00;Subject=\"CN=a\"",
            "DNS=",
            "URI=é",
        ];
        for header in bad {
            assert!(names(&[header]).is_err(), "{header:?}: {:?}", names(&[header]));
        }
        assert!(names(&[]).is_err());
        assert!(names(&["nonsense", "URI=spiffe://a/x"]).is_err(), "any malformed part");
        assert!(names(&[&format!("URI={}", "a".repeat(MAX))]).is_err());
    }
}
