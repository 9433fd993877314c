//! Reasons for which serving doesn't begin, or ends.

use super::denied_templates::TemplateFileError;
use super::deny_file::DenyFileError;
use super::listeners::BindError;
use super::tasks::TaskFailure;
use crate::audit::AuditError;
use crate::config::Problem;
use crate::plane::Plane;
use crate::redis::RedisSettingsError;
use crate::settings::SettingsError;
use crate::store::StoreError;
use crate::telemetry::traces::TracesError;
use crate::tls::TlsError;

/// A failure that stops the start, or ends the running process.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration can't be served; all problems, one per line.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Preflight(Vec<Problem>),
    /// No settings can be made of the configuration.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The database can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// `consistency.deny_file` can't be used.
    #[error(transparent)]
    DenyFile(#[from] DenyFileError),
    /// `authz.denied_template_file` can't be used.
    #[error(transparent)]
    TemplateFile(#[from] TemplateFileError),
    /// `audit.file` can't be used.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// Traces can't be exported.
    #[error(transparent)]
    Traces(#[from] TracesError),
    /// Redis can't be used as it is configured.
    #[error(transparent)]
    Redis(#[from] RedisSettingsError),
    /// The key set of the admin callers' token issuer can't be used.
    #[error("serve.http.auth.jwt.jwks: {0}")]
    AdminJwks(String),
    /// A listener can't be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The gRPC reflection service can't be built.
    #[error("gRPC server reflection can't be built: {0}")]
    Reflection(String),
    /// A listener's certificate can't be used.
    #[error("serve.{}.tls: {problem}", plane.section())]
    Tls {
        /// The plane whose section names the files.
        plane: Plane,
        /// Reason.
        problem: TlsError,
    },
    /// The operating system refuses threads or signal handlers.
    #[error("the operating system refuses a thread or a signal handler: {0}")]
    System(#[from] std::io::Error),
    /// A task has ended that must run until the process stops.
    #[error("{0}; the process can't go on without it")]
    Task(#[from] TaskFailure),
    /// A second signal cut the drain short.
    #[error("{0} came while requests in flight were completed: stopped at once")]
    Interrupted(&'static str),
}
