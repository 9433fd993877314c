//! The authz plane itself, asked over gRPC as Envoy asks it.

mod addresses;
mod answers;
mod cold;
mod io;
mod policy;
mod refusals;
mod routes;
