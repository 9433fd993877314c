//! What an instance that can't reach the database learns from one that can.
//!
//! The one that is cut off asks with a random number, its nonce. Another that has read the question, and polls the
//! database *after* that, answers with the nonce and with the log from where the one who asks left off. Whatever was
//! committed before the nonce was made is in that answer; so what it teaches counts from that moment, by the clock of
//! the one who made it. An answer that is repeated, late or from before counts from its own nonce and extends nothing.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use super::Freshness;
use super::ledger::Lease;
use super::poll::lease_from;
use crate::rng::Rng;
use crate::store::Logged;

/// Most entries of the log in one answer. Who is further behind catches up by several.
pub const MAX_PART: usize = 4_096;
/// Most questions that wait for an answer; further ones push out the oldest.
const MAX_OPEN: usize = 64;

/// What one instance asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Random, and never used twice.
    pub nonce: u128,
    /// The newest entry of the log that whoever asks has taken in.
    pub n: u64,
    /// The random tag of that entry.
    pub tag: u128,
}

/// What another answers, to all who asked before its poll began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Of those who asked and can go on from the part.
    pub nonces: Vec<u128>,
    /// The newest number that the poll found.
    pub newest: u64,
    /// The log without a gap, from the entry on where the one who is furthest behind left off; not up to the newest
    /// when that would be too much at once.
    pub part: Vec<Logged>,
}

impl Freshness {
    /// Whether it is time to ask others: the next poll is overdue, and the lease, or what was relayed, will run out.
    pub fn wants_relay(&self, poll_interval: Duration) -> bool {
        let overdue = poll_interval + self.terms.lease.saturating_sub(poll_interval) / 2;
        !self.terms.relay.is_zero() && self.age().is_some_and(|age| age > overdue)
    }

    /// An answer to questions that were read before the moment as of which the last successful poll counts; None when none of those who asked
    /// can go on from what is known here.
    pub fn answer(&self, questions: &[Question]) -> Option<Answer> {
        let tail = self.tail();
        let newest = tail.newest()?.n;
        let ours: Vec<&Question> =
            questions.iter().filter(|question| tail.has(question.n, question.tag)).collect();
        let from = ours.iter().map(|question| question.n).min()?;
        let nonces = ours.iter().map(|question| question.nonce).collect();
        Some(Answer { nonces, newest, part: tail.part(from, MAX_PART) })
    }
}

/// The questions of one instance.
#[derive(Default)]
pub struct Asker {
    /// Nonces and the moments in which they were made, in that order.
    open: VecDeque<(u128, Lease)>,
}

impl Asker {
    /// A new question; None before anything is known from where to go on.
    pub fn ask(&mut self, freshness: &Freshness, rng: &Rng) -> Option<Question> {
        // The clocks before everything else: nothing that happens later is claimed to be known.
        let made = lease_from(freshness.clock.moment());
        let (n, tag) = freshness.tail().newest().map(|entry| (entry.n, entry.tag))?;
        let nonce = u128::from_be_bytes(rng.bytes());
        if self.open.len() == MAX_OPEN {
            self.open.pop_front();
        }
        self.open.push_back((nonce, made));
        Some(Question { nonce, n, tag })
    }

    /// Takes in what an answer says of the log, and counts from its newest nonce of ours. False when it is none to us,
    /// or we can't go on from it.
    pub fn hear(&mut self, freshness: &Freshness, answer: &Answer) -> bool {
        let echoed: HashSet<u128> = answer.nonces.iter().copied().collect();
        let Some(place) = self.open.iter().rposition(|(nonce, _)| echoed.contains(nonce)) else {
            return false;
        };
        if !freshness.follow(&answer.part) {
            tracing::warn!(
                newest = answer.newest,
                "what another instance relays of the log doesn't go on from here: it is not used"
            );
            return false;
        }
        let witnesses = freshness.witnesses().clone();
        if freshness.polled() < answer.newest || !freshness.confirms(&witnesses, freshness.newest()) {
            // The rest comes with the answer to the next question.
            return false;
        }
        let (_, made) = self.open[place];
        if made.boot > freshness.ledger.relayed().boot {
            freshness.ledger.extend_relayed(made);
        }
        // Older ones say nothing any more.
        self.open.drain(..place);
        true
    }

    /// Forgets what was asked: nobody needs to answer any more.
    pub fn rest(&mut self) {
        self.open.clear();
    }
}
