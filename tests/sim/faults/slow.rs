//! A database that is far away, or busy.

use super::{Fault, Stage, some_instances};
use crate::random::Random;
use crate::world::{self, Direction};

/// Long ways to the database, back, or both.
#[derive(Debug)]
pub(super) struct Slow {
    pub instances: Vec<usize>,
    pub slow: world::Slow,
}

pub fn make(random: &mut Random, focus: usize) -> Box<dyn Fault> {
    let longest = *random.one_of(&[30, 120, 400, 1_500]);
    let direction = *random.one_of(&[None, None, Some(Direction::ToServer), Some(Direction::ToClient)]);
    // Or a network that loses packets, and sends them again.
    let percent = *random.one_of(&[100, 100, 15]);
    let slow = world::Slow { direction, latency: (0, longest), percent };
    Box::new(Slow { instances: some_instances(random, focus), slow })
}

impl Slow {
    fn set(&self, stage: &Stage<'_>, slow: Option<world::Slow>) {
        let mut state = stage.world.state();
        self.instances.iter().for_each(|instance| state.nets[*instance].slow = slow);
    }
}

impl Fault for Slow {
    fn begin(&self, stage: &Stage<'_>) {
        self.set(stage, Some(self.slow));
    }

    fn end(&self, stage: &Stage<'_>) {
        self.set(stage, None);
    }

    fn hurts(&self) -> Vec<usize> {
        self.instances.clone()
    }
}
