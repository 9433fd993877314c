//! The rig: starts the real `talos` and the servers around it, and speaks to them as clients do.
//!
//! The rig has no tests. A test module asks it for a process (`talos::Setup`), a server
//! (`envoy`, `rate_limit_service`, `redis`, `database`, `pairs`), a network that fails (`proxy`) or
//! a clock that jumps (`wall_clock`), and sends requests with `http`, `grpc` and `check`.

#[macro_use]
pub mod needs;

pub mod authority;
pub mod check;
pub mod database;
pub mod edge_module;
pub mod envoy;
pub mod grpc;
pub mod http;
pub mod instances;
pub mod pairs;
pub mod process;
pub mod proxy;
pub mod python;
pub mod random;
pub mod rate_limit_service;
pub mod redis;
pub mod support;
pub mod talos;
pub mod tls;
pub mod upstream;
pub mod wall_clock;
