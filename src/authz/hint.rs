//! Advice in the body of a refusal: where a credential goes, and what was wrong with the one sent.
//!
//! Made only for denied requests. Says nothing that the request and the configuration of sources
//! don't say, and nothing about keys.

use super::client_mistake;
use super::deny_reason::DenyReason;
use super::request::{Headers, Malformed};
use super::sources::value_of;
use crate::config::{CredentialSource, HeaderForm, KeyIn};
use crate::key::verdict::Denial;

/// Returns the advice for a refusal; None where there is nothing to add to the message.
pub(super) fn hint(
    reason: &DenyReason,
    headers: &Headers<'_>,
    sources: &[CredentialSource],
) -> Option<String> {
    match reason {
        DenyReason::Missing => {
            let send = format!("send it as {}", list(sources.iter().map(form), "or"));
            Some(match without_scheme(headers, sources) {
                Some((name, scheme)) => {
                    format!("the header {name} was sent without the scheme {scheme}; {send}")
                }
                None => send,
            })
        }
        DenyReason::Malformed(Malformed::Ambiguous) => {
            let carriers = sources.iter().filter(|source| !matches!(value_of(headers, source), Ok(None)));
            let mut places: Vec<String> = carriers.map(place).collect();
            places.dedup();
            Some(match places.as_slice() {
                [] => "send one".to_owned(),
                [one] => format!("{one} has more than one: send one"),
                _ => format!("in {}: send one of them", list(places.iter().cloned(), "and in")),
            })
        }
        DenyReason::Denied(Denial::AddressNotAllowed) => None,
        DenyReason::Denied(_) => {
            let presented = sources.iter().find_map(|source| value_of(headers, source).ok().flatten())?;
            client_mistake::find(&presented).map(str::to_owned)
        }
        _ => None,
    }
}

/// The form in which a source takes a key.
fn form(source: &CredentialSource) -> String {
    match source {
        CredentialSource::Header { name, form } => match form {
            HeaderForm::Bare => format!("`{name}: KEY`"),
            HeaderForm::Scheme(scheme) | HeaderForm::OptionalScheme(scheme) => {
                format!("`{name}: {scheme} KEY`")
            }
            HeaderForm::Basic(KeyIn::User) => format!("the user name of `{name}: Basic`"),
            HeaderForm::Basic(KeyIn::Password) => format!("the password of `{name}: Basic`"),
            HeaderForm::Basic(KeyIn::Either) => format!("the user name or the password of `{name}: Basic`"),
        },
        CredentialSource::Query { name } => format!("the query parameter `{name}=KEY`"),
        CredentialSource::Cookie { name } => format!("the cookie `{name}=KEY`"),
        CredentialSource::Path(_) => "a part of the path".to_owned(),
        CredentialSource::WebsocketProtocol { marker } => format!("`sec-websocket-protocol: {marker}, KEY`"),
    }
}

/// The place that a source reads.
fn place(source: &CredentialSource) -> String {
    match source {
        CredentialSource::Header { name, .. } => format!("the header `{name}`"),
        CredentialSource::Query { name } => format!("the query parameter `{name}`"),
        CredentialSource::Cookie { name } => format!("the cookie `{name}`"),
        CredentialSource::Path(_) => "the path".to_owned(),
        CredentialSource::WebsocketProtocol { .. } => "the header `sec-websocket-protocol`".to_owned(),
    }
}

/// Header and scheme of a source whose header was sent with one word instead of two.
fn without_scheme<'a>(headers: &Headers<'_>, sources: &'a [CredentialSource]) -> Option<(&'a str, &'a str)> {
    sources.iter().find_map(|source| {
        let CredentialSource::Header { name, form: HeaderForm::Scheme(scheme) } = source else {
            return None;
        };
        let is_one_word = |value: &[u8]| {
            let value = value.trim_ascii();
            let is_scheme = value.eq_ignore_ascii_case(scheme.as_bytes());
            !value.is_empty() && !is_scheme && !value.contains(&b' ') && !value.contains(&b'\t')
        };
        headers.values(name).any(is_one_word).then_some((name.as_str(), scheme.as_str()))
    })
}

/// Joins texts by commas, and the last one by `word`.
fn list(texts: impl Iterator<Item = String>, word: &str) -> String {
    let mut texts: Vec<String> = texts.collect();
    match texts.pop() {
        None => String::new(),
        Some(last) if texts.is_empty() => last,
        Some(last) => format!("{} {word} {last}", texts.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::request::tests::both_forms;

    #[test]
    fn advice_names_places_and_never_a_credential() {
        let header = |name: &str, scheme: Option<&str>| CredentialSource::Header {
            name: name.into(),
            form: scheme.map_or(HeaderForm::Bare, |scheme| HeaderForm::Scheme(scheme.into())),
        };
        let sources = [
            header("authorization", Some("Bearer")),
            header("x-api-key", None),
            CredentialSource::Query { name: "key".into() },
            CredentialSource::Cookie { name: "key".into() },
        ];
        let send = "send it as `authorization: Bearer KEY`, `x-api-key: KEY`, the query parameter `key=KEY` or the cookie \
                    `key=KEY`";
        let bare = format!("the header authorization was sent without the scheme Bearer; {send}");
        let missing = DenyReason::Missing;
        let ambiguous = DenyReason::Malformed(Malformed::Ambiguous);
        let unknown = DenyReason::Denied(Denial::NotFound);
        let unset = "it is what a program writes for a variable that isn't set";
        type Lines = &'static [(&'static str, &'static str)];
        let table: [(&DenyReason, &str, Lines, &str); 8] = [
            (&missing, "/", &[], send),
            (&missing, "/", &[("authorization", "Basic c2VjcmV0")], send),
            (&missing, "/", &[("authorization", "s3cr3t")], &bare),
            (&unknown, "/", &[("x-api-key", "undefined")], unset),
            (&unknown, "/?key=%22s3cr3t%22", &[], "it has quotes around it: leave them out"),
            (
                &ambiguous,
                "/",
                &[("authorization", "Bearer s3cr3t"), ("x-api-key", "s3cr3t2")],
                "in the header `authorization` and in the header `x-api-key`: send one of them",
            ),
            (
                &ambiguous,
                "/?key=s3cr3t",
                &[("cookie", "key=other")],
                "in the query parameter `key` and in the cookie `key`: send one of them",
            ),
            (&ambiguous, "/?key=s3cr3t&key=b", &[], "the query parameter `key` has more than one: send one"),
        ];
        for (reason, path, lines, expected) in table {
            for attributes in both_forms(path, lines) {
                let hint = hint(reason, &Headers::of(&attributes), &sources);
                assert_eq!(hint.as_deref(), Some(expected), "{path} {lines:?}");
                assert!(!expected.contains("s3cr3t"));
            }
        }
        let [plain, _] = both_forms("/", &[("x-api-key", "s3cr3t")]);
        assert_eq!(hint(&unknown, &Headers::of(&plain), &sources), None);
        let [unset, _] = both_forms("/", &[("x-api-key", "null")]);
        let elsewhere = DenyReason::Denied(Denial::AddressNotAllowed);
        assert_eq!(hint(&elsewhere, &Headers::of(&unset), &sources), None);
    }
}
