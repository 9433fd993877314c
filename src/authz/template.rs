//! The operator's templates for denied responses (`authz.denied_template_file`).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::request::Headers;

/// Maximum size of the file, in bytes.
pub const MAX_FILE: usize = 256 * 1024;
/// Maximum number of entries, and of headers in one.
const MAX_RESPONSES: usize = 64;
const MAX_HEADERS: usize = 16;
/// Maximum length of a body and of a header value, in bytes.
const MAX_BODY: usize = 16 * 1024;
const MAX_VALUE: usize = 1024;

/// Headers that Envoy or Talos sets.
const RESERVED_HEADERS: [&str; 10] = [
    "connection",
    "content-length",
    "content-type",
    "grpc-message",
    "grpc-status",
    "host",
    "proxy-authenticate",
    "retry-after",
    "transfer-encoding",
    "www-authenticate",
];

/// Form of the file, for the errors of one that has another.
const FORM: &str = "must be a mapping with the list responses, each with content_type and body, maybe \
                    statuses, accept and headers";

/// Error in a template file: the place and what is allowed there. Never quotes the file, as another
/// one may have been named by mistake, such as that of a private key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(String);

/// Templates, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Templates(Vec<Template>);

/// Template of one response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Statuses for which it is used. Empty means any.
    statuses: Vec<u16>,
    accept: Option<String>,
    content_type: String,
    headers: BTreeMap<String, String>,
    escape: Escape,
    pieces: Vec<Piece>,
}

/// Values for the placeholders.
pub struct Values<'a> {
    /// HTTP status.
    pub status: u16,
    /// Reason phrase of the status.
    pub title: &'a str,
    /// Message for people.
    pub message: &'a str,
    /// Reason for programs.
    pub reason: &'a str,
    /// Scopes that the route needs, if a missing one is the reason.
    pub scopes: &'a str,
    /// Advice for the client; empty where the message says all.
    pub hint: &'a str,
    /// `x-request-id`. Clients may make it up.
    pub request_id: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    Html,
    Json,
    None,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Status,
    Title,
    Message,
    Reason,
    Scopes,
    Hint,
    RequestId,
}

/// The template file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping with the list responses")]
struct TemplateFile {
    responses: Vec<TemplateEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping with at least content_type and body")]
struct TemplateEntry {
    #[serde(default)]
    statuses: Vec<u16>,
    #[serde(default)]
    accept: Option<String>,
    content_type: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: String,
}

impl Templates {
    /// Parses a file.
    ///
    /// # Errors
    /// Fails if the file is invalid.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.len() > MAX_FILE {
            return Err(TemplateError(format!("must be {MAX_FILE} bytes at most")));
        }
        let file: TemplateFile =
            serde_norway::from_str(text).map_err(|error| TemplateError(describe(text, &error)))?;
        if file.responses.len() > MAX_RESPONSES {
            return Err(TemplateError(format!("responses: must be {MAX_RESPONSES} at most")));
        }
        let read = |(index, response): (usize, TemplateEntry)| {
            Template::new(response).map_err(|problem| TemplateError(format!("responses[{index}].{problem}")))
        };
        file.responses.into_iter().enumerate().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Returns the first template for this status and client.
    pub fn find(&self, status: u16, headers: &Headers<'_>) -> Option<&Template> {
        self.0.iter().find(|template| {
            (template.statuses.is_empty() || template.statuses.contains(&status))
                && template.accept.as_ref().is_none_or(|accept| headers.prefers(accept))
        })
    }
}

impl Template {
    fn new(response: TemplateEntry) -> Result<Self, String> {
        let TemplateEntry { statuses, accept, content_type, headers, body } = response;
        if statuses.iter().any(|status| !(400..=599).contains(status)) {
            return Err("statuses: must be from 400 to 599".to_owned());
        }
        let is_type = |text: &str| {
            text.split_once('/').is_some_and(|(kind, subtype)| {
                let is_word = |word: &str| {
                    !word.is_empty()
                        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-._".contains(&b))
                };
                is_word(kind) && is_word(subtype)
            })
        };
        if accept.as_ref().is_some_and(|accept| !is_type(accept)) {
            return Err("accept: must be one media type such as text/html".to_owned());
        }
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if !is_type(&essence) || !is_header_value(&content_type) {
            return Err("content_type: must be a media type such as text/html; charset=utf-8".to_owned());
        }
        if headers.len() > MAX_HEADERS {
            return Err(format!("headers: must be {MAX_HEADERS} at most"));
        }
        let mut lines = BTreeMap::new();
        for (name, value) in headers {
            let lower = name.to_ascii_lowercase();
            let is_name =
                !lower.is_empty() && lower.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
            if !is_name || RESERVED_HEADERS.contains(&lower.as_str()) || lower.starts_with("x-envoy-") {
                return Err("headers: must be names of headers that neither Envoy nor Talos sets".to_owned());
            }
            if !is_header_value(&value) {
                return Err(format!("headers.{lower}: must be printable ASCII of {MAX_VALUE} bytes at most"));
            }
            lines.insert(lower, value);
        }
        if body.len() > MAX_BODY {
            return Err(format!("body: must be {MAX_BODY} bytes at most"));
        }
        let escape = match essence {
            kind if kind.contains("json") => Escape::Json,
            kind if kind.contains("html") || kind.contains("xml") => Escape::Html,
            _ => Escape::None,
        };
        let pieces = parse_pieces(&body).map_err(|problem| format!("body: {problem}"))?;
        let accept = accept.map(|accept| accept.to_ascii_lowercase());
        Ok(Self { statuses, accept, content_type, headers: lines, escape, pieces })
    }

    /// Returns an HTML page for every status.
    pub fn html_page(body: &str) -> Self {
        Self {
            statuses: vec![],
            accept: None,
            content_type: "text/html; charset=utf-8".to_owned(),
            headers: BTreeMap::new(),
            escape: Escape::Html,
            pieces: parse_pieces(body).unwrap_or_default(),
        }
    }

    /// Returns the value of `content-type`.
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// Returns the additional headers.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Renders the body.
    pub fn render(&self, values: &Values<'_>) -> String {
        let mut body = String::new();
        for piece in &self.pieces {
            let value = match piece {
                Piece::Text(text) => {
                    body.push_str(text);
                    continue;
                }
                Piece::Status => &values.status.to_string(),
                Piece::Title => values.title,
                Piece::Message => values.message,
                Piece::Reason => values.reason,
                Piece::Scopes => values.scopes,
                Piece::Hint => values.hint,
                Piece::RequestId => values.request_id,
            };
            self.escape.push(value, &mut body);
        }
        body
    }
}

impl Escape {
    fn push(self, value: &str, body: &mut String) {
        for c in value.chars() {
            match (self, c) {
                (Self::Html, '&') => body.push_str("&amp;"),
                (Self::Html, '<') => body.push_str("&lt;"),
                (Self::Html, '>') => body.push_str("&gt;"),
                (Self::Html, '"') => body.push_str("&quot;"),
                (Self::Html, '\'') => body.push_str("&#39;"),
                (Self::Json, '"') => body.push_str("\\\""),
                (Self::Json, '\\') => body.push_str("\\\\"),
                (Self::Json, c) if c.is_control() => body.push_str(&format!("\\u{:04x}", u32::from(c))),
                (_, c) => body.push(c),
            }
        }
    }
}

/// Describes why a file can't be read as templates, by its place and fixed texts alone: the
/// parser's own text quotes the file.
fn describe(text: &str, error: &serde_norway::Error) -> String {
    let place = error.location().map(|at| format!("line {} column {}: ", at.line(), at.column()));
    let place = place.unwrap_or_default();
    let theirs = error.to_string();
    let missing = ["responses", "content_type", "body"]
        .into_iter()
        .find(|name| theirs.contains(&format!("missing field `{name}`")));
    if let Some(name) = missing {
        return format!("{place}missing field {name}: {FORM}");
    }
    if theirs.contains("unknown field") {
        return format!("{place}unknown field: {FORM}");
    }
    match serde_norway::from_str::<IgnoredAny>(text) {
        Ok(_) => format!("{place}{FORM}"),
        Err(_) => format!("{place}not YAML: {FORM}"),
    }
}

fn is_header_value(text: &str) -> bool {
    (1..=MAX_VALUE).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// Splits a body at its placeholders.
fn parse_pieces(body: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = vec![];
    let mut rest = body;
    while let Some((text, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").ok_or("{{ without }}")?;
        pieces.push(Piece::Text(text.to_owned()));
        pieces.push(match name.trim() {
            "status" => Piece::Status,
            "title" => Piece::Title,
            "message" => Piece::Message,
            "reason" => Piece::Reason,
            "scopes" => Piece::Scopes,
            "hint" => Piece::Hint,
            "request_id" => Piece::RequestId,
            _ => {
                return Err(
                    "placeholders are status, title, message, reason, scopes, hint and request_id".to_owned()
                );
            }
        });
        rest = after;
    }
    pieces.push(Piece::Text(rest.to_owned()));
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::request::tests::both_forms;
    use proptest::prelude::{prop_assert_eq, proptest};

    const HOSTILE: Values<'_> = Values {
        status: 403,
        title: "Forbidden",
        message: "<b>'no' & \"never\"\\</b>\n",
        reason: "FORBIDDEN",
        scopes: "a b",
        hint: "ask",
        request_id: "1",
    };

    fn one(content_type: &str, body: &str) -> Template {
        let response = serde_json::json!({ "content_type": content_type, "body": body });
        let text = serde_json::json!({ "responses": [response] }).to_string();
        Templates::parse(&text).unwrap().0.remove(0)
    }

    #[test]
    fn values_are_escaped_as_the_body_needs() {
        let body = "{{status}} {{ title }} {{message}}{{reason}} {{scopes}} {{request_id}}}";
        assert_eq!(
            one("text/html", body).render(&HOSTILE),
            "403 Forbidden &lt;b&gt;&#39;no&#39; &amp; &quot;never&quot;\\&lt;/b&gt;\nFORBIDDEN a b 1}"
        );
        assert_eq!(one("text/plain", "{{message}}").render(&HOSTILE), HOSTILE.message);
    }

    proptest! {
        #[test]
        fn a_value_in_json_is_read_back(message: String) {
            let filled = one("application/problem+json", r#"{"m":"{{message}}"}"#).render(&Values { message: &message, ..HOSTILE });
            let read: serde_json::Value = serde_json::from_str(&filled).unwrap();
            prop_assert_eq!(read["m"].as_str(), Some(&message[..]));
        }
    }

    #[test]
    fn the_first_that_fits_is_taken() {
        let templates = Templates::parse(
            "responses:\n\
             - {statuses: [401], accept: text/html, content_type: text/html, body: a}\n\
             - {statuses: [401, 403], content_type: text/plain, body: b}\n\
             - {accept: text/html, content_type: text/html, body: c}\n",
        )
        .unwrap();
        let body = |status, accept: &'static str| {
            let [attributes, _] = both_forms("/", &[("accept", accept)]);
            templates.find(status, &Headers::of(&attributes)).map(|template| template.render(&HOSTILE))
        };
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (status, accept, expected) in [
            (401, browser, Some("a")),
            (401, "*/*", Some("b")),
            (403, browser, Some("b")),
            (429, browser, Some("c")),
            (429, "*/*", None),
            (429, "application/json, text/html", None),
            (429, "application/json;q=0.5, text/html", Some("c")),
            (429, "text/html;q=0", None),
            (429, "TEXT/HTML", Some("c")),
        ] {
            assert_eq!(body(status, accept).as_deref(), expected, "{status} {accept}");
        }
    }

    #[test]
    fn invalid_templates_are_refused_by_name() {
        for (text, expected) in [
            ("", "missing field"),
            ("responses: [{content_type: text/html, body: a, x: 1}]", "unknown field"),
            ("responses: [{content_type: html, body: a}]", "responses[0].content_type"),
            ("responses: [{content_type: \"text/html\\n\", body: a}]", "responses[0].content_type"),
            ("responses: [{content_type: text/html, body: '{{x}}'}]", "responses[0].body: placeholders are"),
            ("responses: [{content_type: text/html, body: '{{status'}]", "responses[0].body: {{ without }}"),
            ("responses: [{content_type: text/html, body: a, statuses: [200]}]", "responses[0].statuses"),
            ("responses: [{content_type: text/html, body: a, accept: '*/*'}]", "responses[0].accept"),
            (
                "responses: [{content_type: a/b, body: a, headers: {Content-Length: '1'}}]",
                "responses[0].headers",
            ),
            ("responses: [{content_type: a/b, body: a, headers: {'a b': '1'}}]", "responses[0].headers"),
            (
                "responses: [{content_type: a/b, body: a, headers: {a: \"b\\r\\nc\"}}]",
                "responses[0].headers.a",
            ),
        ] {
            let error = Templates::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(Templates::parse(&"#".repeat(MAX_FILE + 1)).is_err());
    }

    /// The file of a secret may be named by mistake.
    #[test]
    fn errors_have_a_place_and_nothing_of_the_content() {
        for (text, expected) in [
            (
                "-----BEGIN PRIVATE KEY-----\ns3cr3t\n-----END PRIVATE KEY-----\n",
                "must be a mapping with the list",
            ),
            ("s3cr3t", "must be a mapping with the list"),
            ("s3cr3t: 1", "line 1 column 1: unknown field"),
            ("s3cr3t: {missing field `body`: 1}", "unknown field"),
            ("responses: s3cr3t", "must be a mapping with the list"),
            ("responses: [s3cr3t]", "must be a mapping with the list"),
            ("responses: [{s3cr3t: 1}]", "unknown field"),
            ("responses:\n- {content_type: a/b}\n# s3cr3t", "missing field body"),
            ("responses: [{content_type: a/b, body: a, statuses: [s3cr3t]}]", "must be a mapping"),
            ("responses: [{content_type: a/b, body: a, headers: {s3cr3t: [1]}}]", "must be a mapping"),
            ("responses: {s3cr3t", "not YAML"),
            ("responses: *s3cr3t", "not YAML"),
            ("responses: !s3cr3t a", "must be a mapping"),
        ] {
            let error = Templates::parse(text).expect_err(text);
            let shown = error.to_string();
            assert!(shown.contains(expected), "{text}: {shown}");
            assert!(!format!("{shown}{error:?}").contains("s3cr3t"), "{text}: {shown}");
        }
    }
}
