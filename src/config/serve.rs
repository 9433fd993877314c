//! `serve.*`: the listeners.

use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::admin::Auth;
use super::serde_forms;
use crate::plane::{Plane, Planes};

/// `serve`: one section per plane.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Serve {
    /// The admin plane.
    pub http: ServeHttp,
    /// The public plane.
    pub public: ServePublic,
    /// The metrics plane.
    pub metrics: ServeMetrics,
    /// The ext_authz plane.
    pub authz: ServeAuthz,
}

impl Serve {
    /// The plane whose section sets the TCP listener of `plane`, in a process that serves `planes`:
    /// itself. Only `talos serve public` takes `serve.http` if that differs from its default and
    /// `serve.public` doesn't, as in Ory's files, which have no other.
    pub fn section(&self, planes: Planes, plane: Plane) -> Plane {
        let (public, http) = (ServePublic::default(), ServeHttp::default());
        let is_moved = (&self.http.host, self.http.port) != (&http.host, http.port);
        let is_default = (&self.public.host, self.public.port) == (&public.host, public.port);
        match plane {
            Plane::Public if planes == Planes::Only(plane) && is_moved && is_default => Plane::Admin,
            plane => plane,
        }
    }

    /// Host, port and TLS files of the TCP listener of `plane`, in a process that serves `planes`.
    pub fn address(&self, planes: Planes, plane: Plane) -> (&str, u16, &Tls) {
        match self.section(planes, plane) {
            Plane::Admin => (&self.http.host, self.http.port, &self.http.tls),
            Plane::Public => (&self.public.host, self.public.port, &self.public.tls),
            Plane::Authz => (&self.authz.host, self.authz.port, &self.authz.tls),
            Plane::Metrics => (&self.metrics.host, self.metrics.port, &self.metrics.tls),
        }
    }
}

/// Returns true if the metrics listener may take another port than its default: it shares the host
/// with other planes, each in a process of its own, and nobody configured a port.
pub fn chooses_metrics_port(planes: Planes, is_metrics_port_set: bool) -> bool {
    matches!(planes, Planes::Only(_)) && !is_metrics_port_set
}

/// `serve.http`: the admin plane.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServeHttp {
    /// Name or address to bind; empty means `0.0.0.0`. Default `127.0.0.1` (Ory's is `0.0.0.0`).
    pub host: String,
    /// TCP port; 0 takes any free one. Default 4420.
    pub port: u16,
    /// Path of a Unix socket to listen on, beside `host` and `port`, for the users in
    /// `auth.unix_uids`. Unset (or empty) by default.
    #[serde(with = "serde_forms::OptionalPath")]
    pub socket: Option<PathBuf>,
    /// Source of a caller's address. Default: the peer of the connection.
    pub client_ip_source: ClientIpSource,
    /// If true, `X-Forwarded-Host` names the tenant, and is judged in place of `Host` where the
    /// peer is trusted: with `trusted_network`, an `auth.mode`, or over the socket. Default false.
    pub trust_forwarded_host: bool,
    /// Declares that only trusted peers reach this listener, so that `auth.mode: none` may bind
    /// beyond loopback. Default false.
    pub trusted_network: bool,
    /// Host names that requests may have, beside IP addresses and the names of loopback: a name,
    /// `*.name` for all names below it, or `*` for any. Default: none.
    pub allowed_hosts: Vec<String>,
    /// `serve.http.auth`.
    pub auth: Auth,
    /// `serve.http.console`.
    pub console: Console,
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
            console: Console::default(),
            cors: Cors::default(),
            request_log: RequestLog::default(),
            tls: Tls::default(),
        }
    }
}

/// Source of a caller's address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[schemars(transform = with_unspecified)]
pub enum ClientIpSource {
    /// The peer of the connection. Ory's `CLIENT_IP_SOURCE_UNSPECIFIED` means the same.
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

/// Adds the alias, which the generated schema lacks.
fn with_unspecified(schema: &mut Schema) {
    if let Some(Value::Array(names)) = schema.get_mut("oneOf") {
        names.push(json!({
            "description": "The same as `CLIENT_IP_SOURCE_REMOTE_ADDR`.",
            "type": "string",
            "const": "CLIENT_IP_SOURCE_UNSPECIFIED"
        }));
    }
}

/// `serve.{http,public}.cors`, with the names and defaults of Ory's services.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cors {
    /// If true, CORS requests are answered. Default false.
    pub enabled: bool,
    /// Allowed origins. Default `*`.
    pub allowed_origins: Vec<String>,
    /// Allowed methods. Default GET, POST, PUT, PATCH, DELETE.
    pub allowed_methods: Vec<String>,
    /// Allowed request headers. Default Authorization, Content-Type.
    pub allowed_headers: Vec<String>,
    /// Response headers that pages may read. Default Content-Type.
    pub exposed_headers: Vec<String>,
    /// If true, requests may have cookies and client certificates. Default false.
    pub allow_credentials: bool,
    /// Seconds for which the answer to a preflight may be cached. Default 0.
    pub max_age: u64,
    /// If true, each decision is logged. Default false.
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

/// `serve.http.console`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Console {
    /// If true, the admin plane serves the console at `/console/`, and both HTTP planes the page of
    /// holders of keys at `/keys`. Default true.
    pub enabled: bool,
}

impl Default for Console {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// `serve.http.request_log`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RequestLog {
    /// If true, `/health/alive` and `/health/ready` aren't logged. Default false.
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
    /// Host names that requests may have; empty, the default, means any.
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

/// `serve.public.self_revoke`: rate limits of selfRevoke, on all planes.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SelfRevokeLimit {
    /// Calls per minute from one address (of IPv6: from one /64), which may come at once; 0 means
    /// any number. Default 300.
    pub per_address: u32,
    /// Calls per minute from all addresses together; 0 means any number. Default 6000.
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
    /// Path of a Unix socket to listen on instead of `host` and `port`. Unset (or empty) by
    /// default.
    #[serde(with = "serde_forms::OptionalPath")]
    pub socket: Option<PathBuf>,
    /// Age of a connection, within 10 %, at which its client is asked to open another, which a load
    /// balancer may send to another instance. 0 means never. A connection of the accelerator has no
    /// such age. Default 30m.
    #[serde(with = "serde_forms::Duration")]
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
    #[serde(with = "serde_forms::OptionalPath")]
    pub cert_file: Option<PathBuf>,
    /// Private key.
    #[serde(with = "serde_forms::OptionalPath")]
    pub key_file: Option<PathBuf>,
    /// CAs of client certificates, which are required if this is set.
    #[serde(with = "serde_forms::OptionalPath")]
    pub client_ca_file: Option<PathBuf>,
}

/// Address to bind for `host` and `port`, with brackets around an IPv6 address, and `0.0.0.0` for
/// an empty host.
pub fn listen_address(host: &str, port: u16) -> String {
    match host {
        "" => format!("0.0.0.0:{port}"),
        host if host.contains(':') && !host.starts_with('[') => format!("[{host}]:{port}"),
        host => format!("{host}:{port}"),
    }
}
