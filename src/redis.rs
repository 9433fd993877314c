//! Client for Redis that the shared cache tier and the rate limiter use: one server or a cluster,
//! over TLS or plaintext, reconnected in the background, behind a circuit breaker.

mod breaker;
mod client;
mod connection;
mod endpoint;
mod probe;
mod settings;
mod tls;

pub(crate) use ::redis::RedisResult;
pub use breaker::BreakerState;
pub(crate) use client::{RedisClient, Subscription};
pub(crate) use probe::probe;
pub use settings::{RedisSettings, RedisSettingsError, RedisTls};
