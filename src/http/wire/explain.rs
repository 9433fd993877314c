//! Explanations of routes, in requests and responses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{PathMatch, RouteMode, RouteToken};
use crate::credential::MAX_LEN as MAX_CREDENTIAL;
use crate::error::ApiError;
use crate::key::{KeyId, Scopes};
use crate::secret::SecretString;
use crate::service::explain::{ExplainRequest, Explanation, Policy, RuleOrigin};

/// Longest method and host, in bytes.
const MAX_WORD: usize = 255;
/// Longest path, in bytes.
const MAX_PATH: usize = 16 * 1024;
/// Most context extensions, and the longest text of one, in bytes.
const MAX_EXTENSIONS: usize = 32;

/// The request to explain.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ExplainRouteRequest")]
pub(crate) struct ExplainBody {
    /// Method, such as GET. Required.
    #[schemars(required, length(min = 1, max = MAX_WORD))]
    method: Option<String>,
    /// Host, with or without a port. With several networks it must be one of the caller's.
    #[schemars(length(max = MAX_WORD))]
    host: Option<String>,
    /// Path, with or without a query. Required.
    #[schemars(required, length(min = 1, max = MAX_PATH))]
    path: Option<String>,
    /// Credential, as if it stood in a header where `authz.sources` looks for it. It is neither
    /// stored nor logged.
    #[schemars(with = "Option<String>", length(max = MAX_CREDENTIAL))]
    credential: Option<SecretString>,
    /// Address of the client, for keys that are bound to addresses.
    client_address: Option<String>,
    /// Context extensions of Envoy's route (`talos.scopes` and so on), which come over the rules.
    context_extensions: Option<BTreeMap<String, String>>,
}

/// Decision that the edge would make.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ExplainRouteResponse")]
pub(crate) struct ExplainOut {
    /// `allow` or `deny`.
    decision: &'static str,
    /// As in Envoy's dynamic metadata: `ok`, `anonymous` or `off` where the request passes, else
    /// the reason of the refusal.
    reason: &'static str,
    /// The reason, in words.
    message: String,
    /// Rule of `authz.routes` that matches; absent if none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<RuleOut>,
    /// Demand of the route; absent if that isn't known.
    #[serde(skip_serializing_if = "Option::is_none")]
    demand: Option<DemandOut>,
    /// Key of the credential, if that is proven.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    /// Actor of that key.
    #[serde(skip_serializing_if = "Option::is_none")]
    actor_id: Option<String>,
    /// Scopes that the credential lacks.
    missing_scopes: Vec<String>,
}

/// A rule of `authz.routes`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "MatchedRule")]
pub(crate) struct RuleOut {
    /// Position in the list, from 0.
    index: u64,
    /// Name under which its requests are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Host of its condition.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    /// Methods of its condition; empty means any.
    methods: Vec<String>,
    /// Path of its condition: `exact`, `prefix` or `template`, a space and the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
}

/// Demand of a route.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RouteDemand")]
pub(crate) struct DemandOut {
    /// `required`, `optional` or `off`.
    mode: &'static str,
    /// Scopes that a credential must all have.
    scopes: Vec<String>,
    /// Scopes of which a credential must have one, unless this is empty.
    any_scope: Vec<String>,
    /// `secret` if publishable keys are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    visibility: Option<&'static str>,
    /// Amount that a request takes from each rate limit of its key.
    cost: u32,
    /// `aud` of the token that is sent upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    audience: Option<String>,
    /// `jwt` or `none`, if the route says which token is sent upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'static str>,
}

impl TryFrom<ExplainBody> for ExplainRequest {
    type Error = ApiError;

    fn try_from(body: ExplainBody) -> Result<Self, ApiError> {
        let text = |name: &'static str, text: Option<String>, most: usize| match text {
            Some(text) if text.len() > most => {
                Err(ApiError::field(name, format!("must be {most} bytes at most")))
            }
            text => Ok(text.unwrap_or_default()),
        };
        let required = |name: &'static str, text: String| match text.is_empty() {
            true => Err(ApiError::field(name, "is required")),
            false => Ok(text),
        };
        let path = required("path", text("path", body.path, MAX_PATH)?)?;
        if !path.starts_with('/') && path != "*" {
            return Err(ApiError::field("path", "must begin with /"));
        }
        if body.credential.as_ref().is_some_and(|credential| credential.expose().len() > MAX_CREDENTIAL) {
            return Err(ApiError::field("credential", format!("must be {MAX_CREDENTIAL} bytes at most")));
        }
        let client = body.client_address.filter(|address| !address.is_empty());
        let client = client.map(|address| address.parse::<IpAddr>()).transpose();
        let extensions: Vec<_> = body.context_extensions.unwrap_or_default().into_iter().collect();
        let is_long = |(key, value): &(String, String)| key.len().max(value.len()) > MAX_PATH;
        if extensions.len() > MAX_EXTENSIONS || extensions.iter().any(is_long) {
            let problem = "must be 32 at most, each of 16384 bytes at most";
            return Err(ApiError::field("context_extensions", problem));
        }
        Ok(Self {
            method: required("method", text("method", body.method, MAX_WORD)?)?,
            host: text("host", body.host, MAX_WORD)?,
            path,
            credential: body.credential,
            client: client.map_err(|_| ApiError::field("client_address", "must be an IP address"))?,
            context_extensions: extensions,
        })
    }
}

impl From<Explanation> for ExplainOut {
    fn from(explanation: Explanation) -> Self {
        Self {
            decision: if explanation.is_allowed { "allow" } else { "deny" },
            reason: explanation.reason,
            message: explanation.message,
            rule: explanation.rule.as_ref().map(RuleOut::from),
            demand: explanation.policy.as_ref().map(DemandOut::from),
            key_id: explanation.key_id.as_ref().map(KeyId::to_string),
            actor_id: explanation.actor.map(|actor| actor.as_str().to_owned()),
            missing_scopes: explanation.missing_scopes,
        }
    }
}

impl From<&RuleOrigin> for RuleOut {
    fn from(RuleOrigin { index, route }: &RuleOrigin) -> Self {
        Self {
            index: u64::try_from(*index).unwrap_or(u64::MAX),
            name: route.name.map(|name| name.as_str().to_owned()),
            host: route.host.clone(),
            methods: route.methods.clone(),
            path: route.path.as_ref().map(|path| match path {
                PathMatch::Exact(path) => format!("exact {path}"),
                PathMatch::Prefix(path) => format!("prefix {path}"),
                PathMatch::Template(path) => format!("template {path}"),
            }),
        }
    }
}

impl From<&Policy> for DemandOut {
    fn from(policy: &Policy) -> Self {
        let texts = |scopes: &Scopes| scopes.iter().map(ToString::to_string).collect();
        Self {
            mode: match policy.mode {
                RouteMode::Required => "required",
                RouteMode::Optional => "optional",
                RouteMode::Off => "off",
            },
            scopes: texts(&policy.scopes),
            any_scope: texts(&policy.any_scope),
            visibility: policy.secret_only.then_some("secret"),
            cost: policy.cost.get(),
            audience: policy.audience.clone(),
            token: policy.token.map(|token| match token {
                RouteToken::Jwt => "jwt",
                RouteToken::None => "none",
            }),
        }
    }
}
