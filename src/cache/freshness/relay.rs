//! Relay of the log to instances that can't reach the database, by those that can.
//!
//! The instance that is cut off sends a request with a random number, its nonce. Another instance
//! that has read the request polls the database *after* that, and responds with the nonce and with
//! the log from where the sender left off. The response has whatever was committed before the nonce
//! was made, so the relayed lease counts from that moment, by the clock of the nonce's maker. A
//! response that is repeated, late or old counts from its own nonce and extends nothing.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use super::Freshness;
use super::ledger::Lease;
use super::poll::lease_from;
use crate::mutants::{self, Mutant};
use crate::rng::Rng;
use crate::store::LogEntry;

/// Most log entries in one response. An instance that is further behind needs several.
pub const MAX_RELAY_ENTRIES: usize = 4_096;
/// Most requests that wait for a response; a further one replaces the oldest.
const MAX_OPEN_REQUESTS: usize = 64;

/// Request for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayRequest {
    /// Random number that is used once.
    pub nonce: u128,
    /// Number of the newest log entry that the sender has applied.
    pub n: u64,
    /// Random tag of that entry.
    pub tag: u128,
}

/// Response to all requests that were read before a poll began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayResponse {
    /// Nonces of the requests whose senders can continue with these entries.
    pub nonces: Vec<u128>,
    /// Newest number that the poll found.
    pub newest: u64,
    /// Log entries without a gap, from the last one of the sender that is furthest behind. They end
    /// before the newest if there are too many.
    pub entries: Vec<LogEntry>,
}

impl Freshness {
    /// Returns true if requests should be sent: the next poll is overdue, and the lease will
    /// expire.
    pub fn needs_relay(&self, poll_interval: Duration) -> bool {
        let overdue = poll_interval + self.config.lease.saturating_sub(poll_interval) / 2;
        !self.config.relay.is_zero() && self.age().is_some_and(|age| age > overdue)
    }

    /// Makes a response to requests that were read before the current lease began. Returns `None`
    /// if no sender can continue from what is known here.
    pub fn relay_response(&self, requests: &[RelayRequest]) -> Option<RelayResponse> {
        let tail = self.tail();
        let newest = tail.newest()?.n;
        let answered: Vec<&RelayRequest> =
            requests.iter().filter(|request| tail.contains(request.n, request.tag)).collect();
        let from = answered.iter().map(|request| request.n).min()?;
        let nonces = answered.iter().map(|request| request.nonce).collect();
        Some(RelayResponse { nonces, newest, entries: tail.entries_from(from, MAX_RELAY_ENTRIES) })
    }
}

/// Side of the relay that sends requests.
#[derive(Default)]
pub struct RelayClient {
    /// Open requests: nonces, and the moments at which they were made, in order.
    open: VecDeque<(u128, Lease)>,
}

impl RelayClient {
    /// Makes a request. Returns `None` while no log is known that a response could continue.
    pub fn request(&mut self, freshness: &Freshness, rng: &Rng) -> Option<RelayRequest> {
        // The clocks are read before everything else, so that the lease claims no later change.
        let made = lease_from(freshness.clock.moment());
        let (n, tag) = freshness.tail().newest().map(|entry| (entry.n, entry.tag))?;
        let nonce = u128::from_be_bytes(rng.bytes());
        if self.open.len() == MAX_OPEN_REQUESTS {
            self.open.pop_front();
        }
        self.open.push_back((nonce, made));
        Some(RelayRequest { nonce, n, tag })
    }

    /// Applies the log of a response, and extends the relayed lease from the newest of our nonces
    /// in it. Returns false if the response has none of them, doesn't continue the log that is
    /// known here, or doesn't reach its own end.
    pub fn accept(&mut self, freshness: &Freshness, response: &RelayResponse) -> bool {
        let echoed: HashSet<u128> = response.nonces.iter().copied().collect();
        let Some(index) = self.open.iter().rposition(|(nonce, _)| echoed.contains(nonce)) else {
            return false;
        };
        if !freshness.append(&response.entries) {
            tracing::warn!(
                newest = response.newest,
                "the log that another instance relays doesn't continue the one known here: it is ignored"
            );
            return false;
        }
        let observed_heads = freshness.observed_heads().clone();
        if freshness.polled_to() < response.newest
            || !freshness.confirm_heads(&observed_heads, freshness.newest())
        {
            // The response to the next request has the rest.
            return false;
        }
        let made = match mutants::is_on(Mutant::RelayFromTheArrival) {
            false => self.open[index].1,
            true => lease_from(freshness.clock.moment()),
        };
        if made.boot > freshness.ledger.relayed().boot {
            freshness.ledger.extend_relayed(made);
        }
        // Older requests can't extend the lease any more.
        self.open.drain(..index);
        true
    }

    /// Drops the open requests, as no response is needed any more.
    pub fn clear(&mut self) {
        self.open.clear();
    }
}
