//! Reasons for which a stream ends.

use tonic::{Code, Status};

use super::PROTOCOL;
use crate::cache::freshness::LineageEnded;

/// Reason for which a stream ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// The module has ended it, or its process is gone.
    #[error("the module closed it, or is gone")]
    Closed,
    /// The process stops.
    #[error("the server stops")]
    Stopping,
    /// The stream was switched off.
    #[error("authz.edge.enabled is false")]
    Disabled,
    /// The log was rewritten.
    #[error(transparent)]
    Rewritten(#[from] LineageEnded),
    /// No Hello came in time, or something else came first.
    #[error("the first message must be a Hello")]
    NoHello,
    /// The module speaks other versions of the protocol.
    #[error("the module speaks versions {0} to {1} of the protocol, the server {PROTOCOL}")]
    Version(u32, u32),
    /// No Tick came for too long.
    #[error("no Tick came for 10 s")]
    Silent,
    /// Ticks came too often, or not in order.
    #[error("Ticks must be numbered in order, at most 20 a second")]
    Ticks,
    /// A message exceeds a bound, or can't be read or written.
    #[error("{}", .0.message())]
    Message(#[from] Status),
    /// The process fails.
    #[error("an internal task failed")]
    Internal,
}

impl Ended {
    /// Returns the name for metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Stopping => "stopping",
            Self::Disabled => "disabled",
            Self::Rewritten(_) => "rewritten",
            Self::NoHello => "no_hello",
            Self::Version(..) => "version",
            Self::Silent => "silent",
            Self::Ticks => "ticks",
            Self::Message(_) => "message",
            Self::Internal => "internal",
        }
    }

    /// Returns the status that the module is sent.
    pub(super) fn status(&self) -> Status {
        let code = match self {
            Self::Closed => Code::Ok,
            Self::Stopping => Code::Unavailable,
            Self::Disabled | Self::Version(..) => Code::FailedPrecondition,
            Self::Rewritten(_) => Code::Aborted,
            Self::NoHello | Self::Ticks => Code::InvalidArgument,
            Self::Silent => Code::DeadlineExceeded,
            Self::Message(status) => status.code(),
            Self::Internal => Code::Internal,
        };
        Status::new(code, self.to_string())
    }
}
