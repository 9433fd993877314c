//! Black-box tests: the real `talos` process, a real Envoy, HTTP and gRPC on loopback. Nothing of
//! the library is called.
#![allow(
    clippy::expect_used,
    clippy::large_futures,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a failing test panics, takes the memory that it likes, and exports nothing"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "these tests stand outside of the process and wait on the real clock"
)]

#[macro_use]
mod rig;

mod accelerated;
mod accelerator;
mod admin;
mod audit;
mod check;
mod cli;
mod clients;
mod config;
mod cost;
mod doctor;
mod edge;
mod follow;
mod garbage;
mod governing;
mod guide;
mod life;
mod limit;
mod matrix;
mod moving;
mod oracle;
mod outage;
mod planes;
mod readme;
mod secure;
mod shared;
mod telemetry;
mod tenants;
mod usage;
mod wire;
