//! Paths of which one segment is a credential.

/// Maximum length, in bytes.
const MAX_LEN: usize = 2048;
/// Maximum number of segments. Headers that repeat a URL are searched for all of them.
const MAX_SEGMENTS: usize = 16;

/// Segments at the start of a path, of which one is the credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPath {
    text: String,
    segments: Vec<PathSegment>,
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathSegment {
    /// This text, compared with case after percent-decoding.
    Literal(String),
    /// Any segment that isn't empty.
    Any,
    /// The credential.
    Key,
}

impl KeyPath {
    /// Parses a path such as `/v2/{key}`.
    ///
    /// # Errors
    /// With the rule that it breaks.
    pub(super) fn parse(text: String) -> Result<Self, &'static str> {
        if text.len() > MAX_LEN {
            return Err("path must be 2048 bytes at most");
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err("path must start with /, as in /v2/{key}");
        };
        let segments: Vec<PathSegment> = rest.split('/').map(segment).collect::<Result<_, _>>()?;
        if segments.len() > MAX_SEGMENTS {
            return Err("path must be 16 segments at most");
        }
        match segments.iter().filter(|segment| **segment == PathSegment::Key).count() {
            1 => Ok(Self { segments, text }),
            _ => Err("path must have the segment {key} once, as in /v2/{key}"),
        }
    }

    /// Returns the path as written.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the segments.
    pub fn segments(&self) -> &[PathSegment] {
        &self.segments
    }

    /// Returns true if one path could match both.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.segments.iter().zip(&other.segments).all(|pair| match pair {
            (PathSegment::Literal(a), PathSegment::Literal(b)) => a == b,
            _ => true,
        })
    }
}

fn segment(text: &str) -> Result<PathSegment, &'static str> {
    if let Some(name) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        return match name {
            "key" => Ok(PathSegment::Key),
            _ if is_name => Ok(PathSegment::Any),
            _ => Err("path: a segment such as {name} is letters, digits and underscores in braces"),
        };
    }
    let is_special = |c: char| c.is_control() || "{}?#%;\\".contains(c);
    if text.is_empty() || matches!(text, "." | "..") || text.chars().any(is_special) {
        return Err("path: a segment is {key}, {name} or text without { } ? # % ; and \\, and never empty");
    }
    Ok(PathSegment::Literal(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<KeyPath, &'static str> {
        KeyPath::parse(text.to_owned())
    }

    #[test]
    fn one_segment_is_the_key() {
        use PathSegment::{Any, Key, Literal};
        let path = parsed("/v2/{network}/{key}/x y").unwrap();
        assert_eq!(path.segments(), [Literal("v2".to_owned()), Any, Key, Literal("x y".to_owned())]);
        assert_eq!(parsed("/{key}").unwrap().segments(), [Key]);
        for bad in [
            "",
            "/",
            "{key}",
            "/v2",
            "/{key}/",
            "//{key}",
            "/{key}/{key}",
            "/{Key}",
            "/{}",
            "/a{key}",
            "/{key}?x",
            "/./{key}",
            "/%76/{key}",
            "/a;b/{key}",
            "/{k-y}/{key}",
        ] {
            parsed(bad).unwrap_err();
        }
        parsed(&format!("/{{key}}/{}", "a".repeat(MAX_LEN))).unwrap_err();
        parsed(&format!("/{{key}}{}", "/a".repeat(MAX_SEGMENTS))).unwrap_err();
    }

    #[test]
    fn paths_overlap_if_one_request_matches_both() {
        for (a, b, overlap) in [
            ("/v2/{key}", "/v2/{key}", true),
            ("/v2/{key}", "/v3/{key}", false),
            ("/v2/{key}", "/v2/{key}/x", true),
            ("/v2/{key}", "/v2/x/{key}", true),
            ("/{key}", "/v2/{key}", true),
            ("/a/b/{key}", "/a/{x}/{key}", true),
            ("/a/b/{key}", "/a/c/{key}", false),
        ] {
            assert_eq!(parsed(a).unwrap().overlaps(&parsed(b).unwrap()), overlap, "{a} {b}");
        }
    }
}
