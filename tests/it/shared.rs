//! Redis as the shared cache: slow, gone, taken over or lying.

mod cluster;
mod degraded;
mod outage;
mod push;
mod tier;
mod tls;
