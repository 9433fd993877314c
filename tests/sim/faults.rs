//! Faults that a seed may choose. Each is a file with a type and a function that makes it; a new
//! one is added to [`KINDS`].

mod clock;
mod dead_connections;
mod exhausted;
mod flaky;
mod kill;
mod module_stream;
mod partition;
mod read_only;
mod redis;
mod sequences;
mod slow;
mod split_reads;
mod stall;
mod switchover;

use std::fmt::Debug;
use std::sync::Arc;

use crate::plan::INSTANCES;
use crate::random::Random;
use crate::world::World;

/// Fault of the world, from its beginning to its end.
pub trait Fault: Debug + Send + Sync {
    fn begin(&self, stage: &Stage<'_>);

    fn end(&self, _: &Stage<'_>) {}

    /// Returns how long it lasts, in milliseconds, if that is fixed.
    fn millis(&self) -> Option<u64> {
        None
    }

    /// Returns the instances that it may keep from reading the database, which widens their bound
    /// if they have a grace.
    fn hurts(&self) -> Vec<usize> {
        vec![]
    }
}

/// Parts of a simulation that a fault may change.
pub struct Stage<'a> {
    pub world: &'a Arc<World>,
    /// Starts an instance that was killed.
    pub start: &'a dyn Fn(usize),
}

/// Makes a fault with properties of its own, rather at the instance that has most of them.
type Kind = fn(&mut Random, usize) -> Box<dyn Fault>;

/// All kinds, with their weights.
const KINDS: &[(u64, Kind)] = &[
    (2, clock::make),
    (2, dead_connections::make),
    (3, exhausted::make),
    (2, flaky::make),
    (3, kill::make),
    (4, module_stream::make),
    (3, partition::make),
    (2, read_only::make),
    (5, redis::make),
    (3, slow::make),
    (3, split_reads::make),
    (5, stall::make),
    (8, switchover::make),
];

/// Part of a sequence of faults.
pub struct Step {
    /// Time after the start of the sequence, in milliseconds.
    pub after: u64,
    /// Duration in milliseconds.
    pub millis: u64,
    pub fault: Box<dyn Fault>,
}

/// Makes a sequence of faults, as outages are made of.
type Sequence = fn(&mut Random, usize) -> Vec<Step>;

/// All sequences, with their weights.
const SEQUENCES: &[(u64, Sequence)] = &[
    (3, sequences::stalled_outage),
    (6, sequences::repeated_standstills),
    (3, sequences::late_answers),
    (3, sequences::two_switchovers),
    (3, sequences::silent_module),
];

/// The sequence for plans in which instances relay what they know.
pub use sequences::late_relay;

/// Chooses a sequence, rather at the instance `focus`.
pub fn choose_sequence(random: &mut Random, focus: usize) -> Vec<Step> {
    weighted(random, SEQUENCES)(random, focus)
}

/// Chooses a fault, rather at the instance `focus`: outages are made of faults that meet.
pub fn choose(random: &mut Random, focus: usize) -> Box<dyn Fault> {
    weighted(random, KINDS)(random, focus)
}

fn weighted<T: Copy>(random: &mut Random, kinds: &[(u64, T)]) -> T {
    let total = kinds.iter().map(|(weight, _)| weight).sum();
    let mut choice = random.within(0, total);
    for (weight, kind) in kinds {
        match choice.checked_sub(*weight) {
            Some(rest) => choice = rest,
            None => return *kind,
        }
    }
    unreachable!("the choice is below the sum of all weights")
}

/// Chooses the instances that are concerned: one, or all.
fn some_instances(random: &mut Random, focus: usize) -> Vec<usize> {
    match random.percent(60) {
        true => vec![one_instance(random, focus)],
        false => (0..INSTANCES).collect(),
    }
}

fn one_instance(random: &mut Random, focus: usize) -> usize {
    match random.percent(70) {
        true => focus,
        false => random.within(0, INSTANCES as u64) as usize,
    }
}
