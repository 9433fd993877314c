//! The authz plane itself, asked over gRPC as Envoy asks it.

mod answers;
mod cold;
mod io;
mod policy;
