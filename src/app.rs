//! The process: built from a configuration, served on its listeners, drained and ended.

mod background;
mod connections;
mod deny;
mod listeners;
mod serve;
mod signals;

pub use serve::{Planes, ServeError, serve};
