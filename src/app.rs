//! The process: built from a configuration, served on its listeners, drained and ended.

mod background;
mod connections;
pub mod lifecycle;
mod listeners;
mod serve;

pub use serve::{Planes, ServeError, serve};
