//! Configuration: defaults, overridden by a YAML file, overridden by environment variables.
//!
//! Loading returns a [`Config`] whose values are all checked, or an error that names each wrong key
//! and where it was set. Nothing here reads the environment of the process: it is an argument.

mod admin;
mod advice;
mod audit_file;
mod authz;
mod cache;
mod contradictions;
mod credential_source;
mod credentials;
mod env;
mod error;
mod file;
mod issuance;
mod key_path;
mod keys;
mod listeners;
mod lists;
mod load;
mod location;
mod merged_config;
mod model;
mod openings;
mod placeholders;
mod reload;
mod retired;
mod route_name;
mod routes;
mod schema;
mod secrets;
mod serde_forms;
mod serve;
mod show;
mod suggest;
mod tenants;
mod text;
mod usage;
mod validate;

pub use admin::{Auth, AuthJwt, AuthMode, AuthRoles, AuthXfcc};
pub use authz::{Authz, ClientAddress, Edge, OnUnavailable, Preflight};
pub use cache::{Cache, CacheMemory, CacheRedis, CacheType, RedisTls};
pub use credential_source::{CredentialSource, HeaderForm, KeyIn};
pub use credentials::{
    ApiKeyPrefixes, ApiKeys, Credentials, DerivedTokens, HmacSecrets, Jwt, Macaroon, MacaroonPrefixes,
    Secrets, SigningKeys,
};
pub use error::{ConfigError, Problem};
pub use issuance::{
    ApplyTo, IssuancePolicy, MAX_POLICIES, PatternText, PolicyMatch, PolicyTime, PolicyVisibility, ScopeSet,
    problem_of_count, problems_of,
};
pub use key_path::{KeyPath, PathSegment};
pub(crate) use lists::optional_list_up_to;
pub use load::{Loaded, Source, load, load_without_admin};
pub use location::Location;
pub use model::{
    Audit, Config, Consistency, Db, Errors, LastUsed, Log, LogFormat, LogLevel, Metrics, MetricsCompat,
    Multitenancy, Network, Quota, RateLimit, RateLimitBackend, TraceExporter, Tracing,
};
pub use reload::Change;
pub use retired::Retired;
pub use route_name::{RouteName, RouteNameError};
pub use routes::{
    Audience, PathMatch, PolicyValueError, Route, RouteCost, RouteMode, RouteToken, RouteVisibility,
    ScopeList,
};
pub use schema::{description, schema};
pub use serve::{
    ClientIpSource, Console, Cors, RequestLog, SelfRevokeLimit, Serve, ServeAuthz, ServeHttp, ServeMetrics,
    ServePublic, Tls, chooses_metrics_port, listen_address,
};
pub use show::EffectiveSetting;
pub use tenants::KeySetUrl;
pub use usage::Usage;

#[cfg(test)]
mod error_tests;
#[cfg(test)]
mod tests;
