//! What is counted of connections and certificates.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::clock::Timestamp;

type ByPlane = [(&'static str, &'static str); 1];
type ByOutcome = [(&'static str, &'static str); 2];

/// Connections and certificates of all listeners. A clone counts the same.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<Families>);

#[derive(Debug, Default)]
struct Families {
    open: Family<ByPlane, Gauge>,
    refused: Family<ByOutcome, Counter>,
    certificate_expiry: Family<ByPlane, Gauge>,
    certificate_reloads: Family<ByOutcome, Counter>,
}

/// Why a connection was closed by us before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Its address has as many as it may have.
    TooMany,
    /// No handshake came about.
    Handshake,
    /// The handshake took too long.
    SlowHandshake,
    /// Its client's certificate isn't trusted any more.
    Untrusted,
    /// The head of a request took too long.
    SlowHead,
    /// A request and its answer took too long.
    SlowExchange,
    /// It had no request for too long.
    Idle,
    /// Its client gave up most of its requests.
    GivenUp,
    /// Its client didn't take its answers.
    UntakenAnswers,
    /// It held more memory than it may.
    Memory,
}

impl Refused {
    const fn name(self) -> &'static str {
        match self {
            Self::TooMany => "too_many",
            Self::Handshake => "handshake",
            Self::SlowHandshake => "slow_handshake",
            Self::Untrusted => "untrusted",
            Self::SlowHead => "slow_head",
            Self::SlowExchange => "slow_exchange",
            Self::Idle => "idle",
            Self::GivenUp => "given_up",
            Self::UntakenAnswers => "untaken_answers",
            Self::Memory => "memory",
        }
    }
}

impl Connections {
    /// Counts a connection that is there from now on.
    pub fn opened(&self, plane: &'static str) {
        self.0.open.get_or_create(&[("plane", plane)]).inc();
    }

    /// Counts one that isn't any more.
    pub fn closed(&self, plane: &'static str) {
        self.0.open.get_or_create(&[("plane", plane)]).dec();
    }

    /// Counts one that was closed by us.
    pub fn refused(&self, plane: &'static str, why: Refused) {
        self.0.refused.get_or_create(&[("plane", plane), ("reason", why.name())]).inc();
    }

    /// Notes when the certificate that a listener shows expires.
    pub fn certificate_expires(&self, plane: &'static str, at: Timestamp) {
        self.0.certificate_expiry.get_or_create(&[("plane", plane)]).set(at.as_secs());
    }

    /// Counts an attempt to put a new certificate into force.
    pub fn certificate_read(&self, plane: &'static str, ok: bool) {
        let outcome = if ok { "applied" } else { "refused" };
        self.0.certificate_reloads.get_or_create(&[("plane", plane), ("outcome", outcome)]).inc();
    }

    /// Puts them on the page.
    pub fn register(&self, registry: &mut Registry) {
        let Families { open, refused, certificate_expiry, certificate_reloads } = &*self.0;
        // From the start there is something to compare later values with.
        for why in [Refused::UntakenAnswers, Refused::Memory] {
            let _: &Counter = &refused.get_or_create(&[("plane", "authz"), ("reason", why.name())]);
        }
        registry.register("connections", "Open connections", open.clone());
        registry.register("connections_refused", "Connections closed by us, by reason", refused.clone());
        registry.register(
            "tls_certificate_expiry_timestamp_seconds",
            "When the certificate in force expires, in unix time",
            certificate_expiry.clone(),
        );
        registry.register(
            "tls_certificate_reloads",
            "Changed certificate files, by what became of them",
            certificate_reloads.clone(),
        );
    }
}
