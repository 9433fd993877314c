//! Client for Redis that the shared cache tier and the rate limiter use: one server, the primary
//! that Sentinels name, or a cluster, over TLS or plaintext, reconnected in the background, behind
//! a circuit breaker.

mod breaker;
mod cause;
mod client;
mod connection;
mod endpoint;
mod health;
mod probe;
mod sentinel;
mod settings;
#[cfg(feature = "sim")]
#[doc(hidden)]
pub mod simulated;
mod single;
mod tls;

pub(crate) use ::redis::RedisResult;
pub use breaker::BreakerState;
pub use cause::{Cause, CauseKind};
pub(crate) use client::{RedisClient, RedisUse, Subscription};
pub use health::RedisReport;
pub(crate) use probe::{check, probe};
pub use settings::{RedisSentinel, RedisSettings, RedisSettingsError, RedisTls};
