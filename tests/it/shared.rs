//! L2: what processes share through Redis, and what happens when it is slow, gone, taken over or lying.

mod outage;
mod tier;
mod tls;
