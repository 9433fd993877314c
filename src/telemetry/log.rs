//! The process's own log: to stderr, as text or JSON lines.

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat, LogLevel};

/// Starts logging. Does nothing when it has begun before.
pub fn start(log: &Log) {
    // What others have to say below info may hold anything that was sent, headers and statements, and the watch over
    // files would tell of the log itself. sqlx has its own levels: what it has to say comes as errors of ours.
    let (level, others) = match log.level {
        LogLevel::Trace | LogLevel::Debug => (log.level.as_str(), LogLevel::Info.as_str()),
        level => (level.as_str(), level.as_str()),
    };
    let filter = EnvFilter::new(format!("{others},talos={level},sqlx=error"));
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
