//! The authz plane: Envoy's ext_authz over gRPC (ext-authz.md). From here on down nobody knows gRPC.

#[cfg(test)]
mod against_envoy;
mod codec;
mod cookie;
mod denied;
mod metadata;
mod policy;
mod query;
mod refusal;
mod request;
mod response;
mod server;
mod sources;
mod template;

pub use server::{Plane, SERVICE_NAME};
pub use template::{MAX_FILE as MAX_TEMPLATE_FILE, TemplateError, Templates};
