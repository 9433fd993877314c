//! `authz.*`: behaviour of the ext_authz plane.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::credential_source::{CredentialSource, HeaderForm};
use super::routes::Route;
use super::{serde_forms, text};

/// `authz`: the behaviour of the authz plane.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Authz {
    /// Lifetime of a minted JWT, at least 1s and at most `credentials.derived_tokens.max_ttl`.
    /// Default 5m.
    #[serde(with = "serde_forms::Duration")]
    pub token_ttl: Duration,
    /// Header that carries the minted JWT upstream, in any case. Default `authorization`.
    #[serde(deserialize_with = "header_name")]
    pub token_header: String,
    /// Places to look for a credential, in this order; 32 at most. Default: `authorization` with
    /// `Bearer`, then `x-api-key`.
    pub sources: Vec<CredentialSource>,
    /// Answer when no decision is possible. Default `deny`.
    pub on_unavailable: OnUnavailable,
    /// Source of the client's address. Default `peer`.
    pub client_address: ClientAddress,
    /// With `client_address: xff`, the position of the entry to use, from the right; at least 1.
    /// Default 1.
    pub trusted_hops: u32,
    /// `realm` of `WWW-Authenticate`: printable ASCII without `"` and `\`. Default `talos`.
    pub realm: String,
    /// If true, refusals tell expired, revoked and unknown credentials apart. Default false, so
    /// that a thief learns nothing.
    pub reveal_reason: bool,
    /// YAML file with your own templates for refusals. New contents apply at once, another path
    /// after a restart. Unset (or empty) by default.
    #[serde(with = "serde_forms::OptionalPath")]
    pub denied_template_file: Option<PathBuf>,
    /// Handling of a browser's CORS preflight (OPTIONS with Origin and
    /// Access-Control-Request-Method) that Envoy's own CORS filter doesn't answer. A preflight
    /// never carries a credential. Default `check`.
    pub preflight: Preflight,
    /// Policies by host, method and path; 1000 at most. Default: none.
    pub routes: Vec<Route>,
    /// Stream for the module in Envoy that answers Checks itself.
    pub edge: Edge,
}

/// `authz.edge`: the stream for the module in Envoy that answers Checks of keys that it knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Edge {
    /// If true, modules are served on `serve.authz.socket`, and nowhere else. Switched off, all
    /// streams end, and Envoy asks about every request again. Changes apply at once. Default false.
    pub enabled: bool,
}

impl Default for Authz {
    fn default() -> Self {
        Self {
            token_ttl: Duration::from_secs(300),
            token_header: "authorization".to_owned(),
            sources: vec![
                CredentialSource::Header {
                    name: "authorization".to_owned(),
                    form: HeaderForm::Scheme("Bearer".to_owned()),
                },
                CredentialSource::Header { name: "x-api-key".to_owned(), form: HeaderForm::Bare },
            ],
            on_unavailable: OnUnavailable::default(),
            client_address: ClientAddress::default(),
            trusted_hops: 1,
            realm: "talos".to_owned(),
            reveal_reason: false,
            denied_template_file: None,
            preflight: Preflight::default(),
            routes: Vec::new(),
            edge: Edge::default(),
        }
    }
}

/// Maximum number of entries of `authz.sources`.
pub(super) const MAX_SOURCES: usize = 32;

/// Maximum number of entries of `authz.routes`.
pub(super) const MAX_ROUTES: usize = 1000;

/// Answer to Envoy when neither cache nor database can decide.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnUnavailable {
    /// A refusal with status 503, which no setting of Envoy turns into an allow.
    #[default]
    Deny,
    /// gRPC status UNAVAILABLE: Envoy's `failure_mode_allow` and `status_on_error` decide.
    Error,
}

/// Source of the client's address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientAddress {
    /// The peer of the connection to Envoy.
    #[default]
    Peer,
    /// `x-envoy-external-address`.
    External,
    /// `x-forwarded-for`, counted from the right by `trusted_hops`.
    Xff,
}

/// Handling of CORS preflights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Preflight {
    /// As any other request, by the policy of the route.
    #[default]
    Check,
    /// Always allowed, as anonymous.
    Allow,
}

/// Reads a header name; returns it in lower case.
fn header_name<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    if !text::is_token(&name) {
        return Err(serde::de::Error::custom("must be a header name"));
    }
    Ok(name.to_ascii_lowercase())
}
