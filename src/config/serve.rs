//! `serve.*`: the listeners.

use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::admin::Auth;
use super::forms;

/// `serve`: one block a plane.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Serve {
    /// The admin plane.
    pub http: ServeHttp,
    /// The public plane.
    pub public: ServePublic,
    /// Metrics and health.
    pub metrics: ServeMetrics,
    /// The ext_authz plane.
    pub authz: ServeAuthz,
}

impl Serve {
    /// Where `talos serve public` listens: `serve.public`, except that a config which sets only `serve.http` binds
    /// there, as Ory's files do. "Sets" means: differs from the default.
    pub fn public_alone(&self) -> (&str, u16, &Tls) {
        let (public, http) = (ServePublic::default(), ServeHttp::default());
        let moved = (&self.http.host, self.http.port) != (&http.host, http.port);
        if moved && (&self.public.host, self.public.port) == (&public.host, public.port) {
            (&self.http.host, self.http.port, &self.http.tls)
        } else {
            (&self.public.host, self.public.port, &self.public.tls)
        }
    }
}

/// `serve.http`: the admin plane.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServeHttp {
    /// Name or address to bind; empty means `0.0.0.0`. Default `127.0.0.1` (Ory's is `0.0.0.0`).
    pub host: String,
    /// TCP port; 0 takes any free one. Default 4420.
    pub port: u16,
    /// Path of a Unix socket to listen on beside `host` and `port`; who may use it says `auth.unix_uids`. Unset (or
    /// empty) by default.
    #[serde(with = "forms::OptionalPath")]
    pub socket: Option<PathBuf>,
    /// Where a caller's address is read. Default: the connection's peer.
    pub client_ip_source: ClientIpSource,
    /// Whether `X-Forwarded-Host` names the tenant. Default false.
    pub trust_forwarded_host: bool,
    /// Says that only trusted peers reach this listener, which lets `auth.mode: none` bind beyond loopback. Default false.
    pub trusted_network: bool,
    /// Host names that requests may carry besides the loopback names, which always may. Default: none.
    pub allowed_hosts: Vec<String>,
    /// `serve.http.auth`.
    pub auth: Auth,
    /// `serve.http.cors`.
    pub cors: Cors,
    /// `serve.http.request_log`.
    pub request_log: RequestLog,
    /// `serve.http.tls`.
    pub tls: Tls,
}

impl Default for ServeHttp {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 4420,
            socket: None,
            client_ip_source: ClientIpSource::default(),
            trust_forwarded_host: false,
            trusted_network: false,
            allowed_hosts: Vec::new(),
            auth: Auth::default(),
            cors: Cors::default(),
            request_log: RequestLog::default(),
            tls: Tls::default(),
        }
    }
}

/// Where a caller's address is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[schemars(transform = with_unspecified)]
pub enum ClientIpSource {
    /// The connection's peer. Ory's `CLIENT_IP_SOURCE_UNSPECIFIED` means the same.
    #[default]
    #[serde(rename = "CLIENT_IP_SOURCE_REMOTE_ADDR", alias = "CLIENT_IP_SOURCE_UNSPECIFIED")]
    RemoteAddr,
    /// The `CF-Connecting-IP` header.
    #[serde(rename = "CLIENT_IP_SOURCE_CF_CONNECTING_IP")]
    CfConnectingIp,
    /// The `X-Forwarded-For` header.
    #[serde(rename = "CLIENT_IP_SOURCE_X_FORWARDED_FOR")]
    XForwardedFor,
    /// The `X-Real-IP` header.
    #[serde(rename = "CLIENT_IP_SOURCE_X_REAL_IP")]
    XRealIp,
    /// The `True-Client-IP` header.
    #[serde(rename = "CLIENT_IP_SOURCE_TRUE_CLIENT_IP")]
    TrueClientIp,
}

/// The schema's list of names lacks the alias.
fn with_unspecified(schema: &mut Schema) {
    if let Some(Value::Array(names)) = schema.get_mut("oneOf") {
        names.push(json!({
            "description": "The same as `CLIENT_IP_SOURCE_REMOTE_ADDR`.",
            "type": "string",
            "const": "CLIENT_IP_SOURCE_UNSPECIFIED"
        }));
    }
}

/// `serve.{http,public}.cors`, with the names and defaults that Ory's services share.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cors {
    /// Default false.
    pub enabled: bool,
    /// Origins that may call. Default `*`.
    pub allowed_origins: Vec<String>,
    /// Methods that they may use. Default GET, POST, PUT, PATCH, DELETE.
    pub allowed_methods: Vec<String>,
    /// Request headers that they may send. Default Authorization, Content-Type.
    pub allowed_headers: Vec<String>,
    /// Response headers that they may read. Default Content-Type.
    pub exposed_headers: Vec<String>,
    /// Whether cookies and client certificates may come along. Default false.
    pub allow_credentials: bool,
    /// How long a preflight's answer may be kept, in seconds. Default 0.
    pub max_age: u64,
    /// Logs each decision. Default false.
    pub debug: bool,
}

impl Default for Cors {
    fn default() -> Self {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        Self {
            enabled: false,
            allowed_origins: list(&["*"]),
            allowed_methods: list(&["GET", "POST", "PUT", "PATCH", "DELETE"]),
            allowed_headers: list(&["Authorization", "Content-Type"]),
            exposed_headers: list(&["Content-Type"]),
            allow_credentials: false,
            max_age: 0,
            debug: false,
        }
    }
}

/// `serve.http.request_log`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RequestLog {
    /// Leaves `/health/alive` and `/health/ready` out of the request log. Default false.
    pub exclude_health_endpoints: bool,
}

/// `serve.public`: the public plane.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServePublic {
    /// Name or address to bind; empty means `0.0.0.0`. Default `0.0.0.0`.
    pub host: String,
    /// TCP port; 0 takes any free one. Default 4421.
    pub port: u16,
    /// Host names that requests may carry; empty, the default, means any.
    pub allowed_hosts: Vec<String>,
    /// `serve.public.self_revoke`.
    pub self_revoke: SelfRevokeLimit,
    /// `serve.public.cors`.
    pub cors: Cors,
    /// `serve.public.tls`.
    pub tls: Tls,
}

impl Default for ServePublic {
    fn default() -> Self {
        Self {
            host: "0.0.0.0".to_owned(),
            port: 4421,
            allowed_hosts: Vec::new(),
            self_revoke: SelfRevokeLimit::default(),
            cors: Cors::default(),
            tls: Tls::default(),
        }
    }
}

/// `serve.public.self_revoke`: how often selfRevoke may be called, on whichever plane.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SelfRevokeLimit {
    /// Calls a minute from one address (of IPv6: from one /64), all of which may come at once; 0 means any number.
    /// Default 300.
    pub per_address: u32,
    /// Calls a minute from all addresses together; 0 means any number. Default 6000.
    pub total: u32,
}

impl Default for SelfRevokeLimit {
    fn default() -> Self {
        Self { per_address: 300, total: 6_000 }
    }
}

/// `serve.metrics`: metrics and health.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServeMetrics {
    /// Name or address to bind; empty means `0.0.0.0`. Default `127.0.0.1`.
    pub host: String,
    /// TCP port; 0 takes any free one. Default 4422.
    pub port: u16,
    /// `serve.metrics.tls`.
    pub tls: Tls,
}

impl Default for ServeMetrics {
    fn default() -> Self {
        Self { host: "127.0.0.1".to_owned(), port: 4422, tls: Tls::default() }
    }
}

/// `serve.authz`: the ext_authz plane.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServeAuthz {
    /// Name or address to bind; empty means `0.0.0.0`. Default `127.0.0.1`.
    pub host: String,
    /// TCP port; 0 takes any free one. Default 4423.
    pub port: u16,
    /// Path of a Unix socket to listen on instead of `host` and `port`. Unset (or empty) by default.
    #[serde(with = "forms::OptionalPath")]
    pub socket: Option<PathBuf>,
    /// How old a connection becomes before its client is asked to open another, which a load balancer may then send
    /// elsewhere; a tenth more or less, so that they don't all end together. 0 for no end. Default 30m.
    #[serde(with = "forms::Duration")]
    pub max_connection_age: Duration,
    /// `serve.authz.tls`.
    pub tls: Tls,
}

impl Default for ServeAuthz {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 4423,
            socket: None,
            max_connection_age: Duration::from_secs(1_800),
            tls: Tls::default(),
        }
    }
}

/// `serve.*.tls`: PEM files; empty counts as unset.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Certificate chain.
    #[serde(with = "forms::OptionalPath")]
    pub cert_file: Option<PathBuf>,
    /// Private key.
    #[serde(with = "forms::OptionalPath")]
    pub key_file: Option<PathBuf>,
    /// Issuers of the client certificates that are required once this is set.
    #[serde(with = "forms::OptionalPath")]
    pub client_ca_file: Option<PathBuf>,
}

/// What to bind for `host` and `port`: brackets around an IPv6 address, `0.0.0.0` for an empty host.
pub fn listen_address(host: &str, port: u16) -> String {
    match host {
        "" => format!("0.0.0.0:{port}"),
        host if host.contains(':') && !host.starts_with('[') => format!("[{host}]:{port}"),
        host => format!("{host}:{port}"),
    }
}
