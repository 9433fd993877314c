//! A wall clock that is set.

use super::{Fault, Stage, one_instance};
use crate::random::Random;

/// Jump of an instance's wall clock.
#[derive(Debug)]
struct ClockSet {
    instance: usize,
    ahead_millis: i64,
}

pub fn make(random: &mut Random, focus: usize) -> Box<dyn Fault> {
    let ahead_millis = random.within(0, 40_000) as i64 - 20_000;
    Box::new(ClockSet { instance: one_instance(random, focus), ahead_millis })
}

impl ClockSet {
    fn set(&self, stage: &Stage<'_>, micros: i64) {
        for thread in [self.instance, stage.world.envoy_thread(self.instance)] {
            stage.world.scheduler.set_wall_offset(thread, micros);
        }
    }
}

impl Fault for ClockSet {
    fn begin(&self, stage: &Stage<'_>) {
        self.set(stage, self.ahead_millis * 1_000);
    }

    fn end(&self, stage: &Stage<'_>) {
        self.set(stage, 0);
    }
}
