//! A database that is far away, or busy.

use super::{Fault, Stage, some_instances};
use crate::chance::Chance;
use crate::world::Net;

/// Long ways to the database and back.
#[derive(Debug)]
struct Slow {
    instances: Vec<usize>,
    /// Longest way in milliseconds.
    longest: u64,
}

pub fn make(chance: &mut Chance, focus: usize) -> Box<dyn Fault> {
    let longest = *chance.one_of(&[30, 120, 400, 1_500]);
    Box::new(Slow { instances: some_instances(chance, focus), longest })
}

impl Slow {
    fn set(&self, stage: &Stage<'_>, latency: (u64, u64)) {
        let mut state = stage.world.state();
        self.instances.iter().for_each(|instance| state.nets[*instance].latency = latency);
    }
}

impl Fault for Slow {
    fn begin(&self, stage: &Stage<'_>) {
        self.set(stage, (0, self.longest));
    }

    fn end(&self, stage: &Stage<'_>) {
        self.set(stage, Net::default().latency);
    }

    fn hurts(&self) -> Vec<usize> {
        self.instances.clone()
    }
}
