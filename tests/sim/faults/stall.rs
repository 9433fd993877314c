//! A process that stands still: stopped, or on a machine that is suspended.

use super::{Fault, Stage, one_instance};
use crate::random::Random;

/// Standstill of an instance.
#[derive(Debug)]
pub(super) struct Stall {
    pub instance: usize,
    pub millis: u64,
    /// The machine is suspended: its timers stand still as well.
    pub is_suspend: bool,
    /// Its connections die meanwhile, without an error.
    pub loses_connections: bool,
}

pub fn make(random: &mut Random, focus: usize) -> Box<dyn Fault> {
    Box::new(Stall {
        instance: one_instance(random, focus),
        millis: *random.one_of(&[400, 3_000, 7_000, 12_000, 25_000]),
        is_suspend: random.percent(50),
        loses_connections: random.percent(60),
    })
}

impl Fault for Stall {
    fn begin(&self, stage: &Stage<'_>) {
        let scheduler = &stage.world.scheduler;
        match self.is_suspend {
            true => {
                let envoy = stage.world.envoy_thread(self.instance);
                let threads = [self.instance, envoy].into_iter();
                threads.for_each(|thread| scheduler.suspend(thread, self.millis * 1_000));
            }
            false => scheduler.stop(self.instance, self.millis * 1_000),
        }
        if self.loses_connections {
            let mut state = stage.world.state();
            state.nets[self.instance].dead_before = state.sessions + 1;
        }
    }

    fn millis(&self) -> Option<u64> {
        Some(self.millis)
    }
}
