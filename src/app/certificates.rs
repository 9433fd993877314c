//! Reloads the certificates of the listeners when their files change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::accept::Acceptor;
use super::watched::{Fingerprint, Watched, fingerprint};
use crate::clock::{Clock, Timestamp};
use crate::http::Context;
use crate::plane::Plane;
use crate::telemetry::connections::Connections;
use crate::tls::Identity;

/// Time between two looks at the files, beside notifications.
const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// Remaining validity from which on a certificate is worth a warning.
const WARN_BEFORE: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// Time between two such warnings.
const WARN_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// The certificates of all listeners with TLS.
pub(super) struct Certificates {
    listeners: Vec<Listener>,
    hangup: Signal,
    clock: Clock,
    metrics: Connections,
}

struct Listener {
    plane: Plane,
    identity: Arc<Identity>,
    warned_at: Option<Timestamp>,
}

impl Certificates {
    /// The certificates of these listeners. From now on SIGHUP doesn't end the process.
    ///
    /// # Errors
    /// When the operating system refuses a signal handler.
    pub(super) fn new(acceptors: &[Acceptor], context: &Context) -> std::io::Result<Self> {
        let metrics = context.metrics.connections.clone();
        let with_tls = acceptors.iter().filter_map(|acceptor| {
            let (plane, identity) = (acceptor.plane(), acceptor.identity()?);
            metrics.certificate_expires(plane, identity.expires());
            Some(Listener { plane, identity, warned_at: None })
        });
        let listeners = with_tls.collect();
        let clock = context.service.clock.clone();
        Ok(Self { listeners, hangup: signal(SignalKind::hangup())?, clock, metrics })
    }

    /// Reloads certificates forever.
    pub(super) async fn run(mut self) {
        let mut watched: Watched<Fingerprint> = Watched::by_notification(POLL_INTERVAL, fingerprint);
        let files = self.listeners.iter().flat_map(|listener| listener.identity.files().paths());
        watched.set_files(files.cloned());
        loop {
            let reload_all = tokio::select! {
                () = watched.wait() => false,
                _ = self.hangup.recv() => true,
            };
            // The first look finds all files changed: they may have, since the start read them.
            let changed = watched.look().await;
            let now = self.clock.now();
            for listener in &mut self.listeners {
                if reload_all || listener.is_made_of_any(&changed) {
                    listener.reload(&self.metrics);
                }
                listener.warn_of_expiry(now);
            }
        }
    }
}

impl Listener {
    fn is_made_of_any(&self, changed: &[PathBuf]) -> bool {
        self.identity.files().paths().any(|file| changed.contains(file))
    }

    fn reload(&mut self, metrics: &Connections) {
        let plane = self.plane.name();
        match self.identity.reload() {
            Ok(false) => {}
            Ok(true) => {
                let expires = self.identity.expires();
                tracing::info!(plane, expires = expires.to_rfc3339(), "a new certificate is in force");
                metrics.certificate_expires(self.plane, expires);
                metrics.certificate_reloaded(self.plane, true);
                self.warned_at = None;
            }
            Err(problem) => {
                tracing::error!(plane, %problem, "a certificate was refused; the one in force stays");
                metrics.certificate_reloaded(self.plane, false);
            }
        }
    }

    fn warn_of_expiry(&mut self, now: Timestamp) {
        let expires = self.identity.expires();
        let is_due = self.warned_at.is_none_or(|warned_at| warned_at.plus(WARN_INTERVAL) <= now);
        if !is_due || now.plus(WARN_BEFORE) < expires {
            return;
        }
        self.warned_at = Some(now);
        let (plane, at) = (self.plane.name(), expires.to_rfc3339());
        match expires <= now {
            true => tracing::error!(
                plane,
                at,
                "the certificate has expired: clients refuse it; replace its files"
            ),
            false => tracing::warn!(plane, at, "the certificate expires soon; replace its files"),
        }
    }
}
