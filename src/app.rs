//! The process: built from a configuration, served on its listeners, drained when it stops.

mod accept;
mod background;
mod bind;
mod build;
mod certificates;
mod connections;
mod container;
mod denied_templates;
mod deny_file;
mod end_when;
mod error;
mod fallback;
mod handshake_limit;
mod http_memory;
mod jwks_refresh;
mod limits;
mod listeners;
mod log_ages;
mod paths;
mod polling;
mod preflight;
mod probes;
mod progress;
#[cfg(not(feature = "sim"))]
mod relay;
#[cfg(feature = "sim")]
#[doc(hidden)]
pub mod relay;
mod reload;
mod serve;
mod shrink_guard;
mod signals;
mod start_log;
mod stream;
mod tasks;
mod turns;
mod unadopted;
mod upkeep;
mod watched;
mod workers;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use build::build;
pub use error::ServeError;
pub use preflight::{Options, Preflight, preflight};
pub use probes::{Probe, probe};
pub use serve::serve;
