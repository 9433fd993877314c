//! The process: built from a configuration, served on its listeners, drained and ended.

mod accept;
mod background;
mod bounds;
mod callers;
mod certificates;
mod connections;
mod deny;
mod listeners;
mod reload;
mod serve;
mod signals;
mod watch;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use serve::build;
pub use serve::{Planes, ServeError, serve};
