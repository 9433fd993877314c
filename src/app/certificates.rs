//! Certificates of the listeners, kept in step with their files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::watch::{Fingerprint, Watch, fingerprint};
use crate::clock::{Clock, Timestamp};
use crate::telemetry::connections::Connections;
use crate::tls::Identity;

/// How long to wait once a file changes: certificate and key are written one after the other.
const SETTLE: Duration = Duration::from_millis(200);
/// How often files are looked at although nothing was noticed.
const POLL: Duration = Duration::from_secs(10);
/// How long before its end a certificate is worth a warning.
const WARN_BEFORE: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// How often that warning is repeated.
const WARN_AGAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// The certificates of all listeners that have some.
pub struct Certificates {
    listeners: Vec<Listener>,
    hangup: Signal,
    clock: Clock,
    counted: Connections,
}

struct Listener {
    plane: &'static str,
    identity: Arc<Identity>,
    /// The files as they were when they were last read.
    seen: BTreeMap<PathBuf, Fingerprint>,
    warned: Option<Timestamp>,
}

impl Certificates {
    /// Begins with what is in force.
    ///
    /// # Errors
    /// When SIGHUP can't be listened for.
    pub fn new(
        identities: Vec<(&'static str, Arc<Identity>)>,
        clock: Clock,
        counted: Connections,
    ) -> std::io::Result<Self> {
        let listeners = identities.into_iter().map(|(plane, identity)| {
            counted.certificate_expires(plane, identity.expires());
            Listener { plane, identity, seen: BTreeMap::new(), warned: None }
        });
        let listeners = listeners.collect();
        Ok(Self { listeners, hangup: signal(SignalKind::hangup())?, clock, counted })
    }

    /// Goes on for ever.
    pub async fn run(mut self) {
        let mut watch = Watch::new();
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let files: Vec<PathBuf> = self
                .listeners
                .iter()
                .flat_map(|listener| listener.identity.files().paths().cloned())
                .collect();
            watch.set(&files);
            let mut all = false;
            tokio::select! {
                () = watch.changed() => sleep(SETTLE).await,
                _ = poll.tick() => {}
                _ = self.hangup.recv() => all = true,
            }
            let now = self.clock.now();
            for listener in &mut self.listeners {
                if listener.has_changed() || all {
                    listener.read_again(&self.counted);
                }
                listener.warn(now);
            }
        }
    }
}

impl Listener {
    /// Whether a file has other content than it had. The first look finds all of them changed: they may have, since
    /// they were read for the start.
    fn has_changed(&mut self) -> bool {
        // Looked at before they are read: what changes in between is noticed the next time.
        let now = self.identity.files().paths().map(|file| (file.clone(), fingerprint(file))).collect();
        let changed = self.seen != now;
        self.seen = now;
        changed
    }

    fn read_again(&mut self, counted: &Connections) {
        let plane = self.plane;
        match self.identity.read_again() {
            Ok(false) => {}
            Ok(true) => {
                let expires = self.identity.expires();
                tracing::info!(plane, expires = expires.to_rfc3339(), "a new certificate is in force");
                counted.certificate_expires(plane, expires);
                counted.certificate_read(plane, true);
                self.warned = None;
            }
            Err(problem) => {
                tracing::error!(plane, %problem, "a certificate was refused; the one in force stays");
                counted.certificate_read(plane, false);
            }
        }
    }

    fn warn(&mut self, now: Timestamp) {
        let expires = self.identity.expires();
        let due = self.warned.is_none_or(|warned| warned.plus(WARN_AGAIN) <= now);
        if !due || now.plus(WARN_BEFORE) < expires {
            return;
        }
        self.warned = Some(now);
        let (plane, at) = (self.plane, expires.to_rfc3339());
        match expires <= now {
            true => tracing::error!(plane, at, "the certificate has expired: its clients refuse it"),
            false => tracing::warn!(plane, at, "the certificate expires soon"),
        }
    }
}
