//! The authz plane: Envoy's ext_authz over gRPC (ext-authz.md). From here on down nobody knows gRPC.

#[cfg(test)]
mod against_envoy;
mod codec;
mod cookie;
mod policy;
mod query;
mod reflection;
mod request;
mod response;
mod server;
mod sources;

pub use reflection::Reflection;
pub use server::{Plane, SERVICE_NAME};
