//! The process: built from a configuration, served on its listeners, drained and ended.

mod accept;
mod background;
mod bounds;
mod callers;
mod certificates;
mod connections;
mod denied;
mod deny;
mod listeners;
mod pace;
mod recheck;
mod relay;
mod reload;
mod serve;
mod signals;
mod watch;
mod workers;

pub use denied::{TemplateFileError, read as read_templates};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use serve::build;
pub use serve::{Planes, ServeError, serve};
