//! Requests about one key at several instances within moments of each other: it is asked for while
//! it changes, and for long after.

use crate::plan::{About, Action, INSTANCES, Planned, Request};
use crate::random::Random;
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
pub fn make(
    random: &mut Random,
    faults: &[Planned],
    terms: Terms,
    (envoy, end): (usize, u64),
) -> Vec<(usize, Request)> {
    let mut times = vec![];
    let mut at = START + random.within(1, INTERVAL);
    while at < end {
        times.push((at, 30));
        at += random.within(1, INTERVAL * 2);
    }
    for fault in faults {
        for _ in 0..random.within(1, 4) {
            // What is written right before a fault is what it may lose.
            let is_before = random.percent(40);
            times.push(match is_before {
                true => (fault.from - random.within(0, AROUND.0), 20),
                false => (fault.from + random.within(0, AROUND.1), 55),
            });
        }
        times.extend(random.percent(50).then(|| (fault.until + random.within(0, AROUND.1) - AROUND.0, 30)));
    }
    let mut requests = vec![];
    for (race, (at, old)) in times.iter().enumerate() {
        let is_old = random.percent(*old);
        requests.extend(one(random, race, (*at).max(START + 2_000 * MILLI), is_old, (terms, end)));
    }
    for (index, fault) in faults.iter().enumerate() {
        requests.extend(change_before_fault(random, times.len() + index, fault.from, (terms, end)));
        requests.extend(checks_after_fault(random, fault.until));
        requests.extend(ends_of_known(random, fault.from, envoy));
        if random.percent(60) {
            requests.extend(key_issued_in_fault(
                random,
                times.len() + faults.len() + index,
                fault.from,
                terms,
            ));
        }
        // Drawn aside, so that all else of a plan stays as it is without it.
        let mut aside = Random::new(random.clone().bits());
        let race = times.len() + 2 * faults.len() + index;
        requests.extend(key_issued_before_fault(&mut aside, race, fault.from, terms));
    }
    requests
}

/// Makes a key soon after a fault began, asks for it everywhere at once, and again past the bound:
/// who was told that there is none has to know better by then.
fn key_issued_in_fault(random: &mut Random, race: usize, from: u64, terms: Terms) -> Vec<(usize, Request)> {
    let takes = (terms.latency.0 + terms.latency.1) * MILLI / 2 * MESSAGES.1 + 15 * MILLI;
    let issued = from + random.within(0, 1_500) * MILLI;
    let mut requests = vec![];
    let mut add = |instance: usize, at: u64, action, pick| {
        requests.push((instance, Request { at: at / MILLI * MILLI, action, pick, about: About::Race(race) }));
    };
    add(random.within(0, INSTANCES as u64) as usize, issued, Action::Issue, random.bits());
    for asked in 0..INSTANCES {
        for (first, end) in [(takes, takes + 700 * MILLI), (terms.lease, terms.lease * 2)] {
            (0..2).for_each(|_| {
                let at = issued + random.within(first, end);
                add(asked, at, Action::Check, random.bits());
            });
        }
    }
    requests
}

/// Makes a key right before a fault, asks for it everywhere at once, and again past the bound: a
/// fault that loses the key, and the entry of the log that it was read under, loses it everywhere.
fn key_issued_before_fault(
    random: &mut Random,
    race: usize,
    from: u64,
    terms: Terms,
) -> Vec<(usize, Request)> {
    let takes = (terms.latency.0 + terms.latency.1) * MILLI / 2 * MESSAGES.1 + 15 * MILLI;
    let asked = takes + random.within(20, 400) * MILLI;
    let issued = from - asked - takes;
    let mut requests = vec![];
    let mut add = |instance: usize, at: u64, action, pick| {
        requests.push((instance, Request { at: at / MILLI * MILLI, action, pick, about: About::Race(race) }));
    };
    add(random.within(0, INSTANCES as u64) as usize, issued, Action::Issue, random.bits());
    for instance in 0..INSTANCES {
        add(instance, issued + takes + random.within(0, asked - takes), Action::Check, random.bits());
        for _ in 0..2 {
            let at = from + random.within(terms.lease, terms.lease * 2);
            add(instance, at, Action::Check, random.bits());
        }
    }
    requests
}

/// Makes Checks of what each instance remembers when a fault ends: a process that was cut off or
/// stood still may not know yet that it ended.
fn checks_after_fault(random: &mut Random, until: u64) -> Vec<(usize, Request)> {
    let mut requests = vec![];
    for asked in 0..INSTANCES {
        // One for each key.
        for pick in 0..8 {
            let at = until / MILLI * MILLI - 1_500 * MILLI + random.within(0, 2_000) * MILLI;
            let (action, about) = (Action::Check, About::RememberedBy(asked));
            requests.push((asked, Request { at, action, pick, about }));
        }
    }
    requests
}

/// Ends keys that somebody remembers when a fault begins: an instance, or the Envoy of one.
fn ends_of_known(random: &mut Random, from: u64, envoy: usize) -> Vec<(usize, Request)> {
    let mut requests = vec![];
    for _ in 0..3 {
        let thread = *random.one_of(&[0, 1, 2, INSTANCES + envoy, INSTANCES + envoy]);
        let at = (from - 500 * MILLI + random.within(0, 3_500) * MILLI) / MILLI * MILLI;
        let action = if random.percent(70) { Action::Suspend } else { Action::Revoke };
        let changer = random.within(0, INSTANCES as u64) as usize;
        let about = About::RememberedBy(thread);
        requests.push((changer, Request { at, action, pick: random.bits(), about }));
    }
    requests
}

/// Makes a change of a key right before a fault, and asks for that key at the end only.
fn change_before_fault(
    random: &mut Random,
    race: usize,
    from: u64,
    (terms, end): (Terms, u64),
) -> Vec<(usize, Request)> {
    let takes = (terms.latency.0 + terms.latency.1) * MILLI / 2 * MESSAGES.1;
    let at = (from - takes - random.within(0, 100) * MILLI) / MILLI * MILLI;
    let (about, pick) = (About::Race(race), random.bits());
    let changer = random.within(0, INSTANCES as u64) as usize;
    let mut requests = vec![(changer, Request { at, action: Action::Suspend, pick, about })];
    for asked in 0..INSTANCES {
        let at = (end - random.within(0, FINAL)) / MILLI * MILLI;
        requests.push((asked, Request { at, action: Action::Check, pick, about }));
    }
    requests
}

/// Makes one race, in which a key ends at about `at`.
fn one(
    random: &mut Random,
    race: usize,
    at: u64,
    is_old: bool,
    (terms, end): (Terms, u64),
) -> Vec<(usize, Request)> {
    let lease = terms.lease;
    let way = (terms.latency.0 + terms.latency.1) * MILLI / 2;
    let takes = way * MESSAGES.1 + 15 * MILLI;
    // An old key is made at that time instead, and ends long after.
    let lead = *random.one_of(&[100, 400, 900]) * MILLI;
    let (issued, at) = match is_old {
        true => (at, at + random.within(10_000, 25_000) * MILLI),
        false => (at - takes - random.within(lead / 2, lead), at),
    };
    // The change is committed between these.
    let (early, late) = (at + way * MESSAGES.0, at + takes);
    let mut requests = vec![];
    let mut add = |instance: usize, at: u64, action, pick| {
        requests.push((instance, Request { at: at / MILLI * MILLI, action, pick, about: About::Race(race) }));
    };
    let instance = |random: &mut Random| random.within(0, INSTANCES as u64) as usize;
    add(instance(random), issued, Action::Issue, random.bits());
    if random.percent(30) {
        let changer = instance(random);
        add(changer, issued + (at - issued) / 3, Action::Suspend, random.bits());
        add(changer, issued + (at - issued) * 2 / 3, Action::Resume, random.bits());
    }
    let changer = instance(random);
    // Its own lookups would show what it wrote.
    let is_asked = random.percent(60);
    for asked in 0..INSTANCES {
        add(asked, end - random.within(0, FINAL), Action::Check, random.bits());
        if asked == changer && !is_asked {
            continue;
        }
        if is_old {
            // New, then known: what is remembered of it from before is gone.
            for (from, until) in [(takes, takes + lease / 2), (lease, lease * 2)] {
                add(asked, issued + random.within(from, until), Action::Check, random.bits());
            }
        } else if random.percent(40) {
            add(asked, random.within(issued + takes, at), Action::Check, random.bits());
        }
        // It has to be read while it changes.
        for _ in 0..random.within(0, 3) {
            add(asked, random.within(early, late), Action::Check, random.bits());
        }
        add(asked, at + random.within(0, lease), Action::Check, random.bits());
        for _ in 0..2 {
            add(asked, at + lease + random.within(0, lease), Action::Check, random.bits());
        }
    }
    let action = match random.within(0, 100) {
        0..60 => Action::Revoke,
        60..85 => Action::Suspend,
        _ => Action::SuspendActor,
    };
    add(changer, at, action, random.bits());
    requests
}
