//! Connections that something between forgets: no error, no answer.

use super::{Fault, Stage, some_instances};
use crate::random::Random;

/// Death of all open connections of some instances. New ones work.
#[derive(Debug)]
struct DeadConnections {
    instances: Vec<usize>,
}

pub fn make(random: &mut Random, focus: usize) -> Box<dyn Fault> {
    Box::new(DeadConnections { instances: some_instances(random, focus) })
}

impl Fault for DeadConnections {
    fn begin(&self, stage: &Stage<'_>) {
        let mut state = stage.world.state();
        let next = state.sessions + 1;
        for instance in &self.instances {
            state.nets[*instance].dead_before = next;
        }
    }
}
