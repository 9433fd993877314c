//! The authz plane: Envoy's ext_authz over gRPC (ext-authz.md). From here on down nobody knows gRPC.

#[cfg(test)]
mod against_envoy;
mod codec;
mod policy;
mod request;
mod response;
mod server;

pub use server::{Plane, SERVICE_NAME};
