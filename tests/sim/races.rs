//! Requests about one key at several instances within moments of each other: it is asked for while
//! it changes, and for long after.

use crate::chance::Chance;
use crate::plan::{Action, INSTANCES, Planned, Request};
use crate::scheduler::START;
use crate::world::Terms;

const MILLI: u64 = 1_000;
/// Mean time between two races that no fault causes.
const INTERVAL: u64 = 5_000 * MILLI;
/// Messages, there or back, until a change is committed: least, and end.
const MESSAGES: (u64, u64) = (8, 24);
/// Time before a fault in which races begin, and after it.
const AROUND: (u64, u64) = (700 * MILLI, 3_000 * MILLI);
/// Time at the end of a plan in which every instance is asked for every race's key.
const FINAL: u64 = 3_500 * MILLI;

/// Makes the races of a plan: some at any time, more around faults. Returns the requests with their
/// instances.
pub fn make(chance: &mut Chance, faults: &[Planned], terms: Terms, end: u64) -> Vec<(usize, Request)> {
    let mut times = vec![];
    let mut at = START + chance.within(1, INTERVAL);
    while at < end {
        times.push(at);
        at += chance.within(1, INTERVAL * 2);
    }
    for fault in faults {
        for _ in 0..chance.within(1, 4) {
            // What is written right before a fault is what it may lose.
            let is_before = chance.percent(40);
            times.push(match is_before {
                true => fault.from - chance.within(0, AROUND.0),
                false => fault.from + chance.within(0, AROUND.1),
            });
        }
        times.extend(chance.percent(50).then(|| fault.until + chance.within(0, AROUND.1) - AROUND.0));
    }
    times.iter_mut().for_each(|at| *at = (*at).max(START + 2_000 * MILLI));
    let races = times.iter().enumerate();
    let mut requests: Vec<_> = races.flat_map(|(race, at)| one(chance, race, *at, (terms, end))).collect();
    for fault in faults {
        requests.extend(afterwards(chance, &times, fault.until, terms.lease));
    }
    requests
}

/// Makes Checks of keys that ended long before a fault did: a process that was cut off or stood
/// still may remember them.
fn afterwards(chance: &mut Chance, times: &[u64], until: u64, lease: u64) -> Vec<(usize, Request)> {
    let mut ended: Vec<usize> = (0..times.len()).filter(|race| times[*race] + lease < until).collect();
    ended.sort_by_key(|race| std::cmp::Reverse(times[*race]));
    ended.truncate(8);
    let mut requests = vec![];
    for race in ended {
        for asked in (0..INSTANCES).filter(|_| chance.percent(50)).collect::<Vec<_>>() {
            let at = until - 200 * MILLI + chance.within(0, 1_200) * MILLI;
            let at = at / MILLI * MILLI;
            requests
                .push((asked, Request { at, action: Action::Check, pick: chance.bits(), race: Some(race) }));
        }
    }
    requests
}

/// Makes one race, in which a key ends at about `at`.
fn one(chance: &mut Chance, race: usize, at: u64, (terms, end): (Terms, u64)) -> Vec<(usize, Request)> {
    let lease = terms.lease;
    // The change is committed between these.
    let way = (terms.latency.0 + terms.latency.1) * MILLI / 2;
    let (early, late) = (at + way * MESSAGES.0, at + way * MESSAGES.1 + 15 * MILLI);
    let mut requests = vec![];
    let mut add = |instance: usize, at: u64, action, pick| {
        requests.push((instance, Request { at: at / MILLI * MILLI, action, pick, race: Some(race) }));
    };
    let instance = |chance: &mut Chance| chance.within(0, INSTANCES as u64) as usize;
    // Some keys are old when they end.
    let lead = *chance.one_of(&[100, 400, 900, 25_000]) * MILLI;
    let issued = at.saturating_sub((late - at) + chance.within(lead / 2, lead)).max(START + 500 * MILLI);
    add(instance(chance), issued, Action::Issue, chance.bits());
    if chance.percent(30) {
        let changer = instance(chance);
        add(changer, issued + (at - issued) / 3, Action::Suspend, chance.bits());
        add(changer, issued + (at - issued) * 2 / 3, Action::Resume, chance.bits());
    }
    let changer = instance(chance);
    // Its own lookups would show what it wrote.
    let is_asked = chance.percent(60);
    for asked in 0..INSTANCES {
        add(asked, end - chance.within(0, FINAL), Action::Check, chance.bits());
        if asked == changer && !is_asked {
            continue;
        }
        if chance.percent(40) {
            add(
                asked,
                chance.within(issued + (late - at), at.max(issued + (late - at) + 1)),
                Action::Check,
                chance.bits(),
            );
        }
        // It has to be read while it changes.
        for _ in 0..chance.within(0, 3) {
            add(asked, chance.within(early, late), Action::Check, chance.bits());
        }
        add(asked, at + chance.within(0, lease), Action::Check, chance.bits());
        for _ in 0..2 {
            add(asked, at + lease + chance.within(0, lease), Action::Check, chance.bits());
        }
    }
    let action = if chance.percent(70) { Action::Revoke } else { Action::Suspend };
    add(changer, at, action, chance.bits());
    requests
}
