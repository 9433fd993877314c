//! Metrics of connections and certificates.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::clock::Timestamp;
use crate::plane::Plane;

type ByPlane = [(&'static str, &'static str); 1];
type ByPlaneAndOutcome = [(&'static str, &'static str); 2];

/// Metrics of the connections and certificates of all listeners. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<Families>);

#[derive(Debug, Default)]
struct Families {
    open: Family<ByPlane, Gauge>,
    refused: Family<ByPlaneAndOutcome, Counter>,
    streams_refused: Family<ByPlaneAndOutcome, Counter>,
    certificate_expiry: Family<ByPlane, Gauge>,
    certificate_reloads: Family<ByPlaneAndOutcome, Counter>,
    /// Expiry of the certificates in force, by plane.
    certificates: Mutex<BTreeMap<&'static str, Timestamp>>,
}

/// A reason for which the server closes a connection early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionRefusal {
    /// The address has as many connections as it may have.
    TooManyConnections,
    /// The TLS handshake failed.
    HandshakeFailed,
    /// The TLS handshake took too long.
    SlowHandshake,
    /// The client's certificate is no longer trusted.
    Untrusted,
    /// The header of a request took too long.
    SlowHeader,
    /// A request and its response took too long.
    SlowExchange,
    /// No request came for too long.
    Idle,
    /// The client cancelled most of its requests.
    CancelledRequests,
    /// The client didn't read its responses.
    UnreadResponses,
    /// The connection held more memory than it may.
    Memory,
    /// The client sent too many frames that bring no request forward.
    Abuse,
}

/// A reason for which a stream is refused on a connection that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamRefusal {
    /// The connection, or the process, holds too much memory.
    Memory,
    /// Too many responses of its connection wait for the client's windows.
    PendingResponses,
    /// Too much of its body is unread.
    UnreadBody,
    /// Too many streams of its connection are open that aren't Checks.
    FallbackStreams,
    /// The message is larger than a Check may be.
    MessageTooLarge,
}

impl StreamRefusal {
    const ALL: [Self; 5] = [
        Self::Memory,
        Self::PendingResponses,
        Self::UnreadBody,
        Self::FallbackStreams,
        Self::MessageTooLarge,
    ];

    /// Value of the metric's label `reason`.
    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::PendingResponses => "pending_responses",
            Self::UnreadBody => "unread_body",
            Self::FallbackStreams => "fallback_streams",
            Self::MessageTooLarge => "message_too_large",
        }
    }
}

impl ConnectionRefusal {
    /// Value of the metric's label `reason`.
    const fn name(self) -> &'static str {
        match self {
            Self::TooManyConnections => "too_many",
            Self::HandshakeFailed => "handshake",
            Self::SlowHandshake => "slow_handshake",
            Self::Untrusted => "untrusted",
            Self::SlowHeader => "slow_head",
            Self::SlowExchange => "slow_exchange",
            Self::Idle => "idle",
            Self::CancelledRequests => "given_up",
            Self::UnreadResponses => "untaken_answers",
            Self::Memory => "memory",
            Self::Abuse => "abuse",
        }
    }
}

impl Connections {
    /// Counts a connection as open.
    pub fn opened(&self, plane: Plane) {
        self.0.open.get_or_create(&[("plane", plane.name())]).inc();
    }

    /// Counts a connection as no longer open.
    pub fn closed(&self, plane: Plane) {
        self.0.open.get_or_create(&[("plane", plane.name())]).dec();
    }

    /// Counts a connection that the server closes early.
    pub fn refused(&self, plane: Plane, reason: ConnectionRefusal) {
        self.0.refused.get_or_create(&[("plane", plane.name()), ("reason", reason.name())]).inc();
    }

    /// Counts streams of the authz plane that were refused on a connection that goes on.
    pub fn streams_refused(&self, reason: StreamRefusal, count: u32) {
        let labels = [("plane", Plane::Authz.name()), ("reason", reason.name())];
        self.0.streams_refused.get_or_create(&labels).inc_by(count.into());
    }

    /// Sets the expiry of a plane's certificate.
    pub fn certificate_expires(&self, plane: Plane, at: Timestamp) {
        self.0.certificate_expiry.get_or_create(&[("plane", plane.name())]).set(at.as_secs());
        self.0.certificates.lock().insert(plane.name(), at);
    }

    /// Returns the planes with a certificate, and its expiry.
    pub fn certificates(&self) -> Vec<(&'static str, Timestamp)> {
        self.0.certificates.lock().iter().map(|(plane, at)| (*plane, *at)).collect()
    }

    /// Counts an attempt to put a changed certificate into force.
    pub fn certificate_reloaded(&self, plane: Plane, ok: bool) {
        let outcome = if ok { "applied" } else { "refused" };
        self.0.certificate_reloads.get_or_create(&[("plane", plane.name()), ("outcome", outcome)]).inc();
    }

    /// Adds the metrics to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let Families { open, refused, streams_refused, certificate_expiry, certificate_reloads, .. } =
            &*self.0;
        // Exported from the start, so that the first increase is visible.
        for reason in
            [ConnectionRefusal::UnreadResponses, ConnectionRefusal::Memory, ConnectionRefusal::Abuse]
        {
            let labels = [("plane", Plane::Authz.name()), ("reason", reason.name())];
            let _: &Counter = &refused.get_or_create(&labels);
        }
        for reason in StreamRefusal::ALL {
            let labels = [("plane", Plane::Authz.name()), ("reason", reason.name())];
            let _: &Counter = &streams_refused.get_or_create(&labels);
        }
        registry.register("connections", "Open connections", open.clone());
        registry.register(
            "connections_refused",
            "Connections that the server closed early, by reason",
            refused.clone(),
        );
        registry.register(
            "streams_refused",
            "Streams of the authz plane refused for memory, their size or their number, by reason",
            streams_refused.clone(),
        );
        registry.register(
            "tls_certificate_expiry_timestamp_seconds",
            "Expiry of the listener's certificate, as Unix time",
            certificate_expiry.clone(),
        );
        registry.register(
            "tls_certificate_reloads",
            "Reloads of changed certificate files, by outcome",
            certificate_reloads.clone(),
        );
    }
}
