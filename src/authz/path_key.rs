//! Credentials in a segment of the path.

use std::borrow::Cow;

use super::query;
use crate::config::{CredentialSource, KeyPath, PathSegment};

/// The credential's segment of a request target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeySegment<'a> {
    /// The path before the `/` of the segment.
    before: &'a [u8],
    /// The segment as written.
    pub written: &'a [u8],
    /// The rest, with query and fragment.
    after: &'a [u8],
}

impl<'a> KeySegment<'a> {
    /// Finds the credential's segment in a target, which begins with the path. None if the target
    /// has another path, or the segment is empty.
    pub(super) fn find(target: &'a [u8], path: &KeyPath) -> Option<Self> {
        let mut at = 0;
        let mut found = None;
        for expected in path.segments() {
            if target.get(at) != Some(&b'/') {
                return None;
            }
            let start = at + 1;
            let rest = &target[start..];
            at = start + rest.iter().position(|byte| is_end(*byte)).unwrap_or(rest.len());
            let written = &target[start..at];
            let fits = match expected {
                PathSegment::Literal(text) => query::decodes_to(written, text.as_bytes()),
                PathSegment::Any => !written.is_empty(),
                PathSegment::Key => {
                    found = Some(Self { before: &target[..start - 1], written, after: &target[at..] });
                    !query::is_blank_segment(written)
                }
            };
            if !fits {
                return None;
            }
        }
        found
    }

    /// Finds the segment of any source.
    pub(super) fn of_sources(target: &'a [u8], sources: &[CredentialSource]) -> Option<Self> {
        paths(sources).find_map(|path| Self::find(target, path))
    }

    /// Returns the target without the segment.
    pub(super) fn removed(&self) -> Vec<u8> {
        let slash: &[u8] = if self.before.is_empty() && !self.after.starts_with(b"/") { b"/" } else { b"" };
        [self.before, slash, self.after].concat()
    }

    /// Returns whether another segment of the path is the same text.
    pub(super) fn is_repeated(&self) -> bool {
        let end = self.after.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(self.after.len());
        let mut others =
            [self.before, &self.after[..end]].into_iter().flat_map(|part| part.split(|b| *b == b'/'));
        others.any(|other| other == self.written)
    }
}

/// Returns whether a byte ends a segment.
const fn is_end(byte: u8) -> bool {
    matches!(byte, b'/' | b'?' | b'#')
}

fn paths(sources: &[CredentialSource]) -> impl Iterator<Item = &KeyPath> {
    sources.iter().filter_map(|source| match source {
        CredentialSource::Path(path) => Some(path),
        _ => None,
    })
}

/// Returns the target that goes upstream: without the credential's segment.
pub(super) fn upstream_target<'a>(target: &'a [u8], sources: &[CredentialSource]) -> Cow<'a, [u8]> {
    match KeySegment::of_sources(target, sources) {
        Some(segment) => Cow::Owned(segment.removed()),
        None => Cow::Borrowed(target),
    }
}

/// Returns the position of the path in a URL, which may be a path alone.
pub(super) fn start_of_path(url: &[u8]) -> usize {
    let Some(first) = url.iter().position(|byte| is_end(*byte)) else { return url.len() };
    let has_scheme = first > 0 && url[first - 1] == b':' && url[first..].starts_with(b"//");
    match has_scheme {
        true => {
            let authority = &url[first + 2..];
            first + 2 + authority.iter().position(|byte| is_end(*byte)).unwrap_or(authority.len())
        }
        false => first,
    }
}

/// Removes the credential's segment from a URL. None if it has none.
pub(super) fn without(url: &[u8], sources: &[CredentialSource]) -> Option<Vec<u8>> {
    let (before, target) = url.split_at(start_of_path(url));
    let segment = KeySegment::of_sources(target, sources)?;
    Some([before, &segment.removed()].concat())
}

/// Returns whether a text contains a path with a credential anywhere.
pub(super) fn mentions(text: &[u8], sources: &[CredentialSource]) -> bool {
    let mut slashes = text.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    slashes.any(|at| KeySegment::of_sources(&text[at..], sources).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert, proptest};

    fn source(path: &str) -> CredentialSource {
        serde_json::from_value(serde_json::json!({ "path": path })).unwrap()
    }

    #[test]
    fn the_segment_is_found_and_taken_out() {
        for (path, target, key, rest) in [
            ("/v2/{key}", "/v2/K", Some("K"), "/v2"),
            ("/v2/{key}", "/v2/K/", Some("K"), "/v2/"),
            ("/v2/{key}", "/v2/K/a/b?c=/d#e", Some("K"), "/v2/a/b?c=/d#e"),
            ("/v2/{key}", "/%762/K", Some("K"), "/%762"),
            ("/v2/{key}", "/v2/K%2Fx;y", Some("K%2Fx;y"), "/v2"),
            ("/{key}", "/K?a", Some("K"), "/?a"),
            ("/{key}", "/K", Some("K"), "/"),
            ("/{key}", "/K/a", Some("K"), "/a"),
            ("/{net}/{key}/hooks", "/main/K/hooks", Some("K"), "/main/hooks"),
            ("/{net}/{key}/hooks", "/main/K/hooks/1", Some("K"), "/main/hooks/1"),
            ("/{net}/{key}/hooks", "/main/K/hook", None, ""),
            ("/{net}/{key}/hooks", "//K/hooks", None, ""),
            ("/v2/{key}", "/v2", None, ""),
            ("/v2/{key}", "/v2/", None, ""),
            ("/v2/{key}", "/v2//a", None, ""),
            ("/v2/{key}", "/v2/%20/a", None, ""),
            ("/v2/{key}", "/v2/?a", None, ""),
            ("/v2/{key}", "/V2/K", None, ""),
            ("/v2/{key}", "/v2x/K", None, ""),
            ("/v2/{key}", "/%7z/K", None, ""),
            ("/v2/{key}", "v2/K", None, ""),
            ("/v2/{key}", "*", None, ""),
            ("/v2/{key}", "", None, ""),
        ] {
            let sources = [source(path)];
            let segment = KeySegment::of_sources(target.as_bytes(), &sources);
            assert_eq!(segment.map(|segment| segment.written), key.map(str::as_bytes), "{target}");
            if let Some(segment) = segment {
                assert_eq!(String::from_utf8_lossy(&segment.removed()), rest, "{target}");
            }
        }
    }

    #[test]
    fn urls_that_repeat_the_path_are_seen() {
        let sources = [source("/v2/{key}")];
        for (url, rest, mentioned) in [
            ("https://edge/v2/K/page?a=1", Some("https://edge/v2/page?a=1"), true),
            ("/v2/K", Some("/v2"), true),
            ("https://edge/v2", None, false),
            ("https://edge/page?next=/v2/K", None, true),
            ("https://edge?x=/v2/K", None, true),
            ("/v2/K?x=https://edge/a", Some("/v2?x=https://edge/a"), true),
            ("//v2/K", None, true),
            ("https://edge/a/v2/K", None, true),
            ("https://edge", None, false),
            ("", None, false),
        ] {
            let left = without(url.as_bytes(), &sources);
            assert_eq!(left.as_deref(), rest.map(str::as_bytes), "{url}");
            assert_eq!(mentions(url.as_bytes(), &sources), mentioned, "{url}");
        }
    }

    proptest! {
        #[test]
        fn a_target_stays_a_target(target in "/[a-c/%2v?#.]{0,20}") {
            for path in ["/{key}", "/v2/{key}", "/{a}/{key}/b"] {
                let left = upstream_target(target.as_bytes(), &[source(path)]).into_owned();
                prop_assert!(left.starts_with(b"/"), "{}", String::from_utf8_lossy(&left));
            }
        }
    }
}
