//! Faults of Redis: gone, slow, flushed, failed over with writes lost, and in wrong hands.

use ::redis::{PushInfo, PushKind};

use super::{Fault, Stage, some_instances};
use crate::random::Random;
use crate::redis::{USUAL, push};

/// Fault of Redis, or of the way to it from some instances.
#[derive(Debug)]
struct Redis {
    instances: Vec<usize>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Connections are reset and refused.
    Down,
    /// Messages get lost without an error.
    Silent,
    /// Messages take so many milliseconds.
    Slow(u64, u64),
    /// Half of what is published gets lost.
    DeafEars,
    Flushed,
    /// Another server takes over, without the last writes; the old one goes on, or follows.
    FailsOver {
        lost: usize,
        goes_on: bool,
    },
    /// Somebody writes what was there before.
    OldValues,
}

pub fn make(random: &mut Random, focus: usize) -> Box<dyn Fault> {
    let longest = random.within(5, 1_200);
    let lost = *random.one_of(&[0, 1, 5, 40, 400]);
    let kind = *random.one_of(&[
        Kind::Down,
        Kind::Silent,
        Kind::Slow(longest / 2, longest),
        Kind::DeafEars,
        Kind::Flushed,
        Kind::FailsOver { lost, goes_on: true },
        Kind::FailsOver { lost, goes_on: false },
        Kind::OldValues,
        Kind::OldValues,
    ]);
    Box::new(Redis { instances: some_instances(random, focus), kind })
}

impl Redis {
    fn reset(&self, stage: &Stage<'_>) {
        let reset = stage.world.state().redis.reset(&self.instances);
        for pushes in reset {
            let lost = PushInfo { kind: PushKind::Disconnection, data: vec![] };
            self.instances.iter().for_each(|instance| push(stage.world, *instance, &pushes, lost.clone()));
        }
    }
}

impl Fault for Redis {
    fn begin(&self, stage: &Stage<'_>) {
        let now = stage.world.now();
        {
            let redis = &mut stage.world.state().redis;
            for instance in &self.instances {
                let net = &mut redis.nets[*instance];
                match self.kind {
                    Kind::Down => net.is_refusing = true,
                    Kind::Silent => net.is_silent = true,
                    Kind::Slow(least, end) => net.latency = (least, end),
                    Kind::DeafEars => net.lost_pushes = 50,
                    _ => {}
                }
            }
            match self.kind {
                Kind::Flushed => redis.flush(),
                Kind::FailsOver { lost, goes_on } => redis.fail_over(lost, goes_on),
                Kind::OldValues => redis.write_old_again(now),
                _ => {}
            }
        }
        if matches!(self.kind, Kind::Down) {
            self.reset(stage);
        }
    }

    fn end(&self, stage: &Stage<'_>) {
        let now = stage.world.now();
        {
            let redis = &mut stage.world.state().redis;
            self.instances.iter().for_each(|instance| redis.nets[*instance] = USUAL);
            if matches!(self.kind, Kind::OldValues) {
                redis.write_old_again(now);
            }
        }
        if matches!(self.kind, Kind::FailsOver { .. }) {
            self.reset(stage);
        }
    }
}
