//! Certificates of the listeners, in a status.

use serde::Serialize;

use crate::clock::Timestamp;
use crate::telemetry::connections::Connections;

/// Certificate of a listener.
#[derive(Debug, Serialize)]
pub struct Certificate {
    /// Plane of the listener.
    pub plane: &'static str,
    /// End of its validity, as RFC 3339.
    pub expire_time: String,
    /// True if that is past.
    pub expired: bool,
}

impl Certificate {
    /// Returns the certificates in force.
    pub(super) fn read_all(connections: &Connections, now: Timestamp) -> Vec<Self> {
        let certificates = connections.certificates().into_iter();
        certificates
            .map(|(plane, expires)| Self {
                plane,
                expire_time: expires.to_rfc3339(),
                expired: expires <= now,
            })
            .collect()
    }

    /// Returns the problem of one that has expired.
    pub(super) fn problem(&self) -> Option<String> {
        let Self { plane, expire_time, expired } = self;
        expired.then(|| {
            format!("the certificate of the plane {plane} expired at {expire_time}: clients refuse it; replace its files")
        })
    }
}
