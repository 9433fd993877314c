//! A network that doesn't lead to the database.

use super::{Fault, Stage, some_instances};
use crate::random::Random;

/// Loss of the way to the database: new connections are refused and open ones reset, or nothing
/// gets through and no error says so.
#[derive(Debug)]
pub(super) struct Partition {
    pub instances: Vec<usize>,
    pub is_silent: bool,
}

pub fn make(random: &mut Random, focus: usize) -> Box<dyn Fault> {
    Box::new(Partition { instances: some_instances(random, focus), is_silent: random.percent(50) })
}

impl Fault for Partition {
    fn begin(&self, stage: &Stage<'_>) {
        let mut state = stage.world.state();
        let next = state.sessions + 1;
        for instance in &self.instances {
            let net = &mut state.nets[*instance];
            match self.is_silent {
                true => net.is_silent = true,
                false => (net.is_refusing, net.reset_before) = (true, next),
            }
        }
    }

    fn end(&self, stage: &Stage<'_>) {
        let mut state = stage.world.state();
        for instance in &self.instances {
            let net = &mut state.nets[*instance];
            (net.is_silent, net.is_refusing) = (false, false);
        }
    }

    fn hurts(&self) -> Vec<usize> {
        self.instances.clone()
    }
}
