//! The process's own log: to stderr, as text or JSON lines.

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Starts logging. Does nothing when it has begun before.
pub fn start(log: &Log) {
    // sqlx logs statements and slow queries at its own levels: what it has to say comes as errors of ours.
    let filter = EnvFilter::new(format!("{},sqlx=error", log.level.as_str()));
    // What can't be written is lost. Told to complain on stderr, it would panic when that is what can't be written to.
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .log_internal_errors(false)
        .with_env_filter(filter);
    let _ = match log.format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder.with_ansi(false).try_init(),
    };
}
