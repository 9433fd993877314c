//! `serve.http.auth.*`: callers of the admin plane and their authentication.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::serde_forms;
use crate::secret::SecretString;

/// `serve.http.auth`: callers of the admin plane and their authentication.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Authentication of callers. Default `none`.
    pub mode: AuthMode,
    /// `serve.http.auth.roles`.
    pub roles: AuthRoles,
    /// `serve.http.auth.xfcc`.
    pub xfcc: AuthXfcc,
    /// `serve.http.auth.jwt`.
    pub jwt: AuthJwt,
    /// Ids of users that may do everything over `serve.http.socket`. Default: the user that runs
    /// this process.
    #[serde(with = "serde_forms::Uids")]
    pub unix_uids: Vec<u32>,
}

/// Authentication of admin callers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// None: something in front of the listener has to authenticate callers.
    #[default]
    None,
    /// Client certificates.
    Mtls,
    /// The certificate in `x-forwarded-client-cert`, which Envoy sets with `cert: true`.
    Xfcc,
    /// A bearer JWT.
    Jwt,
}

/// `serve.http.auth.roles`: exact names, from certificates (a URI if there is a colon, else a host
/// name) or from a claim of tokens. Callers without a role are refused.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuthRoles {
    /// Callers that may get, list and verify keys. Default: none.
    pub viewer: Vec<String>,
    /// Callers that may also issue, import, update, rotate and revoke keys, and derive tokens.
    /// Default: none.
    pub issuer: Vec<String>,
    /// Callers that may do everything. Default: none.
    pub admin: Vec<String>,
}

/// `serve.http.auth.xfcc`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuthXfcc {
    /// Proxies whose header is used: exact names in their own certificate, addresses or CIDR
    /// blocks. The header of any other peer is ignored.
    pub peers: Vec<String>,
}

/// `serve.http.auth.jwt`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuthJwt {
    /// `iss` that tokens must have. Unset (or empty) by default.
    #[serde(with = "serde_forms::OptionalText")]
    pub issuer: Option<String>,
    /// `aud` that tokens must have among theirs. Unset (or empty) by default.
    #[serde(with = "serde_forms::OptionalText")]
    pub audience: Option<String>,
    /// Key set of the issuer: a `https://`, `file://` or `base64://` URL. Unset (or empty) by
    /// default.
    #[serde(with = "serde_forms::OptionalKeySet")]
    pub jwks: Option<SecretString>,
    /// Tolerated difference to the issuer's clock. Default 30s.
    #[serde(with = "serde_forms::Duration")]
    pub leeway: Duration,
    /// Claim with the names that `roles` lists: a text, or a list of texts. Default `sub`.
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
    /// URL of the issuer's key set.
    pub fn url(&self) -> Option<SecretString> {
        self.jwks.clone()
    }
}
