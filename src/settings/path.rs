//! Normalizes the path of a request for route policies, or refuses it as ambiguous.

use std::borrow::Cow;

/// A path that servers may interpret in different ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the path is ambiguous: servers may interpret it in different ways")]
pub struct AmbiguousPath;

/// Decodes the path of a request target, without query and fragment. None for a request without a
/// path.
///
/// # Errors
/// When the path is ambiguous: it has an empty or a dot segment, `;`, `\`, NUL, an encoded `/`, `\`
/// or `.`, an overlong form of a character, or a malformed `%`, or it is missing where there must
/// be one.
pub fn normal_path<'a>(target: &'a [u8], method: &[u8]) -> Result<Option<Cow<'a, [u8]>>, AmbiguousPath> {
    let end = target.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(target.len());
    let path = match &target[..end] {
        b"*" => return Ok(None),
        b"" if method == b"CONNECT" => return Ok(None),
        path if path.starts_with(b"/") => path,
        path => after_authority(path).ok_or(AmbiguousPath)?,
    };
    let path = decode(path)?;
    if !path.is_ascii() && has_overlong(&path) {
        return Err(AmbiguousPath);
    }
    let mut segments = path[1..].split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        if (segment.is_empty() && !is_last) || matches!(segment, b"." | b"..") {
            return Err(AmbiguousPath);
        }
    }
    Ok(Some(path))
}

/// Path of a target in absolute form, `scheme://authority/path`.
fn after_authority(target: &[u8]) -> Option<&[u8]> {
    let colon = target.iter().position(|byte| *byte == b':')?;
    let (scheme, rest) = target.split_at(colon);
    let is_scheme = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    let rest = rest.strip_prefix(b"://").filter(|_| is_scheme)?;
    let authority = rest.iter().position(|byte| matches!(byte, b'/' | b'\\')).unwrap_or(rest.len());
    match &rest[authority..] {
        b"" => Some(b"/"),
        path => path.starts_with(b"/").then_some(path),
    }
}

fn decode(path: &[u8]) -> Result<Cow<'_, [u8]>, AmbiguousPath> {
    if path.iter().any(|byte| is_ambiguous(*byte)) {
        return Err(AmbiguousPath);
    }
    if !path.contains(&b'%') {
        return Ok(Cow::Borrowed(path));
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            decoded.push(*first);
            continue;
        }
        let (digits, after) = after.split_at_checked(2).ok_or(AmbiguousPath)?;
        let byte = hex_byte(digits).filter(|byte| !is_ambiguous(*byte) && !matches!(byte, b'/' | b'.'));
        decoded.push(byte.ok_or(AmbiguousPath)?);
        rest = after;
    }
    Ok(Cow::Owned(decoded))
}

/// Returns true if a text has a character in more bytes than UTF-8 allows, such as `%C0%AF` for a
/// slash. Lenient servers decode it.
fn has_overlong(path: &[u8]) -> bool {
    let is_overlong =
        |pair: &[u8]| matches!(pair, [0xc0 | 0xc1, 0x80..=0xbf] | [0xe0, 0x80..=0x9f] | [0xf0, 0x80..=0x8f]);
    path.windows(2).any(is_overlong)
}

const fn is_ambiguous(byte: u8) -> bool {
    matches!(byte, b';' | b'\\' | 0)
}

/// Byte of two hexadecimal digits.
pub fn hex_byte(digits: &[u8]) -> Option<u8> {
    let &[high, low] = digits else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_spelling_or_is_refused() {
        let good: [(&str, &str, Option<&str>); 17] = [
            ("GET", "/", Some("/")),
            ("GET", "/a/b", Some("/a/b")),
            ("GET", "/a/", Some("/a/")),
            ("GET", "/a?b=/../c", Some("/a")),
            ("GET", "/a#/../c?d", Some("/a")),
            ("GET", "/a%20b", Some("/a b")),
            ("GET", "/%61%C3%A4", Some("/aä")),
            ("GET", "/%E0%A0%80%F0%90%80%80%DF%BF", Some("/\u{800}\u{10000}\u{7ff}")),
            ("GET", "/a%252fb", Some("/a%2fb")),
            ("GET", "/a%3fb%23", Some("/a?b#")),
            ("GET", "/.../a..b/.c", Some("/.../a..b/.c")),
            ("GET", "/A:b@c,d=e&f", Some("/A:b@c,d=e&f")),
            ("GET", "http://host/a?b", Some("/a")),
            ("GET", "HTTPS://u@host:1", Some("/")),
            ("GET", "http://host?a", Some("/")),
            ("OPTIONS", "*", None),
            ("CONNECT", "", None),
        ];
        for (method, target, expected) in good {
            let path = normal_path(target.as_bytes(), method.as_bytes());
            assert_eq!(
                path.as_ref().map(|path| path.as_deref()),
                Ok(expected.map(str::as_bytes)),
                "{target}"
            );
        }
        for target in [
            "",
            "a",
            "?a",
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/.",
            "/..",
            "/./a",
            "/a/..",
            "/a/../b",
            "/%2e",
            "/a%2Eb",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a%5Cb",
            "/a\\b",
            "/a;b",
            "/a%3bb",
            "/a%00",
            "/a\0",
            "/a%",
            "/a%4",
            "/a%zz",
            "/a%4g",
            "/a%c0%afb",
            "/%C0%AE%C0%AE/b",
            "/a%c1%9cb",
            "/a%E0%80%AFb",
            "/a%f0%80%80%afb",
            "/a%%20",
            "http:/a",
            "http:a",
            "1http://a/b",
            "http://h//a",
            "http://h\\a",
            "://a/b",
        ] {
            assert_eq!(normal_path(target.as_bytes(), b"GET"), Err(AmbiguousPath), "{target}");
        }
        assert_eq!(normal_path(b"/a\xc0\xafb", b"GET"), Err(AmbiguousPath));
        // Latin-1.
        assert_eq!(normal_path(b"/a%C0b\xe9", b"GET"), Ok(Some(Cow::Borrowed(&b"/a\xc0b\xe9"[..]))));
    }
}
