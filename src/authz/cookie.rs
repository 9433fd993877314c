//! Cookies of a request: values of one cookie, and the header without it.

/// Name of the header.
pub(super) const COOKIE: &str = "cookie";

/// Splits a header line into cookies, each with the separator before it.
///
/// In a line that Envoy may have joined from several (`joined`), a comma is a separator as well.
fn cookies(line: &[u8], joined: bool) -> impl Iterator<Item = (u8, &[u8])> {
    let mut separator = b';';
    line.split_inclusive(move |byte| is_separator(*byte, joined)).map(move |cookie| {
        let before = separator;
        match cookie.split_last() {
            Some((last, cookie)) if is_separator(*last, joined) => {
                separator = *last;
                (before, cookie)
            }
            _ => (before, cookie),
        }
    })
}

const fn is_separator(byte: u8, joined: bool) -> bool {
    byte == b';' || (joined && byte == b',')
}

/// Returns the value if this is the cookie `name`, without quotes and white space around it.
fn value_of_cookie<'a>(cookie: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let at = cookie.iter().position(|byte| *byte == b'=')?;
    let (written, value) = (cookie[..at].trim_ascii(), cookie[at + 1..].trim_ascii());
    let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    (written == name.as_bytes()).then(|| quoted.unwrap_or(value).trim_ascii())
}

/// Returns the values of the cookie `name` in a header line.
pub(super) fn values<'a>(line: &'a [u8], joined: bool, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    cookies(line, joined).filter_map(move |(_, cookie)| value_of_cookie(cookie, name))
}

/// Returns the names of the cookies in a header line whose values fulfil a condition.
pub(super) fn names_with(
    line: &[u8],
    joined: bool,
    condition: impl Fn(&[u8]) -> bool,
) -> impl Iterator<Item = &str> {
    cookies(line, joined).filter_map(move |(_, cookie)| {
        let at = cookie.iter().position(|byte| *byte == b'=')?;
        let name = std::str::from_utf8(cookie[..at].trim_ascii()).ok()?;
        condition(&cookie[at + 1..]).then_some(name)
    })
}

/// Returns the name of a cookie. None if it has none, as it lacks a `=`.
fn name_of_cookie(cookie: &[u8]) -> Option<&[u8]> {
    let at = cookie.iter().position(|byte| *byte == b'=')?;
    Some(cookie[..at].trim_ascii())
}

/// Joins the cookies of all `lines` into one header line, except those whose names `is_removed`.
/// May be empty. Asks once about each cookie that has a name.
pub(super) fn without<'a>(
    lines: impl Iterator<Item = &'a [u8]>,
    joined: bool,
    is_removed: impl Fn(&[u8]) -> bool,
) -> Vec<u8> {
    let mut rest = Vec::new();
    for (separator, cookie) in lines.flat_map(|line| cookies(line, joined)) {
        if name_of_cookie(cookie).is_some_and(&is_removed) {
            continue;
        }
        // The comma may be part of a value, so white space around it stays.
        let kept = if separator == b',' { cookie } else { cookie.trim_ascii() };
        if kept.trim_ascii().is_empty() {
            continue;
        }
        if !rest.is_empty() {
            rest.extend_from_slice(if separator == b',' { b"," } else { b"; " });
        }
        rest.extend_from_slice(kept);
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
    use std::cell::Cell;

    #[test]
    fn a_cookie_is_found_and_taken_out() {
        type Row = (&'static [&'static str], bool, &'static [&'static str], &'static str);
        let table: [Row; 17] = [
            (&[], false, &[], ""),
            (&["key=a"], false, &["a"], ""),
            (&["key=a; x=1"], false, &["a"], "x=1"),
            (&["x=1; key=a"], false, &["a"], "x=1"),
            (&["x=1;key=a;y=2"], false, &["a"], "x=1; y=2"),
            (&["x=1", "key=a; y=2"], false, &["a"], "x=1; y=2"),
            (&["key=a; key=b"], false, &["a", "b"], ""),
            (&["key=a", "key=a"], false, &["a", "a"], ""),
            (&[" key = \"a\" ;x"], false, &["a"], "x"),
            (&["Key=a; keys=a; xkey=a"], false, &[], "Key=a; keys=a; xkey=a"),
            (&["key"], false, &[], "key"),
            (&["key="], false, &[""], ""),
            (&["x=1,key=a"], false, &[], "x=1,key=a"),
            (&["x=1,key=a"], true, &["a"], "x=1"),
            (&["key=a,key=b"], true, &["a", "b"], ""),
            (&["x=1, 2; key=a;; y=3"], true, &["a"], "x=1, 2; y=3"),
            (&["x=key=a; y==key"], false, &[], "x=key=a; y==key"),
        ];
        for (lines, joined, expected, rest) in table {
            let found: Vec<_> =
                lines.iter().flat_map(|line| values(line.as_bytes(), joined, "key")).collect();
            assert_eq!(found, expected.iter().map(|value| value.as_bytes()).collect::<Vec<_>>(), "{lines:?}");
            let lines = lines.iter().map(|line| line.as_bytes());
            let left = without(lines.clone(), joined, |name| name == b"key");
            assert_eq!(String::from_utf8_lossy(&left), rest, "{lines:?}");
        }
    }

    #[test]
    fn one_question_is_asked_about_each_of_many_cookies() {
        let line = |first: usize| -> String {
            (first..first + 5_000).map(|n| format!("c{n}=secret; d{n}; ")).collect()
        };
        let (lines, asked) = ([line(0), line(5_000)], Cell::new(0));
        let left = without(lines.iter().map(|line| line.as_bytes()), false, |name| {
            asked.set(asked.get() + 1);
            name.ends_with(b"7")
        });
        assert_eq!(asked.get(), 10_000);
        assert_eq!(names_with(&left, false, |value| value == b"secret").count(), 9_000);
        assert!(values(&left, false, "c17").next().is_none() && values(&left, false, "c18").next().is_some());
    }

    proptest! {
        #[test]
        fn what_is_taken_out_is_gone(lines: Vec<Vec<u8>>, joined in any::<bool>()) {
            let left = without(lines.iter().map(Vec::as_slice), joined, |name| name == b"a" || name == b"b");
            for name in ["a", "b"] {
                prop_assert!(values(&left, joined, name).next().is_none());
            }
        }

        #[test]
        fn other_cookies_stay(lines in proptest::collection::vec("[ab=;, \"]{0,12}", 0..4), joined in any::<bool>()) {
            let read = |line: &[u8], name: &str| -> Vec<Vec<u8>> {
                values(line, joined, name).map(<[u8]>::to_vec).collect()
            };
            let before: Vec<_> = lines.iter().flat_map(|line| read(line.as_bytes(), "b")).collect();
            let left = without(lines.iter().map(|line| line.as_bytes()), joined, |name| name == b"a");
            prop_assert!(read(&left, "b") == before);
        }

        #[test]
        fn what_is_taken_out_by_name_is_what_has_a_value(cookie in "[ab=; \"]{0,12}") {
            let has_value = value_of_cookie(cookie.as_bytes(), "a").is_some();
            let has_name = name_of_cookie(cookie.as_bytes()).is_some_and(|name| name == b"a");
            prop_assert_eq!(has_name, has_value);
        }
    }
}
