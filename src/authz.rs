//! The authz plane: Envoy's ext_authz service over gRPC. The layers below don't know gRPC.
//!
//! `connection` reads and writes a connection, `dispatch` its streams, `server` decides one Check.
//! ARCHITECTURE.md, "A Check", has the order of the other files.

#[cfg(test)]
mod against_envoy;
mod attributes;
mod basic;
mod challenge;
mod charge;
mod check_answer;
mod client_mistake;
mod connection;
mod cookie;
mod denied_response;
mod deny_reason;
mod dispatch;
mod edge;
mod explain;
mod fallback;
mod fallback_body;
mod finish;
mod grpc;
pub(crate) mod header_names;
mod hint;
pub mod identity_headers;
mod keepalive;
mod limits;
mod log_limiter;
mod metadata;
mod path_key;
mod policy;
mod principal;
mod query;
mod reflection;
mod repeated;
mod request;
mod response;
mod server;
mod session;
mod sources;
mod split_response;
mod strip;
mod subprotocol;
mod template;

pub use attributes::Attributes;
pub use check_answer::CheckAnswer;
pub use connection::serve as serve_connection;
pub use dispatch::Server;
pub use explain::RouteExplainer;
pub use fallback::{FallbackService, MAX_FALLBACK_MESSAGE};
pub use limits::ConnectionLimits;
pub use principal::Principal;
pub use reflection::Reflection;
pub use response::{Extras, encode_ok, encode_with_extras};
pub use server::{AuthorizationService, SERVICE_NAME};
pub use template::{MAX_FILE as MAX_TEMPLATE_FILE, TemplateError, Templates};
