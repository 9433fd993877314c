//! `serve.http.auth.*`: who may call the admin plane, and how they prove it.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms;
use crate::secret::SecretString;

/// `serve.http.auth`: who may call the admin plane.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Default `none`.
    pub mode: AuthMode,
    /// `serve.http.auth.roles`.
    pub roles: AuthRoles,
    /// `serve.http.auth.xfcc`.
    pub xfcc: AuthXfcc,
    /// `serve.http.auth.jwt`.
    pub jwt: AuthJwt,
    /// Users that may do everything over `serve.http.socket`. Default: the one that runs this process.
    #[serde(with = "forms::Uids")]
    pub unix_uids: Vec<u32>,
}

/// How admin callers prove who they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// Not at all: something in front of the listener has to.
    #[default]
    None,
    /// Client certificates.
    Mtls,
    /// `x-forwarded-client-cert`, which Envoy sets with `cert: true`: the certificate in it counts.
    Xfcc,
    /// A bearer JWT.
    Jwt,
}

/// `serve.http.auth.roles`: exact names, of certificates (with a colon a URI, else the name of a
/// host) or in a claim of tokens. Who has none of them is refused.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuthRoles {
    /// Look at keys, and have credentials verified. Default: nobody.
    pub viewer: Vec<String>,
    /// Also make, change, rotate and revoke keys, and derive tokens. Default: nobody.
    pub issuer: Vec<String>,
    /// Everything. Default: nobody.
    pub admin: Vec<String>,
}

/// `serve.http.auth.xfcc`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuthXfcc {
    /// Who may tell us of its clients' certificates: exact names in its own certificate, addresses or CIDR blocks. The
    /// header is ignored when it comes from anybody else.
    pub peers: Vec<String>,
}

/// `serve.http.auth.jwt`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuthJwt {
    /// `iss` that tokens must have. Unset (or empty) by default.
    #[serde(with = "forms::OptionalText")]
    pub issuer: Option<String>,
    /// `aud` that tokens must have among theirs. Unset (or empty) by default.
    #[serde(with = "forms::OptionalText")]
    pub audience: Option<String>,
    /// Key set of the issuer: a `https://`, `file://` or `base64://` URL. Unset (or empty) by default.
    #[serde(with = "forms::OptionalText")]
    pub jwks: Option<String>,
    /// How far the issuer's clock may differ. Default 30s.
    #[serde(with = "forms::Duration")]
    pub leeway: Duration,
    /// The claim that holds what `roles` lists: a text, or a list of texts. Default `sub`.
    pub claim: String,
}

impl Default for AuthJwt {
    fn default() -> Self {
        Self {
            issuer: None,
            audience: None,
            jwks: None,
            leeway: Duration::from_secs(30),
            claim: "sub".to_owned(),
        }
    }
}

impl AuthJwt {
    /// Where the key set is, as those of signing keys are named.
    pub fn url(&self) -> Option<SecretString> {
        self.jwks.as_deref().map(SecretString::from)
    }
}
