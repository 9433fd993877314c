//! Model of the second hop: a module in Envoy that keeps entries of its own, the stream, and the
//! server whose knowledge comes over it. Every state that some order of steps reaches is visited,
//! for any length of time. The invariant fails for six wrong variants and holds for the real one,
//! so each part of the protocol is needed.
//!
//! How the server itself comes to know is the subject of `model.rs`; here, its entry is fresh while
//! its lease is valid and the change isn't applied.

use std::collections::HashSet;

use super::ledger::Ledger;

/// Variant of the protocol.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Variant {
    /// The real protocol.
    Real,
    /// The module's lease counts from the arrival of the knowledge.
    LeaseFromTheArrival,
    /// The module applies changes after it has extended the lease.
    ChangesAfterTheLease,
    /// The age is measured by a clock that stands still for a moment.
    AgeByAnotherClock,
    /// Entries and lease of one stream are used with the knowledge of the next.
    TwoStreams,
    /// The server reads the changes before it reads its lease.
    LeaseReadLast,
    /// The server answers with an entry that isn't fresh any more.
    UncheckedEntry,
}

/// Age at which a lease ends, in ticks.
const LEASE: u8 = 1;
/// Ages from here on make no difference.
const OLD: u8 = LEASE + 1;
/// Messages on their way to the module.
const MAX_QUEUED: usize = 2;

/// Lease, and true if the change is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Knowledge {
    /// Age of the lease.
    lease: u8,
    is_changed: bool,
}

/// Poll of the server, between its steps, with the age of its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Poll {
    Idle,
    Begun(u8),
    Read { begun: u8, has_change: bool },
    Applied(u8),
}

/// Tick of the module, until its answer arrives, with the age of the time that the module noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Tick {
    None,
    Sent(u8),
    /// The server has read one of lease and changes; the other comes next.
    LeaseRead {
        noted: u8,
        age: u8,
    },
    ChangesRead {
        noted: u8,
        is_changed: bool,
    },
    Answered(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Message {
    Knowledge { age: u8, is_changed: bool },
    Forget,
    Entry,
}

/// Step of the module that is left to do for a knowledge that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Arrival {
    None,
    Extend { noted: u8, age: u8 },
    Apply { is_changed: bool },
}

/// Check in the module, between its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Check {
    Idle,
    /// The lease was valid. True if the Check began after the bound.
    LeaseRead {
        is_late: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    /// Time since the key was revoked.
    revoked: Option<u8>,
    // The server.
    poll: Poll,
    server: Knowledge,
    /// True if the change was sent on the stream, or was applied before the stream began.
    is_sent: bool,
    // The stream.
    tick: Tick,
    queue: [Option<Message>; MAX_QUEUED],
    // The module.
    module: Knowledge,
    has_entry: bool,
    arrival: Arrival,
    check: Check,
}

/// Steps that can happen in any state.
#[derive(Debug, Clone, Copy)]
enum Step {
    Time,
    Revoke,
    /// The server learns of the change otherwise than by a poll: it was made there.
    Learn,
    Poll,
    PollFails,
    Tick,
    Answer,
    AnswerAsk,
    Push,
    Deliver,
    Arrive,
    Reconnect,
    Check,
}

const STEPS: [Step; 13] = [
    Step::Time,
    Step::Revoke,
    Step::Learn,
    Step::Poll,
    Step::PollFails,
    Step::Tick,
    Step::Answer,
    Step::AnswerAsk,
    Step::Push,
    Step::Deliver,
    Step::Arrive,
    Step::Reconnect,
    Step::Check,
];

/// An allow after the bound.
#[derive(Debug)]
struct Violation;

impl State {
    const START: Self = Self {
        revoked: None,
        poll: Poll::Idle,
        server: Knowledge { lease: 0, is_changed: false },
        is_sent: false,
        tick: Tick::None,
        queue: [None; MAX_QUEUED],
        module: Knowledge { lease: OLD, is_changed: false },
        has_entry: false,
        arrival: Arrival::None,
        check: Check::Idle,
    };

    /// Returns the state after a step; the same one if the step can't happen.
    fn after(mut self, step: Step, variant: Variant) -> Result<Self, Violation> {
        match step {
            Step::Time => self.pass_time(),
            Step::Revoke => self.revoked = self.revoked.or(Some(0)),
            Step::Learn => self.server.is_changed |= self.revoked.is_some(),
            Step::Poll => self.poll_on(),
            Step::PollFails => self.poll = Poll::Idle,
            Step::Tick => {
                if self.tick == Tick::None {
                    self.tick = Tick::Sent(0);
                }
            }
            Step::Answer => self.answer_on(variant),
            Step::AnswerAsk => {
                let is_fresh = self.server.lease <= LEASE && !self.server.is_changed;
                if is_fresh || variant == Variant::UncheckedEntry {
                    self.send(Message::Entry);
                }
            }
            Step::Push => {
                if self.server.is_changed && !self.is_sent && self.send(Message::Forget) {
                    self.is_sent = true;
                }
            }
            Step::Deliver => self.deliver(variant),
            Step::Arrive => self.arrive_on(variant),
            Step::Reconnect => self.reconnect(variant),
            Step::Check => return self.check_on(),
        }
        Ok(self)
    }

    fn pass_time(&mut self) {
        let older = |age: &mut u8| *age = (*age + 1).min(OLD);
        self.revoked.iter_mut().for_each(older);
        [&mut self.server.lease, &mut self.module.lease].into_iter().for_each(older);
        match &mut self.poll {
            Poll::Begun(begun) | Poll::Read { begun, .. } | Poll::Applied(begun) => older(begun),
            Poll::Idle => {}
        }
        match &mut self.tick {
            Tick::Sent(noted)
            | Tick::LeaseRead { noted, .. }
            | Tick::ChangesRead { noted, .. }
            | Tick::Answered(noted) => older(noted),
            Tick::None => {}
        }
        if let Arrival::Extend { noted, .. } = &mut self.arrival {
            older(noted);
        }
    }

    fn poll_on(&mut self) {
        self.poll = match self.poll {
            Poll::Idle => Poll::Begun(0),
            Poll::Begun(begun) => Poll::Read { begun, has_change: self.revoked.is_some() },
            Poll::Read { begun, has_change } => {
                self.server.is_changed |= has_change;
                Poll::Applied(begun)
            }
            Poll::Applied(begun) => {
                self.server.lease = begun;
                Poll::Idle
            }
        };
    }

    /// Puts a message on the stream; false if the stream is full.
    fn send(&mut self, message: Message) -> bool {
        let free = self.queue.iter_mut().find(|place| place.is_none());
        free.map(|place| *place = Some(message)).is_some()
    }

    /// The server answers a Tick: it reads its lease, then the changes.
    fn answer_on(&mut self, variant: Variant) {
        let lease = match variant {
            Variant::AgeByAnotherClock => self.server.lease.saturating_sub(1),
            _ => self.server.lease,
        };
        let is_new = self.server.is_changed && !self.is_sent;
        let (noted, age, is_changed) = match self.tick {
            Tick::Sent(noted) if variant == Variant::LeaseReadLast => {
                self.tick = Tick::ChangesRead { noted, is_changed: is_new };
                return;
            }
            Tick::Sent(noted) => {
                self.tick = Tick::LeaseRead { noted, age: lease };
                return;
            }
            Tick::LeaseRead { noted, age } => (noted, age, is_new),
            Tick::ChangesRead { noted, is_changed } => (noted, lease, is_changed),
            Tick::None | Tick::Answered(_) => return,
        };
        if self.send(Message::Knowledge { age, is_changed }) {
            self.is_sent |= is_changed;
            self.tick = Tick::Answered(noted);
        }
    }

    /// The module takes the next message, once it is done with the last one.
    fn deliver(&mut self, variant: Variant) {
        let [Some(message), next] = self.queue else {
            return;
        };
        if self.arrival != Arrival::None {
            return;
        }
        self.queue = [next, None];
        match message {
            Message::Forget => self.module.is_changed = true,
            // What it brings is stamped before the change.
            Message::Entry => self.has_entry = true,
            Message::Knowledge { age, is_changed } => {
                let Tick::Answered(noted) = self.tick else {
                    return;
                };
                self.tick = Tick::None;
                let extend = Arrival::Extend { noted, age };
                if variant == Variant::ChangesAfterTheLease {
                    self.arrival = extend;
                    self.arrive_on(Variant::Real);
                    self.arrival = Arrival::Apply { is_changed };
                } else {
                    self.module.is_changed |= is_changed;
                    self.arrival = extend;
                }
            }
        }
    }

    fn arrive_on(&mut self, variant: Variant) {
        match self.arrival {
            Arrival::None => {}
            Arrival::Apply { is_changed } => self.module.is_changed |= is_changed,
            // The server sends no age of a lease that has expired.
            Arrival::Extend { age: OLD, .. } => {}
            Arrival::Extend { noted, age } => {
                let noted = if variant == Variant::LeaseFromTheArrival { 0 } else { noted };
                self.module.lease = (noted + age).min(OLD);
            }
        }
        self.arrival = Arrival::None;
    }

    /// The stream ends, with all that is on it, and another one begins.
    fn reconnect(&mut self, variant: Variant) {
        (self.tick, self.queue, self.arrival) = (Tick::None, [None; MAX_QUEUED], Arrival::None);
        self.is_sent = self.server.is_changed;
        if variant != Variant::TwoStreams {
            self.module = Self::START.module;
            self.has_entry = false;
            // Its entry is of another lineage.
            self.check = Check::Idle;
        }
    }

    /// A Check in the module: it reads the lease, then the slots.
    fn check_on(mut self) -> Result<Self, Violation> {
        match self.check {
            Check::Idle => {
                if self.has_entry && self.module.lease <= LEASE {
                    self.check = Check::LeaseRead { is_late: self.revoked == Some(OLD) };
                }
            }
            Check::LeaseRead { is_late } => {
                self.check = Check::Idle;
                let ledger = Ledger::new(2);
                if self.module.is_changed {
                    ledger.raise(0, 0, 2);
                }
                if is_late && ledger.is_unchanged([0, 1], 0, 0) {
                    return Err(Violation);
                }
            }
        }
        Ok(self)
    }
}

/// Visits all states that can be reached. Returns their number.
fn explore(variant: Variant) -> Result<usize, Violation> {
    let mut seen = HashSet::from([State::START]);
    let mut open = vec![State::START];
    while let Some(state) = open.pop() {
        for step in STEPS {
            let next = state.after(step, variant)?;
            if seen.insert(next) {
                open.push(next);
            }
        }
    }
    Ok(seen.len())
}

#[test]
fn each_part_of_the_second_hop_is_needed() {
    for variant in [
        Variant::LeaseFromTheArrival,
        Variant::ChangesAfterTheLease,
        Variant::AgeByAnotherClock,
        Variant::TwoStreams,
        Variant::LeaseReadLast,
        Variant::UncheckedEntry,
    ] {
        assert!(explore(variant).is_err(), "{variant:?} never allows a key after the bound");
    }
}

#[test]
fn all_parts_of_the_second_hop_are_enough() {
    let states = explore(Variant::Real).expect("no state allows a key after the bound");
    assert!(states > 100_000, "only {states} states");
}
