//! L2: what processes share through Redis, and what happens when it is slow, gone, taken over or lying.

mod cluster;
mod outage;
mod push;
mod tier;
mod tls;
