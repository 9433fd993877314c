//! Model of the assumptions about servers, sessions, connections and histories: random steps around
//! the real ledger and the real stamps. Each check that a poll makes is left out once, and found to
//! be needed.

use super::ledger::{Lease, Ledger};
use super::{PendingStamp, Stamp};
use crate::rng::Rng;

/// Variant of the protocol, by the check that is left out.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Variant {
    /// The real protocol.
    Real,
    /// The lease counts from the start of the poll, however old its connection is: the server
    /// behind it may not be the primary any more.
    OldConnection,
    /// A poll of a standby counts as one of the primary.
    AnyRole,
    /// A timeout on a connection from before a stall counts as an outage.
    AnyTimeout,
    /// An outage that was found before a stall is valid after it.
    OldOutage,
    /// Reads see uncommitted changes.
    DirtyReads,
    /// A session's first snapshot never ends.
    EndlessSnapshot,
    /// Issuing a key writes no log entry.
    IssuesUnlogged,
    /// A poll continues until it reads nothing new.
    MovingEnd,
}

/// Lease in ticks.
const LEASE: u64 = 6;
/// Grace in ticks.
const GRACE: u64 = 40;
/// Validity of evidence of an outage, in ticks.
const OUTAGE_VALIDITY: u64 = 4;
const SLOT: usize = 0;
const STEPS: usize = 90;
/// Three times as many runs as the rarest wrong variant needs to fail five times.
const RUNS: u64 = 80_000;

/// Tag of a log entry; it tells histories apart.
type Tag = u32;

/// Database of a server, or a backup of it.
#[derive(Clone, Default)]
struct Database {
    log: Vec<Tag>,
    /// True if the key exists and isn't revoked.
    active: bool,
    /// Revocation that has its number and isn't committed.
    underway: Option<Tag>,
    /// True if it follows the other server and accepts no writes.
    standby: bool,
}

/// Snapshot that one statement saw.
#[derive(Clone)]
struct Snapshot {
    log: Vec<Tag>,
    active: bool,
    standby: bool,
}

#[derive(Clone)]
struct Connection {
    server: usize,
    opened: u64,
    /// True if nothing gets through, without an error.
    dead: bool,
    /// Only in the variant `EndlessSnapshot`.
    first: Option<Snapshot>,
}

#[derive(Clone, Copy)]
struct Entry {
    active: bool,
    stamp: Stamp,
}

enum Fill {
    Idle,
    Begun(PendingStamp),
    Read(PendingStamp, Snapshot),
}

enum Poll {
    Idle,
    /// Reads one entry per step, up to `end`.
    Reading {
        began: u64,
        connection: Connection,
        end: Option<usize>,
        steps: usize,
        most: usize,
    },
}

struct Model {
    variant: Variant,
    rng: Rng,
    now: u64,
    servers: [Database; 2],
    /// Server that new connections reach.
    address: usize,
    switched: bool,
    backup: Option<Database>,
    /// Time at which the key was revoked or lost, on the primary.
    ended: Option<u64>,
    ledger: Ledger,
    known: Vec<Tag>,
    memory: Option<Entry>,
    for_polls: Option<Connection>,
    for_lookups: Option<Connection>,
    fill: Fill,
    poll: Poll,
}

impl Model {
    fn new(variant: Variant, seed: u64) -> Self {
        let ledger = Ledger::new(1);
        ledger.extend(Lease { boot: 1, wall: 1 });
        let first = Database { log: vec![1], active: true, ..Database::default() };
        Self {
            variant,
            rng: Rng::seeded(seed),
            now: 1,
            servers: [first.clone(), Database::default()],
            address: 0,
            switched: false,
            backup: None,
            ended: None,
            ledger,
            known: first.log,
            memory: None,
            for_polls: None,
            for_lookups: None,
            fill: Fill::Idle,
            poll: Poll::Idle,
        }
    }

    /// Runs one step. Returns false if it breaks the invariant.
    fn step(&mut self, entropy: u8) -> bool {
        match entropy % 32 {
            0..=4 => self.now += 1,
            5 => self.begin_to_revoke(),
            6 => self.commit(),
            7 => self.write_something_else(),
            8 => self.switch_over(entropy),
            9 if entropy > 192 => self.stall(),
            10 => self.back_up_and_issue(),
            11 if entropy > 128 => self.restore(),
            12..=16 => self.look_up(),
            17..=25 => return self.poll_on(),
            _ => return self.check(),
        }
        true
    }

    fn tag(&self) -> Tag {
        u32::from_be_bytes(self.rng.bytes())
    }

    fn begin_to_revoke(&mut self) {
        let tag = self.tag();
        let database = &mut self.servers[self.address];
        if database.active {
            database.underway.get_or_insert(tag);
        }
    }

    fn commit(&mut self) {
        let database = &mut self.servers[self.address];
        if let Some(tag) = database.underway.take() {
            database.log.push(tag);
            database.active = false;
            self.ended.get_or_insert(self.now);
        }
    }

    /// Changes another key.
    fn write_something_else(&mut self) {
        let tag = self.tag();
        let database = &mut self.servers[self.address];
        if database.underway.is_none() {
            database.log.push(tag);
        }
    }

    /// Makes the other server the primary; connections to the old one survive. The old one may
    /// follow the new one.
    fn switch_over(&mut self, entropy: u8) {
        if !self.switched && self.servers[0].underway.is_none() {
            self.switched = true;
            self.servers[1] = self.servers[0].clone();
            self.servers[0].standby = entropy > 128;
            self.address = 1;
        }
    }

    /// Stalls the process for longer than a lease: its connections die meanwhile.
    fn stall(&mut self) {
        self.now += LEASE * 2;
        for connection in [&mut self.for_polls, &mut self.for_lookups].into_iter().flatten() {
            connection.dead = true;
        }
        if let Poll::Reading { connection, .. } = &mut self.poll {
            connection.dead = true;
        }
    }

    /// Makes a backup, and issues the key after it.
    fn back_up_and_issue(&mut self) {
        let tag = self.tag();
        let is_seen = self.memory.is_some() || !matches!(self.fill, Fill::Idle);
        let database = &mut self.servers[self.address];
        if self.backup.is_some() || self.ended.is_some() || database.underway.is_some() || is_seen {
            return;
        }
        self.backup = Some(Database { active: false, ..database.clone() });
        if self.variant != Variant::IssuesUnlogged {
            database.log.push(tag);
        }
    }

    fn restore(&mut self) {
        if let Some(backup) = self.backup.take()
            && !self.switched
            && self.ended.is_none()
        {
            self.servers[0] = backup;
            self.ended = Some(self.now);
        }
    }

    fn connect(&self) -> Connection {
        Connection { server: self.address, opened: self.now, dead: false, first: None }
    }

    /// Returns what a statement on a connection sees; `None` if the connection is dead.
    fn ask(&self, connection: &mut Connection) -> Option<Snapshot> {
        if connection.dead {
            return None;
        }
        let database = &self.servers[connection.server];
        let mut log = database.log.clone();
        if self.variant == Variant::DirtyReads {
            log.extend(database.underway);
        }
        let seen = Snapshot { log, active: database.active, standby: database.standby };
        match self.variant {
            Variant::EndlessSnapshot => Some(connection.first.get_or_insert(seen).clone()),
            _ => Some(seen),
        }
    }

    fn look_up(&mut self) {
        self.fill = match std::mem::replace(&mut self.fill, Fill::Idle) {
            Fill::Idle => {
                let before = self.ledger.min_stamp(SLOT);
                Fill::Begun(PendingStamp { before, lineage: self.ledger.lineage() })
            }
            Fill::Begun(pending) => {
                let mut connection = self.for_lookups.take().unwrap_or_else(|| self.connect());
                match self.ask(&mut connection) {
                    Some(seen) => {
                        self.for_lookups = Some(connection);
                        Fill::Read(pending, seen)
                    }
                    None => Fill::Idle,
                }
            }
            Fill::Read(pending, seen) => {
                // A head that polls haven't seen yet would be observed; here the row is dropped.
                if self.known.get(seen.log.len() - 1) == seen.log.last() {
                    let stamp = pending.stamp(seen.log.len() as u64 - 1);
                    self.memory = Some(Entry { active: seen.active, stamp });
                }
                Fill::Idle
            }
        };
    }

    fn poll_on(&mut self) -> bool {
        match std::mem::replace(&mut self.poll, Poll::Idle) {
            Poll::Idle => {
                let is_old = |connection: &Connection| self.now - connection.opened > LEASE / 2;
                let keeps = self.variant == Variant::OldConnection || self.variant == Variant::AnyRole;
                let connection = self.for_polls.take().filter(|connection| keeps || !is_old(connection));
                let connection = connection.unwrap_or_else(|| self.connect());
                self.poll = Poll::Reading { began: self.now, connection, end: None, steps: 0, most: 0 };
                true
            }
            Poll::Reading { began, mut connection, end, steps, most } => {
                let Some(seen) = self.ask(&mut connection) else {
                    if self.variant == Variant::AnyTimeout && !self.has_lease() {
                        self.ledger.record_outage(self.now);
                    }
                    return true;
                };
                if self.variant != Variant::AnyRole && seen.standby {
                    return true;
                }
                let mut end = match self.variant {
                    Variant::MovingEnd => seen.log.len(),
                    _ => end.unwrap_or(seen.log.len()),
                };
                let most = if steps == 0 { seen.log.len() } else { most };
                let last = self.known.len() - 1;
                let is_shorter = seen.log.len() < end;
                if seen.log.get(last) != self.known.last() || is_shorter {
                    self.ledger.next_lineage();
                    self.known = seen.log;
                    end = self.known.len();
                } else if self.known.len() < end {
                    self.known.push(seen.log[last + 1]);
                    self.ledger.raise(SLOT, self.ledger.lineage(), (last as u64 + 1) * 2);
                }
                if self.known.len() < end {
                    self.poll = Poll::Reading { began, connection, end: Some(end), steps: steps + 1, most };
                    // A poll ends, whatever others write meanwhile.
                    return steps < most;
                }
                let from = match self.variant {
                    Variant::OldConnection | Variant::AnyRole => began,
                    _ => began.min(connection.opened),
                };
                self.ledger.extend(Lease { boot: from, wall: 0 });
                self.for_polls = Some(connection);
                true
            }
        }
    }

    fn has_lease(&self) -> bool {
        self.now - self.ledger.lease().boot <= LEASE
    }

    fn is_static(&self) -> bool {
        let found = self.ledger.outage();
        let is_valid = |found| self.variant == Variant::OldOutage || self.now - found <= OUTAGE_VALIDITY;
        found.is_some_and(is_valid) && self.now - self.ledger.lease().boot <= LEASE + GRACE
    }

    /// Runs a Check. New connections reach the database all the time, so the bound is the lease.
    fn check(&mut self) -> bool {
        // A real outage, before the machine stalled.
        if self.variant == Variant::OldOutage && !self.has_lease() && self.ended.is_none() {
            self.ledger.record_outage(self.now);
        }
        let Some(entry) = self.memory else {
            return true;
        };
        let allowed = entry.active
            && (self.has_lease() || self.is_static())
            && self.ledger.is_unchanged([SLOT; 2], entry.stamp.at, entry.stamp.lineage);
        let too_late = self.ended.is_some_and(|ended| self.now > ended + LEASE);
        !(allowed && too_late)
    }
}

/// Returns the first runs that break the invariant, at most `enough`.
fn broken_runs(variant: Variant, enough: usize) -> Vec<u64> {
    let broken = |seed: &u64| {
        let steps: [u8; STEPS] = Rng::seeded(*seed).bytes();
        let mut model = Model::new(variant, *seed);
        !steps.into_iter().all(|entropy| model.step(entropy))
    };
    (0..RUNS).filter(broken).take(enough).collect()
}

#[test]
fn each_assumption_has_a_check_and_each_check_is_needed() {
    for variant in [
        Variant::OldConnection,
        Variant::AnyRole,
        Variant::AnyTimeout,
        Variant::OldOutage,
        Variant::DirtyReads,
        Variant::EndlessSnapshot,
        Variant::IssuesUnlogged,
        Variant::MovingEnd,
    ] {
        // Five failures show that there are enough runs for the real variant.
        let broken = broken_runs(variant, 5);
        assert_eq!(broken.len(), 5, "{variant:?} breaks the invariant only in {broken:?}");
    }
}

#[test]
fn all_checks_are_enough() {
    assert_eq!(broken_runs(Variant::Real, 1), Vec::<u64>::new());
}
