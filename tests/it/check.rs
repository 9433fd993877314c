//! The authz plane itself, asked over gRPC as Envoy asks it.

mod answers;
mod io;
mod policy;
