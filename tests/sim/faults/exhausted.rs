//! A server without room for new connections.

use super::{Fault, Stage, some_instances};
use crate::random::Random;

/// Refusal of new connections with an error of the database.
#[derive(Debug)]
struct Exhausted {
    instances: Vec<usize>,
}

pub fn make(random: &mut Random, focus: usize) -> Box<dyn Fault> {
    Box::new(Exhausted { instances: some_instances(random, focus) })
}

impl Exhausted {
    fn set(&self, stage: &Stage<'_>, is_exhausted: bool) {
        let mut state = stage.world.state();
        self.instances.iter().for_each(|instance| state.nets[*instance].is_exhausted = is_exhausted);
    }
}

impl Fault for Exhausted {
    fn begin(&self, stage: &Stage<'_>) {
        self.set(stage, true);
    }

    fn end(&self, stage: &Stage<'_>) {
        self.set(stage, false);
    }

    fn hurts(&self) -> Vec<usize> {
        self.instances.clone()
    }
}
