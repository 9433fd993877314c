//! Plan of a simulation, made from its seed: settings, requests of clients, and faults.

use crate::faults::{self, Fault, Step};
use crate::races;
use crate::random::Random;
use crate::scheduler::START;
use crate::world::Terms;

const SECOND: u64 = 1_000_000;
const MILLI: u64 = 1_000;
/// Number of instances.
pub const INSTANCES: usize = 3;
/// Time from which faults may begin.
const CALM_START: u64 = 5 * SECOND;
/// Time by which the last fault has begun.
const LAST_FAULT: u64 = 18 * SECOND;
/// Time in which faults that share it begin.
const BURST: u64 = 6 * SECOND;
/// Longest fault.
const MAX_FAULT: u64 = 10 * SECOND;
/// Time after the last fault.
const CALM_END: u64 = 12 * SECOND;

/// Everything that a seed decides in advance.
pub struct Plan {
    pub seed: u64,
    pub terms: Terms,
    /// Requests of each instance's clients, in order.
    pub requests: Vec<Vec<Request>>,
    pub faults: Vec<Planned>,
    /// Instance that has an Envoy with the accelerator.
    pub envoy: usize,
    /// Time for which its server keeps what it could push, in milliseconds.
    pub push_delay: u64,
    /// Requests to that Envoy, in order.
    pub visits: Vec<Visit>,
    pub end: u64,
}

/// Request of a client.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub at: u64,
    pub action: Action,
    /// Chooses the key.
    pub pick: u64,
    pub about: About,
}

/// Key that a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// Any.
    Any,
    /// The one key of all requests of this race.
    Race(usize),
    /// One that the instance of this thread, or its Envoy, allowed lately and may remember.
    RememberedBy(usize),
}

/// Request of a client to an Envoy.
#[derive(Debug, Clone, Copy)]
pub struct Visit {
    pub at: u64,
    /// Chooses the key.
    pub pick: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Issue,
    Revoke,
    Suspend,
    Resume,
    /// Suspends all keys of the key's actor.
    SuspendActor,
    ResumeActor,
    Check,
}

/// Fault with its time.
pub struct Planned {
    pub from: u64,
    pub until: u64,
    pub fault: Box<dyn Fault>,
}

impl Plan {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let grace = *random.one_of(&[0, 0, 20 * SECOND, 60 * SECOND, 60 * SECOND]);
        let latency = *random.one_of(&[(0, 3), (0, 3), (0, 12), (6, 24)]);
        let has_redis = random.percent(60);
        let relay = if has_redis { *random.one_of(&[0, 10 * SECOND, 10 * SECOND]) } else { 0 };
        let terms = Terms { lease: 5 * SECOND, poll: SECOND, grace, relay, has_redis, latency };
        let focus = random.within(0, INSTANCES as u64) as usize;
        let centre = random.within(CALM_START, LAST_FAULT) / MILLI * MILLI;
        let count = random.within(1, 6);
        let mut faults: Vec<Planned> = (0..count).flat_map(|_| planned(&mut random, focus, centre)).collect();
        // Drawn aside, so that other plans stay as they are.
        let mut aside = Random::new(random.clone().bits());
        if relay > 0 && aside.percent(40) {
            let from = START + aside.within(CALM_START / MILLI, LAST_FAULT / MILLI) * MILLI;
            faults.extend(following(from, faults::late_relay(&mut aside, focus)));
        }
        let last = faults.iter().map(|fault| fault.until).max().unwrap_or(START);
        let end = last + CALM_END;
        let mut requests: Vec<Vec<Request>> = (0..INSTANCES).map(|_| requests(&mut random, end)).collect();
        for (instance, request) in races::make(&mut random, &faults, terms, (focus, end)) {
            requests[instance].push(request);
        }
        // In some plans nothing changes any more from a little after the last fault on.
        let begun = faults.iter().map(|fault| fault.from).max().unwrap_or(START);
        let last_change = if random.percent(50) { begun + 100 * MILLI } else { end };
        for requests in &mut requests {
            requests.retain(|request| request.action == Action::Check || request.at <= last_change);
            requests.sort_by_key(|request| request.at);
        }
        let push_delay = *random.one_of(&[0, 0, 40, 800]);
        let visits = visits(&mut random, end);
        Self { seed, terms, requests, faults, envoy: focus, push_delay, visits, end }
    }
}

/// Plans a fault, or a sequence of them: often soon after a time that many of them share.
fn planned(random: &mut Random, focus: usize, centre: u64) -> Vec<Planned> {
    let from = match random.percent(60) {
        true => START + centre + random.within(0, BURST / MILLI) * MILLI,
        false => START + random.within(CALM_START / MILLI, LAST_FAULT / MILLI) * MILLI,
    };
    if random.percent(30) {
        return following(from, faults::choose_sequence(random, focus));
    }
    let millis = random.within(1, MAX_FAULT / MILLI);
    let fault = faults::choose(random, focus);
    let until = from + fault.millis().unwrap_or(millis) * MILLI;
    vec![Planned { from, until, fault }]
}

/// Plans the steps of a sequence.
fn following(from: u64, steps: Vec<Step>) -> Vec<Planned> {
    let planned = steps.into_iter().map(|step| {
        let from = from + step.after * MILLI;
        Planned { from, until: from + step.millis * MILLI, fault: step.fault }
    });
    planned.collect()
}

/// Makes the requests to one instance.
fn requests(random: &mut Random, end: u64) -> Vec<Request> {
    let mut requests = vec![];
    let mut at = START + random.within(500, 1_000) * MILLI;
    while at < end {
        let action = match random.within(0, 100) {
            _ if requests.len() < 2 => Action::Issue,
            0..=1 => Action::Issue,
            2..=3 => Action::Revoke,
            4..=5 => Action::Suspend,
            6..=7 => Action::Resume,
            8 => Action::SuspendActor,
            9..=10 => Action::ResumeActor,
            _ => Action::Check,
        };
        requests.push(Request { at, action, pick: random.bits(), about: About::Any });
        at += random.within(60, 1_100) * MILLI;
    }
    requests
}

/// Makes the requests to an Envoy.
fn visits(random: &mut Random, end: u64) -> Vec<Visit> {
    let mut visits = vec![];
    let mut at = START + random.within(1_500, 2_500) * MILLI;
    while at < end {
        visits.push(Visit { at, pick: random.bits() });
        at += random.within(10, 400) * MILLI;
    }
    visits
}
