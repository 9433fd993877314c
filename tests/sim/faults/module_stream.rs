//! The stream between an Envoy and its instance: cut, slow, or standing still; and an Envoy that
//! stands still itself.

use super::{Fault, Stage};
use crate::pipe::{self, NEAR};
use crate::random::Random;

/// Fault of the stream at one instance.
#[derive(Debug)]
pub(super) struct ModuleStream {
    pub instance: usize,
    pub kind: Kind,
    pub millis: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// The connection is closed; another one can be opened.
    Cut,
    /// Nothing arrives, and all of it later.
    Held,
    /// Messages take so many milliseconds.
    Slow(u64, u64),
    /// The server's messages take longer than a lease, and the module's none.
    LateAnswers(u64, u64),
    /// Envoy's process is stopped.
    Stopped,
}

pub fn make(random: &mut Random, focus: usize) -> Box<dyn Fault> {
    let longest = random.within(50, 4_000);
    let slow = match longest % 2 {
        0 => Kind::Slow(longest / 2, longest),
        _ => Kind::LateAnswers(5_000 + longest / 2, 5_000 + longest),
    };
    let kind = *random.one_of(&[Kind::Cut, Kind::Held, slow, Kind::Stopped]);
    Box::new(ModuleStream { instance: focus, kind, millis: random.within(200, 9_000) })
}

impl Fault for ModuleStream {
    fn begin(&self, stage: &Stage<'_>) {
        let (world, instance) = (stage.world, self.instance);
        match self.kind {
            Kind::Cut => {
                let stream = world.state().pipes[instance].stream.clone();
                stream.iter().for_each(|stream| stream.close(world));
            }
            Kind::Held => pipe::change(world, instance, |pipe| pipe.is_held = true),
            Kind::Slow(least, end) => pipe::change(world, instance, |pipe| pipe.latency = (least, end)),
            Kind::LateAnswers(least, end) => {
                pipe::change(world, instance, |pipe| pipe.answer_latency = Some((least, end)));
            }
            Kind::Stopped => world.scheduler.stop(world.envoy_thread(instance), self.millis * 1_000),
        }
    }

    fn end(&self, stage: &Stage<'_>) {
        pipe::change(stage.world, self.instance, |pipe| {
            (pipe.is_held, pipe.latency, pipe.answer_latency) = (false, NEAR, None);
        });
    }

    fn millis(&self) -> Option<u64> {
        Some(self.millis)
    }
}
