//! A database that is far away, or busy.

use super::{Fault, Stage, some_instances};
use crate::chance::Chance;
use crate::world::{self, Way};

/// Long ways to the database, back, or both.
#[derive(Debug)]
pub(super) struct Slow {
    pub instances: Vec<usize>,
    pub slow: world::Slow,
}

pub fn make(chance: &mut Chance, focus: usize) -> Box<dyn Fault> {
    let longest = *chance.one_of(&[30, 120, 400, 1_500]);
    let way = *chance.one_of(&[None, None, Some(Way::There), Some(Way::Back)]);
    // Or a network that loses packets, and sends them again.
    let percent = *chance.one_of(&[100, 100, 15]);
    let slow = world::Slow { way, latency: (0, longest), percent };
    Box::new(Slow { instances: some_instances(chance, focus), slow })
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
