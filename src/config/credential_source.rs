//! `authz.sources`: places of a request where a credential is looked for.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use super::key_path::KeyPath;
use super::text;

/// Place to look for a credential. Each form has one field that names it: `header`, `query`,
/// `cookie`, `path` or `websocket_protocol`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "RawSource", into = "RawSource")]
pub enum CredentialSource {
    /// A request header.
    Header {
        /// Name in lower case.
        name: String,
        /// Form of its value.
        form: HeaderForm,
    },
    /// A query parameter, by its decoded name.
    Query {
        /// Name, compared with case.
        name: String,
    },
    /// A cookie.
    Cookie {
        /// Name, compared with case.
        name: String,
    },
    /// A segment of the path.
    Path(KeyPath),
    /// The entry of `Sec-WebSocket-Protocol` after a marker.
    WebsocketProtocol {
        /// The marker, compared without case.
        marker: String,
    },
}

/// Form of a header's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderForm {
    /// The credential alone.
    Bare,
    /// An authentication scheme, compared without case, and the credential.
    Scheme(String),
    /// The credential, with or without the scheme before it.
    OptionalScheme(String),
    /// `Basic` and a user and a password in base64 (RFC 7617).
    Basic(KeyIn),
}

impl HeaderForm {
    /// Returns the authentication scheme.
    pub fn scheme(&self) -> Option<&str> {
        match self {
            Self::Bare => None,
            Self::Scheme(scheme) | Self::OptionalScheme(scheme) => Some(scheme),
            Self::Basic(_) => Some(BASIC),
        }
    }
}

/// Part of Basic credentials that holds the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyIn {
    /// The user name.
    User,
    /// The password.
    Password,
    /// The password, or the user name if the password is empty or only the user name looks like a
    /// key.
    Either,
}

const BASIC: &str = "Basic";
/// Header whose entries the `websocket_protocol` form reads.
const WEBSOCKET_PROTOCOL: &str = "sec-websocket-protocol";

impl CredentialSource {
    /// Returns the header that has the credential; `None` if the URL has it.
    pub fn header(&self) -> Option<&str> {
        match self {
            Self::Header { name, .. } => Some(name),
            Self::Cookie { .. } => Some("cookie"),
            Self::WebsocketProtocol { .. } => Some(WEBSOCKET_PROTOCOL),
            Self::Query { .. } | Self::Path(_) => None,
        }
    }

    /// Returns true if both sources could find one value: a header without a scheme matches any
    /// scheme.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Header { name: a, form: form_a }, Self::Header { name: b, form: form_b }) => {
                a == b && forms_overlap(form_a, form_b)
            }
            (Self::Path(a), Self::Path(b)) => a.overlaps(b),
            (Self::Header { name, .. }, Self::WebsocketProtocol { .. })
            | (Self::WebsocketProtocol { .. }, Self::Header { name, .. }) => name == WEBSOCKET_PROTOCOL,
            (Self::WebsocketProtocol { marker: a }, Self::WebsocketProtocol { marker: b }) => {
                a.eq_ignore_ascii_case(b)
            }
            (a, b) => a == b,
        }
    }
}

fn forms_overlap(a: &HeaderForm, b: &HeaderForm) -> bool {
    match (a.scheme(), b.scheme()) {
        (Some(scheme_a), Some(scheme_b)) => {
            let both_optional =
                matches!((a, b), (HeaderForm::OptionalScheme(_), HeaderForm::OptionalScheme(_)));
            both_optional || scheme_a.eq_ignore_ascii_case(scheme_b)
        }
        _ => true,
    }
}

/// Form in the file, before it is checked that exactly one of the places is set.
#[derive(Default, Deserialize, Serialize)]
#[serde(
    default,
    deny_unknown_fields,
    expecting = "header, query, cookie, path or websocket_protocol, as in {header: x-api-key}"
)]
struct RawSource {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheme: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "truth")]
    scheme_optional: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_in: Option<KeyIn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cookie: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    websocket_protocol: Option<String>,
}

/// Reads a bool, also as the text of an environment variable.
fn truth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Truth {
        Bool(bool),
        Text(String),
    }
    match Option::<Truth>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Truth::Bool(truth)) => Ok(Some(truth)),
        Some(Truth::Text(text)) => {
            text.parse().map(Some).map_err(|_| serde::de::Error::custom("must be true or false"))
        }
    }
}

impl From<CredentialSource> for RawSource {
    fn from(source: CredentialSource) -> Self {
        match source {
            CredentialSource::Header { name, form } => Self {
                header: Some(name),
                scheme: form.scheme().map(str::to_owned),
                scheme_optional: matches!(form, HeaderForm::OptionalScheme(_)).then_some(true),
                key_in: match form {
                    HeaderForm::Basic(key_in) => Some(key_in),
                    _ => None,
                },
                ..Self::default()
            },
            CredentialSource::Query { name } => Self { query: Some(name), ..Self::default() },
            CredentialSource::Cookie { name } => Self { cookie: Some(name), ..Self::default() },
            CredentialSource::Path(path) => Self { path: Some(path.as_str().to_owned()), ..Self::default() },
            CredentialSource::WebsocketProtocol { marker } => {
                Self { websocket_protocol: Some(marker), ..Self::default() }
            }
        }
    }
}

impl TryFrom<RawSource> for CredentialSource {
    type Error = &'static str;

    fn try_from(raw: RawSource) -> Result<Self, Self::Error> {
        if raw.header.is_none() {
            if raw.scheme.is_some() {
                return Err("scheme goes with header only");
            }
            if raw.scheme_optional.is_some() || raw.key_in.is_some() {
                return Err("scheme_optional and key_in go with header and scheme only");
            }
        }
        match (raw.header, raw.query, raw.cookie, raw.path, raw.websocket_protocol) {
            (Some(name), None, None, None, None) => {
                if !text::is_token(&name) {
                    return Err("header must be a header name");
                }
                let form = header_form(raw.scheme, raw.scheme_optional == Some(true), raw.key_in)?;
                Ok(Self::Header { name: name.to_ascii_lowercase(), form })
            }
            (None, Some(name), None, None, None) => {
                if name.is_empty() || name.chars().any(char::is_control) {
                    return Err("query must be the name of a parameter");
                }
                Ok(Self::Query { name })
            }
            (None, None, Some(name), None, None) => {
                if !text::is_token(&name) {
                    return Err("cookie must be the name of a cookie");
                }
                Ok(Self::Cookie { name })
            }
            (None, None, None, Some(path), None) => KeyPath::parse(path).map(Self::Path),
            (None, None, None, None, Some(marker)) => {
                if !text::is_token(&marker) {
                    return Err("websocket_protocol must be the name of a subprotocol such as bearer");
                }
                Ok(Self::WebsocketProtocol { marker })
            }
            _ => Err("exactly one of header, query, cookie, path and websocket_protocol is needed"),
        }
    }
}

fn header_form(
    scheme: Option<String>,
    is_optional: bool,
    key_in: Option<KeyIn>,
) -> Result<HeaderForm, &'static str> {
    let Some(scheme) = scheme else {
        return match (is_optional, key_in) {
            (false, None) => Ok(HeaderForm::Bare),
            _ => Err("scheme_optional and key_in go with a scheme"),
        };
    };
    if !text::is_token(&scheme) {
        return Err("scheme must be an authentication scheme such as Bearer");
    }
    match (scheme.eq_ignore_ascii_case(BASIC), is_optional, key_in) {
        (true, true, _) => Err("scheme_optional can't be true with scheme Basic"),
        (true, false, key_in) => Ok(HeaderForm::Basic(key_in.unwrap_or(KeyIn::Either))),
        (false, _, Some(_)) => Err("key_in goes with scheme Basic only"),
        (false, true, None) => Ok(HeaderForm::OptionalScheme(scheme)),
        (false, false, None) => Ok(HeaderForm::Scheme(scheme)),
    }
}

impl JsonSchema for CredentialSource {
    fn schema_name() -> Cow<'static, str> {
        "CredentialSource".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = |name: &str, description: &str| {
            json!({
                "type": "object",
                "properties": { name: { "type": "string", "description": description } },
                "required": [name],
                "additionalProperties": false
            })
        };
        json_schema!({
            "description": "Place to look for a credential.",
            "oneOf": [
                {
                    "type": "object",
                    "properties": {
                        "header": { "type": "string", "description": "A request header." },
                        "scheme": {
                            "description": "Authentication scheme before the credential; unset means none.",
                            "type": ["string", "null"]
                        },
                        "scheme_optional": {
                            "description": "If true, the credential may also stand there without the scheme. Default false.",
                            "type": ["boolean", "null"]
                        },
                        "key_in": {
                            "description": "With scheme Basic, the part that holds the key. Default either.",
                            "enum": ["user", "password", "either", null]
                        }
                    },
                    "required": ["header"],
                    "additionalProperties": false
                },
                one("query", "A query parameter."),
                one("cookie", "A cookie."),
                one("path", "Segments at the start of the path, of which `{key}` is the credential and \
                    any other `{name}` stands for any segment."),
                one("websocket_protocol", "The entry of Sec-WebSocket-Protocol after this one is the credential."),
            ]
        })
    }
}
