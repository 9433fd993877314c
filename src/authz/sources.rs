//! Extraction of the credential from the configured sources.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use super::path_key::KeySegment;
use super::request::{Headers, Malformed};
use super::subprotocol::{self, SEC_WEBSOCKET_PROTOCOL};
use super::{basic, cookie, query};
use crate::config::{CredentialSource, HeaderForm};
use crate::credential::Presented;

/// Credential of a request. Has no Debug: its text is never printed.
pub(super) struct PresentedCredential<'a> {
    text: Cow<'a, str>,
    sources: &'a [CredentialSource],
    /// Bit set of the `sources` that carry it.
    carriers: u32,
}

impl<'a> PresentedCredential<'a> {
    /// Extracts the credential. Returns `None` if no source has one; an empty one counts as absent.
    ///
    /// # Errors
    /// Fails if there are two different credentials, or it is not UTF-8.
    pub(super) fn find(
        headers: &Headers<'a>,
        sources: &'a [CredentialSource],
    ) -> Result<Option<Self>, Malformed> {
        let mut presented: Option<Self> = None;
        for (index, source) in sources.iter().enumerate() {
            let Some(text) = value_of(headers, source)? else {
                continue;
            };
            // The configuration allows at most 32 sources.
            let carrier = 1_u32 << index;
            match &mut presented {
                None => presented = Some(Self { text, sources, carriers: carrier }),
                Some(presented) if presented.text == text => presented.carriers |= carrier,
                Some(_) => return Err(Malformed::Ambiguous),
            }
        }
        Ok(presented)
    }

    /// Returns the credential.
    ///
    /// # Errors
    /// Fails if it is too long.
    pub(super) fn credential(&self) -> Result<Presented<'_>, Malformed> {
        Presented::new(&self.text).ok_or(Malformed::Unreadable)
    }

    /// Returns the credential as text, however long it is.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Returns the sources that carry it.
    pub(super) fn carriers(&self) -> impl Iterator<Item = &'a CredentialSource> + Clone {
        let carriers = self.carriers;
        let presented = move |(index, source)| (carriers & 1_u32 << index != 0).then_some(source);
        self.sources.iter().enumerate().filter_map(presented)
    }
}

/// Returns the value of one source, `None` if it has none.
///
/// # Errors
/// Fails if there is more than one, or it is not UTF-8.
pub(super) fn value_of<'a>(
    headers: &Headers<'a>,
    source: &'a CredentialSource,
) -> Result<Option<Cow<'a, str>>, Malformed> {
    match source {
        CredentialSource::Header { name, form } => {
            let Some(value) = header_value(headers, name, form)? else { return Ok(None) };
            match form {
                HeaderForm::Basic(key_in) => Ok(basic::key(value, *key_in)?.map(Cow::Owned)),
                _ => utf8(value).map(|text| Some(Cow::Borrowed(text))),
            }
        }
        CredentialSource::Query { name } => {
            let found = query::parameters(query::of_path(headers.path()), name).map(|(_, value)| value);
            at_most_one(found.filter(|value| !query::is_blank(value)))?.map(query::decode).transpose()
        }
        CredentialSource::Cookie { name } => {
            let joined = headers.are_joined();
            let found = headers.values(cookie::COOKIE).flat_map(|line| cookie::values(line, joined, name));
            at_most_one(found.filter(|value| !query::is_blank_segment(value)))?.map(cookie_text).transpose()
        }
        CredentialSource::Path(path) => {
            let Some(segment) = KeySegment::find(headers.path(), path) else { return Ok(None) };
            if segment.is_repeated() {
                return Err(Malformed::Ambiguous);
            }
            query::percent_decode(segment.written).map(Some)
        }
        CredentialSource::WebsocketProtocol { marker } => {
            let found = subprotocol::key_after(headers.values(SEC_WEBSOCKET_PROTOCOL), marker)?;
            found.map(|value| utf8(value).map(Cow::Borrowed)).transpose()
        }
    }
}

/// Returns the only credential of a header, as written after its scheme.
fn header_value<'a>(
    headers: &Headers<'a>,
    name: &str,
    form: &HeaderForm,
) -> Result<Option<&'a [u8]>, Malformed> {
    // A comma may stem from a second line: always in the map, and in raw lines for headers such as
    // `authorization`, which Envoy itself joins.
    let may_be_joined = headers.are_joined() || form.scheme().is_some();
    let mut found = None;
    for line in headers.values(name) {
        let line = line.trim_ascii();
        let value = match may_be_joined && line.contains(&b',') {
            true => only_credential(line, form)?,
            false => after_scheme(line, form),
        };
        if value.is_some() && std::mem::replace(&mut found, value).is_some() {
            return Err(Malformed::Ambiguous);
        }
    }
    Ok(found)
}

/// Returns the only credential among joined lines. Empty ones don't count.
fn only_credential<'a>(line: &'a [u8], form: &HeaderForm) -> Result<Option<&'a [u8]>, Malformed> {
    let is_empty = |value: &[u8]| {
        value.is_empty() || form.scheme().is_some_and(|scheme| value.eq_ignore_ascii_case(scheme.as_bytes()))
    };
    let mut values =
        line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|value| !is_empty(value));
    let Some(first) = values.next() else { return Ok(None) };
    let Some(second) = values.next() else { return Ok(after_scheme(first, form)) };
    // Further values may be parameters of another scheme, unless they have the scheme.
    let has_scheme = |value: &[u8]| form.scheme().is_some_and(|scheme| strip_scheme(value, scheme).is_some());
    let is_double = after_scheme(first, form).is_some() || has_scheme(second) || values.any(has_scheme);
    if is_double { Err(Malformed::Ambiguous) } else { Ok(None) }
}

/// Returns the credential in a header's value. `None` if it is empty or has another scheme.
fn after_scheme<'a>(value: &'a [u8], form: &HeaderForm) -> Option<&'a [u8]> {
    let credential = match form {
        HeaderForm::Bare => value,
        HeaderForm::Scheme(scheme) => strip_scheme(value, scheme)?,
        HeaderForm::Basic(_) => strip_scheme(value, "Basic")?,
        HeaderForm::OptionalScheme(scheme) => match strip_scheme(value, scheme) {
            Some(credential) => credential,
            // The first of several words is a scheme.
            None if value.iter().any(u8::is_ascii_whitespace) => return None,
            None => value,
        },
    };
    // Some clients quote a variable that is unset.
    (!matches!(credential, b"" | b"\"\"" | b"''")).then_some(credential)
}

/// Decodes the value of a cookie: scripts percent-encode it, other clients don't.
fn cookie_text(value: &[u8]) -> Result<Cow<'_, str>, Malformed> {
    query::percent_decode(value).or_else(|_| utf8(value).map(Cow::Borrowed))
}

/// Returns the only value, `None` if there is none.
fn at_most_one<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Result<Option<&'a [u8]>, Malformed> {
    let first = values.next();
    match first.and_then(|_| values.next()) {
        Some(_) => Err(Malformed::Ambiguous),
        None => Ok(first),
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed::Unreadable)
}

/// Returns what follows `scheme` and white space, `None` if the header has another scheme.
fn strip_scheme<'a>(value: &'a [u8], scheme: &str) -> Option<&'a [u8]> {
    let (word, rest) = value.split_at_checked(scheme.len())?;
    let spaced = rest.first().is_none_or(|byte| matches!(byte, b' ' | b'\t'));
    (word.eq_ignore_ascii_case(scheme.as_bytes()) && spaced).then(|| rest.trim_ascii())
}
