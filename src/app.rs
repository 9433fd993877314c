//! The process: built from a configuration, served on its listeners, drained and ended.

mod accept;
mod background;
mod bounds;
mod callers;
mod certificates;
mod connections;
mod deny;
mod listeners;
mod pace;
mod reload;
mod serve;
mod signals;
mod watch;

pub use serve::{Planes, ServeError, serve};
