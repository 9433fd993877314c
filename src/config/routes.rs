//! `authz.routes`, and the policy values that Envoy's context extensions have in the same form.

use std::borrow::Cow;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::route_name::RouteName;
use super::text;
use crate::host::name_of;
use crate::key::{FieldError, Scopes};

/// One entry of `authz.routes`: conditions, then the policy. Unset conditions match everything;
/// unset parts of the policy have the value of the `authz` block.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    /// Name under which requests are counted: 1 to 32 lower-case letters, digits, `_`, `-` and `.`.
    pub name: Option<RouteName>,
    /// Host of the request, in lower case, without port, brackets and final dot.
    #[serde(deserialize_with = "host")]
    pub host: Option<String>,
    /// Methods of the request, in upper case; empty means any.
    #[serde(deserialize_with = "methods")]
    pub methods: Vec<String>,
    /// Path of the request.
    pub path: Option<PathMatch>,
    /// Need for a credential.
    pub mode: Option<RouteMode>,
    /// Scopes that the credential must all have.
    pub scopes: Option<ScopeList>,
    /// Scopes of which the credential must have one.
    pub any_scope: Option<ScopeList>,
    /// `aud` of the minted token.
    pub audience: Option<Audience>,
    /// Token that is sent upstream.
    pub token: Option<RouteToken>,
    /// Keys that may pass.
    pub visibility: Option<RouteVisibility>,
    /// Cost of a request: the amount that it takes from each rate limit of its key.
    pub cost: Option<RouteCost>,
}

/// A policy value that is out of range. The text names the allowed values and never repeats the
/// value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PolicyValueError(Cow<'static, str>);

impl From<&'static str> for PolicyValueError {
    fn from(text: &'static str) -> Self {
        Self(text.into())
    }
}

/// `mode` of a route, or `talos.mode` of a context extension.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", rename_all = "lowercase")]
#[schemars(!try_from)]
pub enum RouteMode {
    /// A valid credential is needed.
    #[default]
    Required,
    /// A request without a credential passes as anonymous; an invalid one is refused.
    Optional,
    /// Nothing is checked.
    Off,
}

impl FromStr for RouteMode {
    type Err = PolicyValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "required" => Ok(Self::Required),
            "optional" => Ok(Self::Optional),
            "off" => Ok(Self::Off),
            _ => Err(PolicyValueError::from("must be one of required, optional, off")),
        }
    }
}

/// `token` of a route, or `talos.token` of a context extension. Unset means `jwt` if a signing key
/// is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", rename_all = "lowercase")]
#[schemars(!try_from)]
pub enum RouteToken {
    /// A minted JWT is sent upstream.
    Jwt,
    /// No token is sent upstream.
    None,
}

impl FromStr for RouteToken {
    type Err = PolicyValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "jwt" => Ok(Self::Jwt),
            "none" => Ok(Self::None),
            _ => Err(PolicyValueError::from("must be one of jwt, none")),
        }
    }
}

/// `visibility` of a route, or `talos.visibility` of a context extension. Unset lets secret and
/// public keys pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", rename_all = "lowercase")]
#[schemars(!try_from)]
pub enum RouteVisibility {
    /// Publishable keys are refused.
    Secret,
}

impl FromStr for RouteVisibility {
    type Err = PolicyValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "secret" => Ok(Self::Secret),
            _ => Err(PolicyValueError::from("must be secret")),
        }
    }
}

/// `cost` of a route, or `talos.cost` of a context extension: what a request takes from each rate
/// limit of its key, 0 to 10000. 0 is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "i64")]
#[schemars(!try_from)]
pub struct RouteCost(#[schemars(range(max = 10_000))] u32);

impl RouteCost {
    /// Largest cost. With it, times of buckets fit into 64 bits.
    const MAX: u32 = 10_000;

    /// Returns the number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for RouteCost {
    fn default() -> Self {
        Self(1)
    }
}

impl TryFrom<i64> for RouteCost {
    type Error = PolicyValueError;

    fn try_from(number: i64) -> Result<Self, Self::Error> {
        let cost = u32::try_from(number).ok().filter(|cost| *cost <= Self::MAX);
        cost.map(Self).ok_or_else(|| PolicyValueError::from("must be a whole number from 0 to 10000"))
    }
}

impl FromStr for RouteCost {
    type Err = PolicyValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| is_number).unwrap_or(-1);
        Self::try_from(number)
    }
}

/// Space-separated scopes: 1 to 100, none twice, each an RFC 6749 scope-token of at most 128
/// characters. Never empty, so that an empty result of a template doesn't open a route.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct ScopeList(#[schemars(with = "String")] Scopes);

impl ScopeList {
    /// The scopes, in their order.
    pub fn into_scopes(self) -> Scopes {
        self.0
    }
}

impl From<ScopeList> for String {
    fn from(list: ScopeList) -> Self {
        list.0.to_string()
    }
}

impl FromStr for ScopeList {
    type Err = PolicyValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match Scopes::parse_spaced(text) {
            Ok(scopes) if scopes.is_empty() => Err("must name 1 to 100 scopes".into()),
            Ok(scopes) => Ok(Self(scopes)),
            Err(FieldError(problem)) => Err(PolicyValueError(problem)),
        }
    }
}

/// An audience: 1 to 255 characters, no control characters.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String")]
pub struct Audience(String);

impl Audience {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Audience {
    type Err = PolicyValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if (1..=255).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
            Ok(Self(text.to_owned()))
        } else {
            Err(PolicyValueError::from("must be 1 to 255 characters without control characters"))
        }
    }
}

/// Deserializes values by `FromStr`, so that the file and context extensions have the same form.
macro_rules! read_by_from_str {
    ($($name:ty),*) => {$(
        impl TryFrom<String> for $name {
            type Error = PolicyValueError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }
    )*};
}

read_by_from_str!(RouteMode, RouteToken, RouteVisibility, ScopeList, Audience);

/// `path` of a route: exactly one of `exact`, `prefix` and `template`. Each starts with `/` and
/// isn't percent-encoded.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "RawPath", rename_all = "lowercase")]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Whole segments at the start of the path.
    Prefix(String),
    /// Segments, where `{name}` stands for any segment.
    Template(String),
}

/// Form in the file, before it is checked that exactly one of the three is set.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "exact, prefix or template, as in {prefix: /orders}")]
struct RawPath {
    #[serde(default)]
    exact: Option<String>,
    #[serde(default)]
    prefix: Option<String>,
    #[serde(default)]
    template: Option<String>,
}

impl TryFrom<RawPath> for PathMatch {
    type Error = &'static str;

    fn try_from(raw: RawPath) -> Result<Self, Self::Error> {
        match (raw.exact, raw.prefix, raw.template) {
            (Some(path), None, None) => plain_path(path).map(Self::Exact),
            (None, Some(path), None) => plain_path(path).map(Self::Prefix),
            (None, None, Some(path)) => template(path).map(Self::Template),
            _ => Err("exactly one of exact, prefix and template is needed"),
        }
    }
}

impl JsonSchema for PathMatch {
    fn schema_name() -> Cow<'static, str> {
        "PathMatch".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = |name: &str, description: &str| {
            json!({
                "type": "object",
                "properties": { name: { "type": "string", "pattern": "^/", "description": description } },
                "required": [name],
                "additionalProperties": false
            })
        };
        json_schema!({
            "description": "A path: exactly one of the three forms.",
            "oneOf": [
                one("exact", "The whole path."),
                one("prefix", "Whole segments at the start of the path."),
                one("template", "Segments, where `{name}` stands for any segment."),
            ]
        })
    }
}

/// Length of a rule's path, in bytes.
const MAX_PATH: usize = 2048;

/// Refuses a path that no accepted request can have, as its rule would protect nothing: requests
/// with ambiguous paths are refused before rules are tried, and other paths are decoded.
fn plain_path(path: String) -> Result<String, &'static str> {
    if !path.starts_with('/') {
        return Err("a path starts with /");
    }
    if path.len() > MAX_PATH {
        return Err("a path is 2048 bytes at most");
    }
    let inside = path.split('/').skip(1).collect::<Vec<_>>();
    let last = inside.len() - 1;
    let odd = inside
        .iter()
        .enumerate()
        .any(|(index, segment)| (segment.is_empty() && index != last) || matches!(*segment, "." | ".."));
    let is_encoded = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if path.split('%').skip(1).any(is_encoded) {
        return Err("a path is compared after decoding: write it decoded, as with a space in place of %20");
    }
    if odd || path.contains(|c: char| ";\\?#".contains(c) || c.is_control()) {
        return Err("a path has no //, dot segments, query, fragment, ; or \\");
    }
    Ok(path)
}

/// Like [`plain_path`], with braces only as a whole segment `{name}`.
fn template(path: String) -> Result<String, &'static str> {
    let path = plain_path(path)?;
    for segment in path.split('/') {
        let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let is_name = name.is_some_and(|name| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        });
        if !is_name && segment.contains(['{', '}', '*']) {
            return Err("a template has braces only as a whole segment such as {id}");
        }
    }
    Ok(path)
}

fn host<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let host = Option::<String>::deserialize(deserializer)?.map(|host| host.to_ascii_lowercase());
    // A colon is allowed in an IPv6 address only. It can't begin a port, as ports aren't compared.
    let allowed = |host: &String| match host.parse::<std::net::Ipv6Addr>() {
        Ok(_) => true,
        Err(_) => !host.contains(':') && name_of(host).is_some(),
    };
    if host.as_ref().is_some_and(|host| !allowed(host)) {
        return Err(serde::de::Error::custom("must be a host name without port and brackets"));
    }
    Ok(host)
}

fn methods<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let methods = Vec::<String>::deserialize(deserializer)?;
    if methods.iter().any(|method| method == "*" || !text::is_token(method)) {
        return Err(serde::de::Error::custom("must be methods such as GET; leave them out for all"));
    }
    Ok(methods.into_iter().map(|method| method.to_ascii_uppercase()).collect())
}
