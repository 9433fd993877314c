//! The death of a process, and its start after a while.

use super::{Fault, Stage, one_instance};
use crate::random::Random;

/// Kill of an instance in the middle of whatever it does.
#[derive(Debug)]
struct Kill {
    instance: usize,
}

pub fn make(random: &mut Random, focus: usize) -> Box<dyn Fault> {
    Box::new(Kill { instance: one_instance(random, focus) })
}

impl Fault for Kill {
    fn begin(&self, stage: &Stage<'_>) {
        if stage.world.scheduler.is_running(self.instance) {
            stage.world.scheduler.kill(self.instance);
        }
    }

    fn end(&self, stage: &Stage<'_>) {
        if !stage.world.scheduler.is_running(self.instance) {
            (stage.start)(self.instance);
        }
    }
}
