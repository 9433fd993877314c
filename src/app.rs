//! The process: built from a configuration, served on its listeners, drained and ended.

mod accept;
mod background;
mod bounds;
mod certificates;
mod connections;
mod denied;
mod deny;
mod listeners;
mod reload;
mod serve;
mod signals;
mod watch;

pub use denied::{TemplateFileError, read as read_templates};
pub use serve::{Planes, ServeError, serve};
