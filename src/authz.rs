//! The authz plane: Envoy's ext_authz over gRPC (ext-authz.md). Below it nobody knows gRPC.

#[cfg(test)]
mod against_envoy;
mod connection;
mod cookie;
mod forward;
mod gathered;
mod grpc;
mod policy;
mod query;
mod request;
mod response;
mod server;
mod sources;

pub use connection::{Bounds, Server, serve as serve_connection};
pub use forward::Others;
pub use server::{Plane, SERVICE_NAME};
