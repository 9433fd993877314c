//! A network that resets connections, before a statement arrives or after it was executed.

use super::{Fault, Stage, some_instances};
use crate::random::Random;

/// Resets, so that answers of commits are lost as well.
#[derive(Debug)]
struct Flaky {
    instances: Vec<usize>,
    percent: u64,
}

pub fn make(random: &mut Random, focus: usize) -> Box<dyn Fault> {
    Box::new(Flaky { instances: some_instances(random, focus), percent: random.within(1, 15) })
}

impl Flaky {
    fn set(&self, stage: &Stage<'_>, percent: u64) {
        let mut state = stage.world.state();
        self.instances.iter().for_each(|instance| state.nets[*instance].resets = percent);
    }
}

impl Fault for Flaky {
    fn begin(&self, stage: &Stage<'_>) {
        self.set(stage, self.percent);
    }

    fn end(&self, stage: &Stage<'_>) {
        self.set(stage, 0);
    }

    fn hurts(&self) -> Vec<usize> {
        self.instances.clone()
    }
}
