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
const AROUND: (u64, u64) = (1_200 * MILLI, 3_000 * MILLI);

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
        let count = chance.within(1, 4);
        times.extend((0..count).map(|_| fault.from + chance.within(0, AROUND.0 + AROUND.1) - AROUND.0));
        times.extend(chance.percent(50).then(|| fault.until + chance.within(0, AROUND.1) - AROUND.0));
    }
    let times = times.into_iter().enumerate();
    times.flat_map(|(race, at)| one(chance, race, at.max(START + 2_000 * MILLI), terms)).collect()
}

/// Makes one race, in which a key ends at about `at`.
fn one(chance: &mut Chance, race: usize, at: u64, terms: Terms) -> Vec<(usize, Request)> {
    let lease = terms.lease;
    // The change is committed between these.
    let way = (terms.latency.0 + terms.latency.1) * MILLI / 2;
    let (early, late) = (at + way * MESSAGES.0, at + way * MESSAGES.1 + 15 * MILLI);
    let mut requests = vec![];
    let mut add = |instance: usize, at: u64, action, pick| {
        requests.push((instance, Request { at: at / MILLI * MILLI, action, pick, race: Some(race) }));
    };
    let instance = |chance: &mut Chance| chance.within(0, INSTANCES as u64) as usize;
    let lead = *chance.one_of(&[100, 400, 900]) * MILLI;
    let issued = at - (late - at) - chance.within(lead / 2, lead);
    add(instance(chance), issued, Action::Issue, chance.bits());
    if chance.percent(30) {
        let changer = instance(chance);
        add(changer, issued + (at - issued) / 3, Action::Suspend, chance.bits());
        add(changer, issued + (at - issued) * 2 / 3, Action::Resume, chance.bits());
    }
    for asked in 0..INSTANCES {
        if chance.percent(40) {
            add(asked, chance.within(issued + (late - at), at), Action::Check, chance.bits());
        }
        // It has to be read while it changes.
        for _ in 0..chance.within(0, 3) {
            add(asked, chance.within(early, late), Action::Check, chance.bits());
        }
        for _ in 0..2 {
            add(asked, at + chance.within(0, lease), Action::Check, chance.bits());
            add(asked, at + lease + chance.within(0, lease), Action::Check, chance.bits());
        }
    }
    let action = if chance.percent(70) { Action::Revoke } else { Action::Suspend };
    add(instance(chance), at, action, chance.bits());
    requests
}
