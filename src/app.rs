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
mod http_memory;
mod jwks_refresh;
mod limits;
mod listeners;
mod polling;
mod progress;
mod relay;
mod reload;
mod serve;
mod shrink_guard;
mod signals;
mod stream;
mod tasks;
mod unadopted;
mod watched;
mod workers;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use build::build;
pub use denied_templates::{TemplateFileError, read as read_templates};
pub use error::ServeError;
pub use serve::serve;
