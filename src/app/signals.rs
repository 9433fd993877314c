//! Signals that stop the process.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT. Once this exists they no longer end the process by themselves.
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the operating system refuses a signal handler.
    pub(super) fn new() -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Resolves with the name of the next signal.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
