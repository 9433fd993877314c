//! The authz plane: Envoy's ext_authz over gRPC (ext-authz.md). Below it nobody knows gRPC.

#[cfg(test)]
mod against_envoy;
mod attributes;
mod connection;
mod cookie;
mod denied;
mod forward;
mod grpc;
mod memory;
mod metadata;
mod policy;
mod query;
mod reflection;
mod refusal;
mod request;
mod response;
mod server;
mod silence;
mod sources;
mod template;

pub use attributes::Attributes;
pub use connection::{Bounds, Server, serve as serve_connection};
pub use forward::{MAX_OTHER_MESSAGE, Others};
pub use memory::{MemoryLimits, MemoryPool};
pub use reflection::Reflection;
pub use response::{Caller, Extras, ok as ready_answer, with as answer_with};
pub use server::{Plane, SERVICE_NAME};
pub use template::{MAX_FILE as MAX_TEMPLATE_FILE, TemplateError, Templates};
