//! Sequences of faults, each of which begins when the one before has had its effect.

use super::module_stream::{Kind, ModuleStream};
use super::partition::Partition;
use super::slow::Slow;
use super::stall::Stall;
use super::switchover::switchover;
use super::{Fault, Step, one_instance};
use crate::plan::INSTANCES;
use crate::random::Random;
use crate::world::{self, Direction};

/// An instance loses its network, then stands still until that has been back for long. Then it runs
/// for moments only, as one whose memory is read back from a disk.
pub fn stalled_outage(random: &mut Random, focus: usize) -> Vec<Step> {
    let instance = one_instance(random, focus);
    let outage = match random.percent(60) {
        // It ends before anybody is sure of it.
        true => random.within(500, 2_500),
        false => random.within(6_500, 10_500),
    };
    let partition = Partition { instances: vec![instance], is_silent: random.percent(70) };
    let mut steps = vec![Step { after: 0, millis: outage, fault: Box::new(partition) }];
    let mut after = outage - random.within(50, outage.min(1_500));
    let mut millis = random.within(19_000, 30_000);
    let is_suspend = random.percent(30);
    for _ in 0..random.within(2, 5) {
        // A short one doesn't.
        let loses_connections = random.percent(50) && millis > 5_000;
        let stall = Stall { instance, millis, is_suspend, loses_connections };
        steps.push(Step { after, millis, fault: Box::new(stall) });
        // As long as a poll takes, near or far.
        after += millis + if random.percent(60) { random.within(2, 25) } else { random.within(25, 150) };
        millis = match random.percent(50) {
            true => random.within(120, 1_500),
            false => random.within(5_500, 7_000),
        };
    }
    steps
}

/// A machine stands still for long, then runs for moments only: it wakes to dead connections, and
/// may stand still again while it waits for an answer on a new one.
pub fn repeated_standstills(random: &mut Random, focus: usize) -> Vec<Step> {
    let instance = one_instance(random, focus);
    let is_suspend = random.percent(15);
    let mut steps = vec![];
    let (mut after, mut millis) = (0, random.within(6_500, 12_000));
    for _ in 0..random.within(2, 5) {
        let stall = Stall { instance, millis, is_suspend, loses_connections: random.percent(90) };
        steps.push(Step { after, millis, fault: Box::new(stall) });
        after += millis + if random.percent(80) { random.within(2, 25) } else { random.within(25, 150) };
        millis = random.within(5_100, 7_000);
    }
    steps
}

/// Answers come later and later, then nothing.
pub fn late_answers(random: &mut Random, focus: usize) -> Vec<Step> {
    let instances = vec![one_instance(random, focus)];
    let longest = random.within(1_500, 4_500);
    let slow = world::Slow {
        direction: Some(Direction::ToClient),
        latency: (longest * 3 / 4, longest),
        percent: 100,
    };
    let millis = random.within(1_500, 6_000);
    let slow = Slow { instances: instances.clone(), slow };
    let partition = Partition { instances, is_silent: random.percent(70) };
    vec![
        Step { after: 0, millis, fault: Box::new(slow) },
        Step { after: millis, millis: random.within(6_000, 10_000), fault: Box::new(partition) },
    ]
}

/// A module's stream becomes slow, then nothing comes on it.
pub fn silent_module(random: &mut Random, focus: usize) -> Vec<Step> {
    let longest = random.within(300, 4_500);
    let (slow, held) = (random.within(1_000, 6_000), random.within(5_500, 9_000));
    let fault = |kind, millis| Box::new(ModuleStream { instance: focus, kind, millis });
    vec![
        Step { after: 0, millis: slow, fault: fault(Kind::Slow(longest * 3 / 4, longest), slow) },
        Step { after: slow, millis: held, fault: fault(Kind::Held, held) },
    ]
}

/// An instance without the database lives by what others relay, and that is late: it stands still
/// while an answer waits for it, or those who answer learn late themselves.
pub fn late_relay(random: &mut Random, focus: usize) -> Vec<Step> {
    let instance = one_instance(random, focus);
    let partition = Partition { instances: vec![instance], is_silent: random.percent(50) };
    let outage = random.within(16_000, 22_000);
    // Its own lease is over by then.
    let (after, millis) = (random.within(6_000, 9_000), random.within(5_500, 7_500));
    let longest = random.within(3_000, 4_500);
    let late: Box<dyn Fault> = match random.percent(50) {
        true => Box::new(Stall { instance, millis, is_suspend: false, loses_connections: false }),
        false => {
            let (direction, latency) = (Some(Direction::ToClient), (longest * 3 / 4, longest));
            let slow = world::Slow { direction, latency, percent: 100 };
            Box::new(Slow { instances: (0..INSTANCES).filter(|other| *other != instance).collect(), slow })
        }
    };
    vec![Step { after: 0, millis: outage, fault: Box::new(partition) }, Step { after, millis, fault: late }]
}

/// The server that took over fails as well, soon.
pub fn two_switchovers(random: &mut Random, focus: usize) -> Vec<Step> {
    let millis = random.within(200, 4_000);
    let (first, second) = (switchover(random, focus), switchover(random, focus));
    vec![
        Step { after: 0, millis, fault: Box::new(first) },
        Step { after: millis, millis: random.within(200, 6_000), fault: Box::new(second) },
    ]
}
