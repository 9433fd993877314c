//! The authz plane: ext_authz over gRPC, as Envoy calls it. No layer below it knows gRPC.

#[cfg(test)]
mod against_envoy;
mod attributes;
mod connection;
mod cookie;
mod denied;
mod dispatch;
mod fallback;
mod fallback_body;
mod grpc;
mod keepalive;
mod limits;
mod metadata;
mod policy;
mod query;
mod reflection;
mod refusal;
mod request;
mod response;
mod server;
mod session;
mod sources;
mod template;

pub use attributes::Attributes;
pub use connection::serve as serve_connection;
pub use dispatch::Server;
pub use fallback::{FallbackService, MAX_FALLBACK_MESSAGE};
pub use limits::ConnectionLimits;
pub use reflection::Reflection;
pub use response::{Caller, Extras, ok as ready_answer, with as answer_with};
pub use server::{AuthorizationService, SERVICE_NAME};
pub use template::{MAX_FILE as MAX_TEMPLATE_FILE, TemplateError, Templates};
