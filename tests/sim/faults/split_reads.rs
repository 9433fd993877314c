//! A proxy that sends reads to another server than writes.

use super::{Fault, Stage, some_instances};
use crate::dialect::Role;
use crate::random::Random;

/// Reads from a copy that lags behind, further and further. It may be a standby, or say that it is
/// none, as one that is replicated logically does.
#[derive(Debug)]
struct SplitReads {
    instances: Vec<usize>,
    /// Number of the last transactions that the copy lacks from the beginning.
    lag: usize,
    role: Role,
    millis: u64,
}

pub fn make(random: &mut Random, focus: usize) -> Box<dyn Fault> {
    Box::new(SplitReads {
        instances: some_instances(random, focus),
        lag: *random.one_of(&[0, 0, 2]),
        role: *random.one_of(&[Role::Primary, Role::Primary, Role::Standby]),
        millis: *random.one_of(&[1_000, 8_000, 14_000]),
    })
}

impl Fault for SplitReads {
    fn begin(&self, stage: &Stage<'_>) {
        let mut state = stage.world.state();
        let copy = state.copy(self.lag, stage.world.mutant);
        state.servers[copy].role = self.role;
        self.instances.iter().for_each(|instance| state.nets[*instance].reader = Some(copy));
    }

    fn end(&self, stage: &Stage<'_>) {
        let mut state = stage.world.state();
        self.instances.iter().for_each(|instance| state.nets[*instance].reader = None);
    }

    fn millis(&self) -> Option<u64> {
        Some(self.millis)
    }

    fn hurts(&self) -> Vec<usize> {
        self.instances.clone()
    }
}
